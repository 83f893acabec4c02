"""Matrix products: BLAS', or those of compiled convolutions, whose threads do not hold up each other.

A product of matrices is a convolution of one tap along the rows of the first. BLAS' own threads wait for more work for
some 25 ms after each product, on processors that the compiled kernels' threads want: a training step of the MNIST
network took 58 ms on two threads with BLAS' products of a third of a millisecond, and 41 ms without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..config import Resources, get_config
from ..layout import Array
from ..operation import CONV, CONV_INPUT_GRAD, CONV_WEIGHT_GRAD, Operation
from ..spec import ConvSpec
from .compiled.available import missing

FEW, MANY = 2**19, {"conv": 2**27, "conv_input_grad": 2**30, "conv_weight_grad": 2**27}
"""Operations between which products are compiled: below, BLAS takes one thread, and above, it is the faster."""


class Compiled(NamedTuple):
    """An implementation of a convolution that is a product, and what it takes beside the arrays."""

    run: Callable[..., None]
    spec: ConvSpec
    resources: Resources


def compiled(operation: Operation, x: Array, columns: int) -> Compiled | None:
    """What computes x times a matrix of so many columns, or its gradients, if not BLAS."""
    rows, depth = x.shape
    if missing() or not FEW <= 2 * rows * depth * columns <= MANY[operation.name]:
        return None
    spec, config = ConvSpec.make((1, depth, rows), (columns, depth, 1), x.dtype), get_config()
    implementation = operation.find("direct")
    if implementation.supports(spec) or implementation.workspace(spec, config.max_workspace) > config.max_workspace:
        return None
    return Compiled(implementation.run, spec, Resources(config.max_workspace, config.threads))


def product(x: Array, w: Array, b: Array | None) -> Array:
    """The product x w + b of arrays of one type."""
    y = np.empty((len(x), w.shape[1]), x.dtype)
    if found := compiled(CONV, x, w.shape[1]):
        found.run(found.spec, x.T[None], w.T[..., None], b, out=y.T[None], resources=found.resources)
        return y
    np.matmul(x, w, out=y)
    return y if b is None else np.add(y, b, out=y)


def product_input_grad(dy: Array, w: Array) -> Array:
    """The product of dy and w transposed, of one type."""
    dx = np.empty((len(dy), len(w)), dy.dtype)
    if found := compiled(CONV_INPUT_GRAD, dx, w.shape[1]):
        found.run(found.spec, dy.T[None], w.T[..., None], out=dx.T[None], resources=found.resources)
        return dx
    return np.matmul(dy, w.T, out=dx)


def product_weight_grad(x: Array, dy: Array) -> Array:
    """The product of x transposed and dy, of one type."""
    dw = np.empty((x.shape[1], dy.shape[1]), dy.dtype)
    if found := compiled(CONV_WEIGHT_GRAD, x, dy.shape[1]):
        found.run(found.spec, x.T[None], dy.T[None], out=dw.T[..., None], resources=found.resources)
        return dw
    return np.matmul(x.T, dy, out=dw)
