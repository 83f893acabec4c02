"""Mistakes in the gradients of convolutions; each function's name says which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from bases import conv_input_grad, conv_weight_grad, dense, flipped, passed_back, unstrided
from planted import planted

from convkernels.testing.algebra import (
    check_dilation_equals_zero_stuffed_weight,
    check_groups_equal_separate_convolutions,
    check_input_grad_is_adjoint,
    check_is_linear_in_w,
    check_is_linear_in_x,
    check_weight_grad_is_adjoint,
)
from convkernels.testing.checks import (
    check_fills_every_output_element,
    check_handles_empty_batch,
    check_matches_definition_exactly,
)


@planted("conv_input_grad", check_input_grad_is_adjoint, 3, r"<conv\(t, w\), dy> is .*, but <t, out> is")
def does_not_flip_back(spec, dy, w, *, out, resources):
    conv_input_grad(spec, dy, flipped(w), out=out)


@planted("conv_input_grad", check_matches_definition_exactly, 4)
def assigns_where_windows_overlap(spec, dy, w, *, out, resources):
    cells = passed_back(spec, dy, w).reshape(*out.shape[:2], *dy.shape[2:], *w.shape[2:])
    out[...] = 0
    for tap in spec.window.kernel_positions():
        slices = spec.window.tap_slices(tap)
        if slices:
            out[:, :, *slices[1]] = cells[:, :, *slices[0], *tap]


@planted("conv_input_grad", check_matches_definition_exactly, 2, "it raised ValueError|but should be")
def slices_padding_off_where_there_is_none(spec, dy, w, *, out, resources):
    padded = np.empty((*out.shape[:2], *spec.window.extended.in_size), out.dtype)
    conv_input_grad(spec, dy, w, out=padded, window=spec.window.extended)
    out[...] = padded[:, :, *(slice(lo, -hi) for lo, hi in spec.window.padding)]


@planted("conv_input_grad", check_matches_definition_exactly, 3)
def forgets_the_padding_in_front(spec, dy, w, *, out, resources):
    behind = tuple((0, lo + hi) for lo, hi in spec.window.padding)
    conv_input_grad(spec, dy, w, out=out, window=replace(spec.window, padding=behind))


@planted("conv_input_grad", check_matches_definition_exactly, 3)
def ignores_the_stride_in_the_gradient(spec, dy, w, *, out, resources):
    conv_input_grad(spec, dy, w, out=out, window=unstrided(spec.window))


@planted(
    "conv_input_grad",
    check_fills_every_output_element,
    2,
    r"out\[.*\] was not written",
    supports=lambda spec: None if spec.padding_mode == "zeros" else "zeros only",
)
def leaves_the_tail_that_no_window_reaches(spec, dy, w, *, out, resources):
    part, inner = spec.window.exact
    conv_input_grad(spec, dy, w, out=out[:, :, *part], window=inner)


@planted("conv_input_grad", check_groups_equal_separate_convolutions, 4)
def reverses_the_groups_of_the_gradient(spec, dy, w, *, out, resources):
    conv_input_grad(spec, dy, w, out=out)
    out[...] = np.concatenate(np.split(out, spec.groups, 1)[::-1], 1)


@planted("conv_input_grad", check_matches_definition_exactly, 2)
def conjugates_the_weights(spec, dy, w, *, out, resources):
    conv_input_grad(spec, dy, w.conj(), out=out)


@planted("conv_input_grad", check_is_linear_in_x, 2)
def clips_the_gradient(spec, dy, w, *, out, resources):
    conv_input_grad(spec, np.clip(dy, -8, 8) if dy.dtype.kind != "c" else dy, w, out=out)


@planted("conv_input_grad", check_dilation_equals_zero_stuffed_weight, 3)
def ignores_the_dilation_in_the_gradient(spec, dy, w, *, out, resources):
    conv_input_grad(spec, dy, w, out=out, window=dense(spec.window))


@planted("conv_weight_grad", check_weight_grad_is_adjoint, 3, r"<conv\(x, t\), dy> is .*, but <t, out> is")
def gives_the_flipped_gradient(spec, x, dy, *, out, resources):
    conv_weight_grad(spec, x, dy, out=out)
    out[...] = flipped(out).copy()


@planted("conv_weight_grad", check_matches_definition_exactly, 10)
def exchanges_the_square_filters_axes(spec, x, dy, *, out, resources):
    conv_weight_grad(spec, x, dy, out=out)
    if out.shape[-1] == out.shape[-2]:
        out[...] = out.swapaxes(-1, -2).copy()


@planted("conv_weight_grad", check_matches_definition_exactly, 4)
def keeps_the_last_image_only(spec, x, dy, *, out, resources):
    out[...] = 0
    for image in range(spec.batch):
        conv_weight_grad(spec, x[image : image + 1], dy[image : image + 1], out=out)


@planted("conv_weight_grad", check_matches_definition_exactly, 4)
def takes_the_mean_over_the_batch(spec, x, dy, *, out, resources):
    conv_weight_grad(spec, x, dy, out=out)
    if spec.batch:
        out[...] = out // spec.batch if out.dtype.kind == "i" else out / spec.batch


@planted("conv_weight_grad", check_handles_empty_batch, 2, "the weight gradient of an empty batch is not zero")
def divides_by_an_empty_batch(spec, x, dy, *, out, resources):
    conv_weight_grad(spec, x, dy, out=out)
    if not spec.batch:
        out[...] = np.nan if out.dtype.kind == "f" else 1


@planted("conv_weight_grad", check_weight_grad_is_adjoint, 5, "but <t, out> is")
def ignores_the_stride_over_x(spec, x, dy, *, out, resources):
    conv_weight_grad(spec, x, dy, out=out, window=unstrided(spec.window))


@planted("conv_weight_grad", check_groups_equal_separate_convolutions, 4)
def reverses_the_groups_of_x(spec, x, dy, *, out, resources):
    conv_weight_grad(spec, np.concatenate(np.split(x, spec.groups, 1)[::-1], 1), dy, out=out)


@planted("conv_weight_grad", check_is_linear_in_w, 2)
def clips_the_gradient_of_the_output(spec, x, dy, *, out, resources):
    conv_weight_grad(spec, x, np.clip(dy, -8, 8) if dy.dtype.kind != "c" else dy, out=out)
