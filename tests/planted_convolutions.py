"""Mistakes in convolutions and transposed convolutions; each function's name says which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from bases import along_channels, conv, conv_transpose, dense, flipped, swapped, unstrided
from planted import planted

from convkernels.testing.algebra import (
    check_commutes_with_shifts,
    check_dilation_equals_zero_stuffed_weight,
    check_groups_equal_separate_convolutions,
    check_input_grad_is_adjoint,
    check_is_linear_in_w,
    check_is_linear_in_x,
)
from convkernels.testing.checks import check_fills_every_output_element, check_matches_definition_exactly


@planted("conv", check_matches_definition_exactly, 2)
def gives_zeros(spec, x, w, b, *, out, resources):
    out[...] = 0


@planted("conv", check_matches_definition_exactly, 3)
def forgets_the_bias(spec, x, w, b, *, out, resources):
    conv(spec, x, w, None, out=out)


@planted("conv", check_is_linear_in_x, 5)
def adds_the_bias_once_per_tap(spec, x, w, b, *, out, resources):
    conv(spec, x, w, None if b is None else b * spec.window.taps, out=out)


@planted("conv", check_is_linear_in_w, 3)
def scales_the_bias_by_the_weights(spec, x, w, b, *, out, resources):
    conv(spec, x, w, None if b is None else b * w.sum(), out=out)


@planted("conv", check_matches_definition_exactly, 4)
def flips_the_filter(spec, x, w, b, *, out, resources):
    conv(spec, x, flipped(w), b, out=out)


@planted("conv", check_groups_equal_separate_convolutions, 4)
def reverses_the_groups(spec, x, w, b, *, out, resources):
    groups = w.reshape(spec.groups, -1, *w.shape[1:])[::-1]
    conv(spec, x, groups.reshape(w.shape), b, out=out)


@planted("conv", check_groups_equal_separate_convolutions, 4)
def uses_the_first_groups_weights_for_all(spec, x, w, b, *, out, resources):
    groups = w.reshape(spec.groups, -1, *w.shape[1:])
    conv(spec, x, np.broadcast_to(groups[:1], groups.shape).reshape(w.shape), b, out=out)


@planted("conv", check_matches_definition_exactly, 6)
def orders_a_depthwise_multiplier_by_copies(spec, x, w, b, *, out, resources):
    turned = w.reshape(spec.group_out, spec.groups, *w.shape[1:]).swapaxes(0, 1)
    conv(spec, x, turned.reshape(w.shape), b, out=out)


@planted("conv", check_matches_definition_exactly, 2)
def swaps_the_padding_in_front_and_behind(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out, window=swapped(spec.window))


@planted("conv", check_matches_definition_exactly, 2)
def puts_all_padding_in_front(spec, x, w, b, *, out, resources):
    in_front = tuple((lo + hi, 0) for lo, hi in spec.window.padding)
    conv(spec, x, w, b, out=out, window=replace(spec.window, padding=in_front))


@planted("conv", check_matches_definition_exactly, 4)
def ignores_the_stride(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out, window=unstrided(spec.window))


@planted("conv", check_dilation_equals_zero_stuffed_weight, 5)
def ignores_the_dilation(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out, window=dense(spec.window))


@planted("conv", check_matches_definition_exactly, 4)
def takes_the_first_stride_for_all_axes(spec, x, w, b, *, out, resources):
    first = spec.window.stride[0]
    wide = tuple((lo, hi + first * size) for (lo, hi), size in zip(spec.window.padding, out.shape[2:], strict=True))
    window = replace(spec.window, stride=(first,) * spec.window.rank, padding=wide)
    found = np.empty((*out.shape[:2], *window.out_size), out.dtype)
    conv(spec, x, w, b, out=found, window=window)
    out[...] = found[:, :, *(slice(0, size) for size in out.shape[2:])]


@planted("conv", check_matches_definition_exactly, 2, padding_modes=True)
def claims_padding_modes_and_pads_with_zeros(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)


@planted("conv", check_commutes_with_shifts, 2)
def treats_the_first_column_as_padding(spec, x, w, b, *, out, resources):
    inside = x.copy()
    inside[..., :1] = 0
    conv(spec, inside, w, b, out=out)


@planted("conv_transpose", check_matches_definition_exactly, 2)
def pads_the_output_in_front(spec, x, w, b, *, out, resources):
    conv_transpose(spec, x, w, b, out=out)
    for axis, extra in enumerate(spec.output_padding):
        out[...] = np.roll(out, extra, 2 + axis)


@planted("conv_transpose", check_is_linear_in_x, 4)
def adds_the_bias_to_each_product(spec, x, w, b, *, out, resources):
    conv_transpose(spec, x, w, None if b is None else b * spec.window.taps, out=out)


@planted("conv_transpose", check_input_grad_is_adjoint, 3, r"<conv\(t, w\), x> is .*, but <t, out> is")
def flips_the_transposed_filter(spec, x, w, b, *, out, resources):
    conv_transpose(spec, x, flipped(w), b, out=out)


@planted("conv_transpose", check_matches_definition_exactly, 2)
def gives_the_adjoint_and_not_the_transpose(spec, x, w, b, *, out, resources):
    conv_transpose(spec, x, w.conj(), b, out=out)


@planted("conv_transpose", check_commutes_with_shifts, 2, "for zeros in front of spatial axis")
def drops_what_falls_on_the_first_cell(spec, x, w, b, *, out, resources):
    conv_transpose(spec, x, w, b, out=out)
    out[..., :1] = along_channels(b, out)


@planted("conv_transpose", check_fills_every_output_element, 2, r"out\[.*\] (was not written|\(which held 5)")
def leaves_the_output_padding_unwritten(spec, x, w, b, *, out, resources):
    conv_transpose(spec, x, w, b, out=(found := np.empty_like(out)))
    kept = tuple(slice(0, size - extra) for size, extra in zip(out.shape[2:], spec.output_padding, strict=True))
    out[:, :, *kept] = found[:, :, *kept]


@planted("conv_transpose", check_groups_equal_separate_convolutions, 6)
def interleaves_the_groups(spec, x, w, b, *, out, resources):
    conv_transpose(spec, x, w, None, out=out)
    mixed = out.reshape(len(out), spec.groups, out.shape[1] // spec.groups, *out.shape[2:]).swapaxes(1, 2)
    out[...] = mixed.reshape(out.shape)
    out += along_channels(b, out)
