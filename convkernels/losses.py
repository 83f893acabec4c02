"""Losses over class scores, each with its gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .call import as_array
from .differentiable import both, floating, real, taken
from .errors import DTypeError, OptionError, ShapeError
from .layout import Array
from .spec import check_sizes

DOC = {
    "<loss>": """Returns
    -------
    loss : float
        The mean over the batch.
    vjp : callable
        From the ``_vjp`` function only: ``vjp(dloss=1.0)`` returns the gradient by the scores, of their shape and
        type.

    Raises
    ------
    ConvkernelsError
        If the scores are not floating or the labels not integer (DTypeError), their shapes do not fit, or the batch is
        empty (ShapeError), or a label or an option is out of range (OptionError).

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import losses""",
}


def _classified(name: str, scores: ArrayLike, labels: ArrayLike) -> tuple[Array, Array, tuple[Array, Array]]:
    """The scores as an array, the same to compute with, and the place of each sample's label among them."""
    scores, wide = taken(name, scores)
    if scores.ndim != 2:
        raise ShapeError(f"{name} has shape {scores.shape}, must have (N, K): a score for each of K classes")
    check_sizes(name, scores.shape, "NK")
    samples, classes = scores.shape
    labels = as_array("labels", labels)
    if labels.dtype.kind not in "iu":
        raise DTypeError(f"labels has dtype {labels.dtype}, must be integer")
    if labels.shape != (samples,):
        raise ShapeError(f"labels has shape {labels.shape}, must have {(samples,)}: the class of each sample")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise OptionError(
            f"labels[{wrong[0]}]={labels[wrong[0]]} must be at least 0 and below {classes}, the number of classes"
        )
    return scores, wide, (np.arange(samples), labels)


def _mean_loss(scores: Array, losses: Array, slope: Callable[[], Array]) -> tuple[float, Callable[..., Array]]:
    """The mean of the samples' losses, and its vjp, given the gradient of their sum."""

    def vjp(dloss: float = 1.0) -> Array:
        return (slope() * (real("dloss", dloss) / len(losses))).astype(floating(scores=scores), copy=False)

    return float(losses.mean(dtype=np.float64)), vjp


def _softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> tuple[float, Callable[..., Array]]:
    """Average -log p[label], where p = exp(logits) / sum(exp(logits)) for each sample.

    The largest logit is subtracted first, which changes nothing but keeps the exponentials finite.

    Parameters
    ----------
    logits : array_like
        Scores of shape (N, K) for K classes.
    labels : array_like
        The right classes, of shape (N,), integers from 0 to K - 1.

    <loss>
    >>> loss, vjp = losses.softmax_cross_entropy_vjp(np.array([[1e4, 1e4]]), np.array([0]))
    >>> round(loss, 4), vjp()
    (0.6931, array([[-0.5,  0.5]]))
    """
    scores, wide, place = _classified("logits", logits, labels)
    shifted = wide - wide.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))

    def slope() -> Array:
        p: Array = np.exp(log_p)
        p[place] -= 1
        return p

    return _mean_loss(scores, -log_p[place], slope)


def _svm_loss(scores: ArrayLike, labels: ArrayLike, margin: float = 1.0) -> tuple[float, Callable[..., Array]]:
    """Average the hinges: the sum over the wrong classes j of max(0, scores[j] - scores[label] + margin).

    This is the multiclass loss of Weston and Watkins (1999), as in CS231n. A hinge at 0 has gradient 0.

    Parameters
    ----------
    scores : array_like
        Scores of shape (N, K) for K classes.
    labels : array_like
        The right classes, of shape (N,), integers from 0 to K - 1.
    margin : float
        By how much the right class must lead.

    <loss>
    >>> loss, vjp = losses.svm_loss_vjp(np.array([[3.0, 2.5, 0.0]]), np.array([0]))
    >>> loss, vjp()
    (0.5, array([[-1.,  1.,  0.]]))
    """
    scores, wide, place = _classified("scores", scores, labels)
    hinges = np.maximum(wide - wide[place][:, np.newaxis] + real("margin", margin), 0)
    hinges[place] = 0

    def slope() -> Array:
        # Where a hinge is NaN, so is its step.
        steps = np.heaviside(hinges, 0)
        steps[place] = -steps.sum(1)
        return steps

    return _mean_loss(scores, hinges.sum(1), slope)


softmax_cross_entropy, softmax_cross_entropy_vjp = both(_softmax_cross_entropy, DOC)
svm_loss, svm_loss_vjp = both(_svm_loss, DOC)
