"""Mistakes in how an implementation treats memory, types, limits and questions; each name says which."""

from __future__ import annotations

import itertools

import numpy as np
from bases import conv, flipped
from numpy.lib.stride_tricks import as_strided
from planted import planted

from convkernels.testing.checks import (
    check_accepts_any_strides,
    check_batch_invariant,
    check_declines_with_a_reason,
    check_fills_every_output_element,
    check_handles_empty_batch,
    check_keeps_dtype,
    check_leaves_inputs_unchanged,
    check_matches_definition_exactly,
    check_nan_strict,
    check_repeats_bitwise,
    check_same_in_every_layout,
    check_stays_within_error_bound,
    check_stays_within_workspace,
    check_touches_nothing_outside_out,
)
from convkernels.testing.large import check_agrees_on_large_problems, check_measured_workspace


@planted("conv", check_fills_every_output_element, 3, r"out\[0, 0, \d.*\] was not written")
def leaves_out_the_last_row(spec, x, w, b, *, out, resources):
    found = np.empty_like(out)
    conv(spec, x, w, b, out=found)
    out[:, :, : max(1, out.shape[2] - 1)] = found[:, :, : max(1, out.shape[2] - 1)]


@planted("conv", check_fills_every_output_element, 2, r"out\[0, 0.*\] was not written")
def adds_to_out_without_zeroing(spec, x, w, b, *, out, resources):
    found = np.empty_like(out)
    conv(spec, x, w, b, out=found)
    out += found


STALE = {}


@planted("conv", check_repeats_bitwise, 2, "differs from one run to the next")
def pads_into_a_buffer_that_it_keeps(spec, x, w, b, *, out, resources):
    extended, cropped = spec.window.extended, spec.window.bounds
    padded = STALE.setdefault((x.shape[:2], extended, x.dtype), np.zeros((*x.shape[:2], *extended.in_size), x.dtype))
    kept = x[:, :, *(slice(*pair) for pair in cropped)]
    starts = [max(0, lo) for lo, _ in spec.window.padding]
    padded[:, :, *(slice(lo, lo + size) for lo, size in zip(starts, kept.shape[2:], strict=True))] = kept
    conv(spec, padded, w, b, out=out, window=extended)


@planted("conv", check_repeats_bitwise, 2, "differs from one run to the next")
def keeps_its_sums_between_calls(spec, x, w, b, *, out, resources):
    total = STALE.setdefault((spec, out.shape), np.zeros(out.shape, out.dtype))
    conv(spec, x, w, b, out=out)
    total += out
    out[...] = total


@planted("conv", check_touches_nothing_outside_out, 2, "memory beside out was written")
def writes_a_cell_past_the_end(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)
    longer = as_strided(out, (*out.shape[:-1], out.shape[-1] + 1), out.strides)
    longer[..., -1] = 0


@planted("conv", check_leaves_inputs_unchanged, 4, r"w after the run\[[\d,]+\]=")
def flips_the_filter_in_place(spec, x, w, b, *, out, resources):
    w[...] = flipped(w).copy()
    conv(spec, x, flipped(w), b, out=out)


@planted("conv", check_accepts_any_strides, 2, "it raised ValueError: .*read-only")
def scales_its_input_and_scales_it_back(spec, x, w, b, *, out, resources):
    x *= 2
    conv(spec, x, w, b, out=out)
    x /= 2


@planted("conv", check_accepts_any_strides, 6)
def merges_an_axis_with_one_of_a_single_cell(spec, x, w, b, *, out, resources):
    steps = list(x.strides)
    for axis in range(x.ndim - 1):
        if x.shape[axis + 1] == 1:  # whatever the stride of that is
            steps[axis] = steps[axis + 1]
    conv(spec, as_strided(x, x.shape, steps), w, b, out=out)


@planted("conv", check_accepts_any_strides, 4)
def writes_to_a_flat_copy(spec, x, w, b, *, out, resources):
    found = np.empty(out.shape, out.dtype)
    conv(spec, x, w, b, out=found)
    out.reshape(-1)[...] = found.reshape(-1)


@planted("conv", check_same_in_every_layout, 6)
def reads_cells_as_they_lie_in_memory(spec, x, w, b, *, out, resources):
    conv(spec, x.ravel(order="K").reshape(x.shape), w, b, out=out)


@planted("conv", check_same_in_every_layout, 6)
def is_wrong_where_channels_lie_last(spec, x, w, b, *, out, resources):
    last = x.shape[1] > 1 and x.strides[1] == x.itemsize
    conv(spec, x, w * 2 if last else w, b, out=out)


@planted("conv", check_keeps_dtype, 2)
def computes_in_float32(spec, x, w, b, *, out, resources):
    conv(spec, x.astype(np.float32), w, b, out=out)


@planted("conv", check_keeps_dtype, 2)
def computes_integers_in_float64(spec, x, w, b, *, out, resources):
    wide = x.astype(np.float64) if x.dtype.kind == "i" else x
    conv(spec, wide, w, b, out=out)


@planted("conv", check_matches_definition_exactly, 2)
def drops_the_imaginary_part(spec, x, w, b, *, out, resources):
    conv(spec, x.real.astype(x.dtype), w, b, out=out)


@planted("conv", check_stays_within_error_bound, 2)
def rounds_sums_to_half_precision(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)
    out[...] = out.astype(np.float16)


@planted("conv", check_batch_invariant, 3, r"out of sample \d\[")
def takes_the_mean_off_the_whole_batch(spec, x, w, b, *, out, resources):
    if spec.batch:
        middle, found = x.mean(dtype=x.dtype), np.empty_like(out)
        conv(spec, np.full_like(x, middle), w, b, out=found)
        conv(spec, x - middle, w, None, out=out)
        out += found


@planted("conv", check_nan_strict, 3)
def spreads_nan_over_the_image(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)
    out += 0 * x.sum(1, keepdims=True).sum(-1, keepdims=True).sum(tuple(range(2, x.ndim)), keepdims=True)


@planted("conv", check_nan_strict, 2)
def takes_nan_for_nothing(spec, x, w, b, *, out, resources):
    conv(spec, np.nan_to_num(x) if x.dtype.kind == "f" else x, w, b, out=out)


@planted("conv", check_stays_within_error_bound, 2)
def is_a_few_roundings_off(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)
    out *= 1 + 16 * np.finfo(out.dtype).eps


@planted("conv", check_matches_definition_exactly, 4, "it raised NotImplementedError: depthwise")
def raises_where_it_should_decline(spec, x, w, b, *, out, resources):
    if spec.groups > 1:
        raise NotImplementedError("depthwise")
    conv(spec, x, w, b, out=out)


@planted("conv", check_matches_definition_exactly, 34)
def leaves_out_channels_past_the_sixteenth(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)
    out[:, 16:] = 0


CHUNK = 64


@planted(
    "conv",
    check_stays_within_workspace,
    6,
    workspace=lambda spec, limit: CHUNK * max(1, min(spec.out_channels, limit // CHUNK)),
)
def forgets_the_chunk_that_is_smaller(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)
    at_once = max(1, resources.max_workspace // CHUNK)
    if at_once < spec.out_channels:
        out[:, spec.out_channels // at_once * at_once :] = 0


@planted(
    "conv", check_stays_within_workspace, 2, "says that .* would do, and then", workspace=lambda spec, limit: limit + 1
)
def always_asks_for_more_memory(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)


@planted("conv", check_stays_within_workspace, 2, r"workspace\(spec, 0\) is -", workspace=lambda spec, limit: -1)
def asks_for_less_than_no_memory(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)


@planted("conv", check_measured_workspace, 0, "it took .* and had said 262144", workspace=lambda spec, limit: 2**18)
def takes_all_the_memory_it_may(spec, x, w, b, *, out, resources):
    np.empty(min(resources.max_workspace, 2**24), np.uint8)
    out[...] = 0


@planted("conv", check_measured_workspace, 0, "it took .* and had said 10000", workspace=lambda spec, limit: 10_000)
def takes_more_memory_than_it_says(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)


@planted(
    "conv",
    check_declines_with_a_reason,
    2,
    "it raised ZeroDivisionError",
    supports=lambda spec: None if 1 // (spec.groups - 1) else "",
)
def raises_when_asked_whether_it_can(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)


@planted("conv", check_declines_with_a_reason, 2, "supports gives ''", supports=lambda spec: "")
def declines_without_a_reason(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)


@planted("conv", check_declines_with_a_reason, 2, "supports gives True", supports=lambda spec: True)
def answers_true_when_asked_whether_it_can(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)


MOOD = itertools.cycle((None, "not now"))


@planted("conv", check_declines_with_a_reason, 2, "and then", supports=lambda spec: next(MOOD))
def changes_its_mind(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)


@planted("conv", check_declines_with_a_reason, 2, "prefers gives True", prefers=lambda spec, order: True)
def answers_true_when_asked_whether_it_would(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)


@planted("conv", check_handles_empty_batch, 2, "it raised ValueError")
def cannot_reshape_an_empty_batch(spec, x, w, b, *, out, resources):
    x.reshape(spec.batch, -1)
    conv(spec, x, w, b, out=out)


@planted("conv", check_agrees_on_large_problems, 0)
def leaves_out_the_second_block(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)
    out[:, 20:] = 0


@planted(
    "conv", check_agrees_on_large_problems, 0, "max_workspace=262144", workspace=lambda spec, limit: min(limit, 2**20)
)
def leaves_out_the_second_block_when_memory_is_short(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)
    out[:, 20 + 20 * (resources.max_workspace // 2**20) :] = 0


@planted("conv", check_agrees_on_large_problems, 0, r"max_workspace=\d{8},")
def leaves_out_the_last_channel_when_memory_is_plenty(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)
    out[:, -1:] *= resources.max_workspace < 2**24


@planted("conv", check_agrees_on_large_problems, 0, "threads=2", uses_threads=True)
def loses_what_the_second_thread_computes(spec, x, w, b, *, out, resources):
    conv(spec, x, w, b, out=out)
    out[len(out) // resources.threads :] = 0
