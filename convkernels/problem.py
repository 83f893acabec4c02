"""Reading a problem string: the operation it names, and the spec of that operation's kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .errors import ConvkernelsError, OptionError, one_of
from .grammar import Fields, read
from .norm_spec import LocalNormSpec, NormSpec
from .pool_spec import PoolSpec
from .spec import ConvSpec, ConvTransposeSpec

Spec: TypeAlias = ConvSpec | ConvTransposeSpec | PoolSpec | NormSpec | LocalNormSpec
_READERS: dict[str, Callable[[Fields], Spec]] = {
    **dict.fromkeys(("conv", "conv_input_grad", "conv_weight_grad"), ConvSpec.from_fields),
    "conv_transpose": ConvTransposeSpec.from_fields,
    **dict.fromkeys(("norm", "batch_norm", "batch_norm_grad"), NormSpec.from_fields),
    **dict.fromkeys(("batch_norm_train", "batch_norm_train_grad"), NormSpec.from_fields),
    **dict.fromkeys(("group_norm", "group_norm_grad"), NormSpec.from_fields),
    **dict.fromkeys(("local_response_norm", "local_response_norm_grad"), LocalNormSpec.from_fields),
    **dict.fromkeys(("pool", "pool_grad"), PoolSpec.from_fields),
}


def parse_problem(text: str) -> tuple[str, Spec]:
    """Read a problem string.

    Parameters
    ----------
    text : str
        A problem string; `convkernels.grammar` has the grammar.

    Returns
    -------
    operation : str
        Which operation it is for, "conv" if it does not say.
    spec : ConvSpec, ConvTransposeSpec, PoolSpec, NormSpec or LocalNormSpec
        The spec that prints as `text`.

    Raises
    ------
    OptionError, ShapeError, DTypeError, UnsupportedError
        If the text is not of that form, or describes a problem that the operation would refuse.

    Examples
    --------
    >>> import convkernels as ck
    >>> operation, spec = ck.parse_problem("n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1")
    >>> operation, spec.y_shape
    ('conv', (1, 64, 56, 56))
    """
    fields = read(text)
    try:
        if fields.operation not in _READERS:
            raise OptionError(f"operation {fields.operation!r} must be one of {one_of(_READERS, fields.operation)}")
        spec = _READERS[fields.operation](fields)
        if fields.options:
            raise OptionError(f"option {fields.options[0]!r} is not one of {fields.operation}'s")
    except ConvkernelsError as error:
        raise type(error)(f"problem {text!r}: {error.cause}") from None
    if fields.operation == "norm" and isinstance(spec, NormSpec):
        return ("batch_norm_train" if spec.kind == "batch" else "group_norm"), spec
    return fields.operation, spec
