"""THE LIST: every operation with its implementations, the preferred first, the definition last."""

from __future__ import annotations

from functools import partial

from .kernels import (
    fft,
    im2col,
    local_norm,
    naive,
    naive_norms,
    norm_gradients,
    norms,
    pooling,
    stride_tricks,
    transposed,
)
from .kernels.compiled import available, needs, norm_available, pool_blocks
from .operation import (
    BATCH_NORM,
    BATCH_NORM_GRAD,
    BATCH_NORM_TRAIN,
    BATCH_NORM_TRAIN_GRAD,
    CONV,
    CONV_INPUT_GRAD,
    CONV_TRANSPOSE,
    CONV_WEIGHT_GRAD,
    GROUP_NORM,
    GROUP_NORM_GRAD,
    LOCAL_RESPONSE_NORM,
    LOCAL_RESPONSE_NORM_GRAD,
    OPERATIONS,
    POOL,
    POOL_GRAD,
    Implementation,
    Operation,
)

_tiles = partial(
    Implementation,
    "direct",
    supports=available.supports,
    prefers=available.prefers,
    claims=available.CLAIMS,
    uses_threads=True,
)
_squares = partial(
    Implementation,
    "winograd",
    supports=available.winograd_supports,
    prefers=available.winograd_prefers,
    claims=available.WINOGRAD_CLAIMS,
    uses_threads=True,
)
_channels = partial(
    Implementation,
    "depthwise",
    supports=available.depthwise_supports,
    prefers=available.depthwise_prefers,
    workspace=needs.workspace_depthwise,
    claims=available.CLAIMS,
    uses_threads=True,
)
_lines = partial(
    Implementation,
    pool_blocks.NAME,
    supports=pool_blocks.supports,
    prefers=pool_blocks.prefers,
    claims=pool_blocks.CLAIMS,
    uses_threads=True,
)
_spectra = partial(
    Implementation,
    "fft",
    supports=fft.supports,
    prefers=fft.prefers,
    workspace=fft.workspace,
    claims=fft.CLAIMS,
)
_columns = partial(Implementation, "im2col", prefers=im2col.prefers, workspace=im2col.workspace, claims=im2col.CLAIMS)
_taps = partial(Implementation, "stride_tricks", workspace=stride_tricks.workspace, claims=stride_tricks.CLAIMS)
_pool_views = partial(Implementation, "stride_tricks", claims=pooling.CLAIMS)
_pool_columns = partial(Implementation, "im2col", claims=pooling.CLAIMS)
_definition = partial(Implementation, "naive", prefers=naive.prefers, claims=naive.CLAIMS, padding_modes=True)
_compiled_norm = partial(
    Implementation,
    "direct",
    supports=norm_available.supports,
    workspace=norm_available.workspace,
    claims=norm_available.CLAIMS,
    uses_threads=True,
)
_numpy_norm = partial(Implementation, "numpy", workspace=norms.workspace, claims=norms.CLAIMS)
_local_norm = partial(Implementation, "numpy", workspace=local_norm.workspace, claims=local_norm.CLAIMS)
_norm_definition = partial(Implementation, "naive", prefers=naive.prefers, claims=naive_norms.CLAIMS)

CATALOG: dict[Operation, tuple[Implementation, ...]] = {
    CONV: (
        _spectra(fft.conv),
        _channels(
            available.late("depthwise", "depthwise"),
            plan=available.late("depthwise", "plan_depthwise"),
            keep=available.late("depthwise", "keep_depthwise"),
        ),
        _squares(
            available.late("winograd", "winograd"),
            workspace=needs.workspace_winograd,
            plan=available.late("winograd", "plan_winograd"),
            keep=available.late("winograd", "keep_winograd"),
        ),
        _tiles(
            available.late("direct", "conv"),
            workspace=needs.workspace,
            plan=available.late("direct", "plan_conv"),
            keep=available.late("direct", "keep_conv"),
        ),
        _columns(im2col.conv),
        _taps(stride_tricks.conv),
        _definition(naive.conv),
    ),
    CONV_INPUT_GRAD: (
        _spectra(fft.conv_input_grad, supports=fft.supports_input_grad, prefers=fft.prefers_input_grad),
        _channels(
            available.late("depthwise", "depthwise_input_grad"),
            prefers=available.depthwise_prefers_input_grad,
            plan=available.late("depthwise", "plan_input_grad"),
            keep=available.late("depthwise", "keep_backward"),
        ),
        _squares(
            available.late("winograd", "winograd_input_grad"),
            supports=available.winograd_supports_backward,
            prefers=available.winograd_prefers_backward,
            workspace=needs.workspace_winograd_input_grad,
            plan=available.late("winograd", "plan_input_grad"),
            keep=available.late("winograd", "keep_backward"),
        ),
        _tiles(
            available.late("direct", "conv_input_grad"),
            prefers=available.prefers_input_grad,
            workspace=needs.workspace_input_grad,
            plan=available.late("direct", "plan_input_grad"),
            keep=available.late("direct", "keep_backward"),
        ),
        _columns(im2col.conv_input_grad, workspace=im2col.workspace_input_grad),
        _taps(stride_tricks.conv_input_grad),
        _definition(naive.conv_input_grad),
    ),
    CONV_WEIGHT_GRAD: (
        _spectra(
            fft.conv_weight_grad,
            supports=fft.supports_weight_grad,
            prefers=fft.prefers_weight_grad,
            workspace=fft.workspace_weight_grad,
        ),
        _channels(
            available.late("depthwise", "depthwise_weight_grad"),
            prefers=available.depthwise_prefers_weight_grad,
            plan=available.late("depthwise", "plan_weight_grad"),
        ),
        _squares(
            available.late("winograd_weights", "winograd_weight_grad"),
            supports=available.winograd_supports_weight_grad,
            prefers=available.winograd_prefers_weight_grad,
            workspace=needs.workspace_winograd_weight_grad,
            plan=available.late("winograd_weights", "plan_weight_grad"),
        ),
        _tiles(
            available.late("weights", "conv_weight_grad"),
            prefers=available.prefers_weight_grad,
            workspace=needs.workspace_weight_grad,
            plan=available.late("weights", "plan_weight_grad"),
        ),
        _columns(im2col.conv_weight_grad, workspace=im2col.workspace_weight_grad),
        _taps(stride_tricks.conv_weight_grad),
        _definition(naive.conv_weight_grad),
    ),
    CONV_TRANSPOSE: (
        _spectra(
            transposed.through(fft.conv_input_grad),
            supports=lambda spec: fft.supports_input_grad(spec.convolution),
            prefers=lambda spec, order: fft.prefers_input_grad(spec.convolution, order),
            workspace=transposed.workspace_through(fft.workspace),
        ),
        _channels(
            transposed.through(available.late("depthwise", "depthwise_input_grad")),
            supports=lambda spec: available.depthwise_supports(spec.convolution),
            prefers=lambda spec, order: available.depthwise_prefers_input_grad(spec.convolution, order),
            workspace=transposed.workspace_through(needs.workspace_depthwise),
        ),
        _squares(
            available.late("winograd", "winograd_transpose"),
            plan=available.late("winograd", "plan_transpose"),
            keep=available.late("winograd", "keep_backward"),
            supports=lambda spec: available.winograd_supports_backward(spec.convolution),
            prefers=lambda spec, order: available.winograd_prefers_backward(spec.convolution, order),
            workspace=transposed.workspace_through(needs.workspace_winograd_input_grad),
        ),
        _tiles(
            available.late("direct", "conv_transpose"),
            plan=available.late("direct", "plan_transpose"),
            keep=available.late("direct", "keep_backward"),
            supports=lambda spec: available.supports(spec.convolution),
            prefers=lambda spec, order: available.prefers_input_grad(spec.convolution, order),
            workspace=transposed.workspace_through(needs.workspace_input_grad),
        ),
        _columns(
            transposed.through(im2col.conv_input_grad),
            prefers=lambda spec, order: im2col.prefers(spec.convolution, order),
            workspace=transposed.workspace_through(im2col.workspace_input_grad),
        ),
        _taps(
            transposed.through(stride_tricks.conv_input_grad),
            workspace=transposed.workspace_through(stride_tricks.workspace),
        ),
        _definition(naive.conv_transpose),
    ),
    POOL: (
        _lines(
            available.late("pooling", "pool"),
            workspace=pool_blocks.workspace,
            plan=available.late("pool_plans", "pool"),
        ),
        _pool_views(pooling.pool_views, workspace=pooling.workspace),
        _pool_columns(pooling.pool_columns, workspace=pooling.workspace_columns),
        _definition(naive.pool),
    ),
    POOL_GRAD: (
        _lines(
            available.late("pooling", "pool_grad"),
            supports=pool_blocks.supports_grad,
            workspace=pool_blocks.workspace_grad,
            plan=available.late("pool_plans", "pool_grad"),
        ),
        _pool_views(pooling.pool_views_grad, workspace=pooling.workspace_grad),
        _pool_columns(pooling.pool_columns_grad, workspace=pooling.workspace_grad),
        _definition(naive.pool_grad),
    ),
    BATCH_NORM: (
        _compiled_norm(available.late("norms", "batch_norm"), plan=available.late("norm_plans", "batch_norm")),
        _numpy_norm(norms.batch_norm),
        _norm_definition(naive_norms.batch_norm),
    ),
    BATCH_NORM_GRAD: (
        _compiled_norm(
            partial(available.late("norms", "norm_grad"), given=True),
            plan=partial(available.late("norm_plans", "norm_grad"), given=True),
        ),
        _numpy_norm(partial(norm_gradients.norm_grad, given=True)),
        _norm_definition(naive_norms.batch_norm_grad),
    ),
    BATCH_NORM_TRAIN: (
        _compiled_norm(available.late("norms", "norm"), plan=available.late("norm_plans", "norm")),
        _numpy_norm(norms.norm),
        _norm_definition(naive_norms.norm),
    ),
    BATCH_NORM_TRAIN_GRAD: (
        _compiled_norm(available.late("norms", "norm_grad"), plan=available.late("norm_plans", "norm_grad")),
        _numpy_norm(norm_gradients.norm_grad),
        _norm_definition(naive_norms.norm_grad),
    ),
    GROUP_NORM: (
        _compiled_norm(available.late("norms", "norm"), plan=available.late("norm_plans", "norm")),
        _numpy_norm(norms.norm),
        _norm_definition(naive_norms.norm),
    ),
    GROUP_NORM_GRAD: (
        _compiled_norm(available.late("norms", "norm_grad"), plan=available.late("norm_plans", "norm_grad")),
        _numpy_norm(norm_gradients.norm_grad),
        _norm_definition(naive_norms.norm_grad),
    ),
    LOCAL_RESPONSE_NORM: (
        _local_norm(local_norm.local_response_norm),
        _norm_definition(naive_norms.local_response_norm),
    ),
    LOCAL_RESPONSE_NORM_GRAD: (
        _local_norm(local_norm.local_response_norm_grad),
        _norm_definition(naive_norms.local_response_norm_grad),
    ),
}

for _operation, _implementations in CATALOG.items():
    _operation.fill(_implementations)

assert set(CATALOG) == set(OPERATIONS.values()), "every operation is listed"
