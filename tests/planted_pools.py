"""Mistakes in pooling and its gradient; each function's name says which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from bases import family, first, identity, pool, pool_grad, pooled, put_back, reduced, slopes, winning
from planted import planted

from convkernels.testing.algebra import check_gradient_matches_differences
from convkernels.testing.checks import (
    check_keeps_dtype,
    check_leaves_inputs_unchanged,
    check_matches_definition_exactly,
    check_nan_strict,
    check_repeats_bitwise,
    check_same_in_every_layout,
    check_stays_within_error_bound,
)
from convkernels.testing.pooling import (
    check_counts_what_it_says,
    check_gives_ties_what_their_rule_says,
    check_padding_is_neutral,
)


def is_extremum(spec):
    return family(spec) in ("max", "min")


def with_ties(spec, ties):
    """The same maximum or minimum with another rule for ties."""
    return replace(spec, reducer=replace(spec.reducer, name=family(spec) + ties)) if is_extremum(spec) else spec


@planted("pool", check_padding_is_neutral, 1)
def pads_a_maximum_with_zeros(spec, x, *, out, resources):
    pool(spec, x, out=out, fill=0)


@planted("pool", check_padding_is_neutral, 1)
def pads_a_maximum_with_a_large_number(spec, x, *, out, resources):
    pool(spec, x, out=out, fill=np.clip(identity(spec), -(10**9), 10**9))


@planted("pool", check_padding_is_neutral, 1)
def pads_a_maximum_with_the_largest_finite_number(spec, x, *, out, resources):
    lowest = np.finfo(x.dtype).min if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    pool(spec, x, out=out, fill=np.clip(identity(spec), lowest, -(lowest + 1)))


@planted("pool", check_nan_strict, 2)
def loses_nan_in_a_maximum(spec, x, *, out, resources):
    if is_extremum(spec):
        combine = np.fmax if family(spec) == "max" else np.fmin
        out[...] = combine.reduce(pooled(spec, x, identity(spec)), -1)
    else:
        pool(spec, x, out=out)


@planted("pool", check_counts_what_it_says, 3)
def counts_the_overhang(spec, x, *, out, resources):
    simple = spec.count_include_pad and spec.padding_mode == "zeros" and spec.divisor_override is None
    pool(spec, x, out=out, count=spec.window.taps if simple else None)


@planted("pool", check_counts_what_it_says, 1)
def never_counts_the_padding(spec, x, *, out, resources):
    pool(spec, x, out=out, count=replace(spec, count_include_pad=False).count(spec.window.whole))


@planted("pool", check_counts_what_it_says, 1)
def always_counts_the_padding(spec, x, *, out, resources):
    pool(spec, x, out=out, count=replace(spec, count_include_pad=True).count(spec.window.whole))


@planted("pool", check_counts_what_it_says, 1)
def ignores_the_divisor(spec, x, *, out, resources):
    pool(spec, x, out=out, count=replace(spec, divisor_override=None).count(spec.window.whole))


@planted("pool", check_counts_what_it_says, 1)
def divides_by_the_sum_of_the_windows_sides(spec, x, *, out, resources):
    count = spec.count(spec.window.whole)
    pool(spec, x, out=out, count=sum(spec.window.kernel_size) if spec.window.rank > 1 else count)


@planted("pool", check_counts_what_it_says, 2)
def truncates_means_to_whole_numbers(spec, x, *, out, resources):
    pool(spec, x, out=out)
    out[...] = np.trunc(out)


@planted("pool", check_matches_definition_exactly, 2)
def leaves_out_the_last_tap(spec, x, *, out, resources):
    cells = pooled(spec, x, identity(spec))
    out[...] = reduced(spec, cells[..., : max(1, cells.shape[-1] - 1)], spec.count(spec.window.whole))


@planted("pool", check_stays_within_error_bound, 1)
def scales_a_norm_up_in_partial_windows(spec, x, *, out, resources):
    pool(spec, x, out=out)
    if family(spec) == "lp":
        real = spec.window.cell_counts(spec.window.whole, include_padding=False)
        out *= (spec.window.taps / np.asarray(real)) ** (1 / float(spec.reducer.name[2:]))


@planted("pool", check_stays_within_error_bound, 1)
def takes_no_absolute_value_in_a_norm(spec, x, *, out, resources):
    if spec.reducer.name == "lp1":
        out[...] = pooled(spec, x).sum(-1)
    else:
        pool(spec, x, out=out)


@planted("pool", check_same_in_every_layout, 4)
def sees_the_axes_in_the_order_of_memory(spec, x, *, out, resources):
    swapped = len(set(x.shape[2:])) == 1 and abs(x.strides[2]) < abs(x.strides[-1])
    pool(spec, x.swapaxes(2, -1) if swapped else x, out=out)


@planted("pool", check_keeps_dtype, 1)
def reduces_in_float32(spec, x, *, out, resources):
    narrow = x.astype(np.float32) if x.dtype.kind == "f" else x
    out[...] = reduced(spec, pooled(spec, narrow, identity(spec)), spec.count(spec.window.whole))


@planted("pool", check_keeps_dtype, 1)
def reduces_integers_in_float64(spec, x, *, out, resources):
    found = np.empty(out.shape)
    pool(spec, x.astype(np.float64), out=found)
    out[...] = found


@planted("pool", check_repeats_bitwise, 1, "differs from one run to the next")
def adds_noise(spec, x, *, out, resources):
    pool(spec, x, out=out)
    out *= 1 + 1e-3 * np.random.default_rng().random()


# The gradient


@planted("pool_grad", check_matches_definition_exactly, 4, r"it raised IndexError|but should be")
def divides_the_flat_maximum_by_the_height(spec, dy, x, y, *, out, resources):
    if family(spec) != "max" or spec.window.rank != 2:
        pool_grad(spec, dy, x, y, out=out)
        return
    height, width = spec.window.kernel_size
    flat = np.argmax(winning(with_ties(spec, ""), x, y), -1)
    shares = np.zeros((*dy.shape, height, width), dy.dtype)
    shares[*np.indices(dy.shape), flat // height, flat % width] = dy
    put_back(spec, shares.reshape(*dy.shape, height * width), out)


@planted("pool_grad", check_gives_ties_what_their_rule_says, 4)
def gives_the_last_tie_the_gradient(spec, dy, x, y, *, out, resources):
    pool_grad(with_ties(spec, "_ties-last"), dy, x, y, out=out)


@planted("pool_grad", check_gives_ties_what_their_rule_says, 4)
def gives_every_tie_the_gradient(spec, dy, x, y, *, out, resources):
    pool_grad(with_ties(spec, "_ties-all"), dy, x, y, out=out)


@planted("pool_grad", check_gives_ties_what_their_rule_says, 4)
def does_not_split_the_gradient_of_ties(spec, dy, x, y, *, out, resources):
    all_alike = spec.reducer.name.endswith("split")
    pool_grad(with_ties(spec, "_ties-all") if all_alike else spec, dy, x, y, out=out)


@planted("pool_grad", check_gives_ties_what_their_rule_says, 12)
def goes_through_ties_column_by_column(spec, dy, x, y, *, out, resources):
    if spec.reducer.name not in ("max", "min"):
        pool_grad(spec, dy, x, y, out=out)
        return
    taps = np.arange(spec.window.taps).reshape(spec.window.kernel_size).T.ravel()
    wins = first(winning(with_ties(spec, "_ties-all"), x, y)[..., taps])[..., np.argsort(taps)]
    put_back(spec, wins * dy[..., None], out)


@planted("pool_grad", check_gives_ties_what_their_rule_says, 10)
def takes_minus_zero_for_less_than_zero(spec, dy, x, y, *, out, resources):
    if x.dtype.kind == "f" and is_extremum(spec):
        # As an order of bit patterns has it.
        x, y = np.where((x == 0) & np.signbit(x), x.dtype.type(-1e-30), x), y.copy()
        pool(spec, x, out=y)
    pool_grad(spec, dy, x, y, out=out)


@planted("pool_grad", check_matches_definition_exactly, 7)
def assigns_where_windows_overlap(spec, dy, x, y, *, out, resources):
    shares = dy[..., None] * slopes(spec, x, y, spec.count(spec.window.whole))
    shares = np.broadcast_to(shares, (*dy.shape, spec.window.taps)).reshape(*dy.shape, *spec.window.kernel_size)
    out[...] = 0
    for tap in spec.window.kernel_positions():
        slices = spec.window.tap_slices(tap)
        if slices:
            out[:, :, *slices[1]] = shares[:, :, *slices[0], *tap]


@planted("pool_grad", check_counts_what_it_says, 7)
def divides_by_all_cells_of_partial_windows(spec, dy, x, y, *, out, resources):
    pool_grad(spec, dy, x, y, out=out, count=spec.window.taps)


@planted("pool_grad", check_gradient_matches_differences, 4, "the slope is .*, but <direction, out> is")
def forgets_the_divisor(spec, dy, x, y, *, out, resources):
    pool_grad(spec, dy, x, y, out=out, count=1)


@planted("pool_grad", check_padding_is_neutral, 3)
def lets_padding_take_the_gradient(spec, dy, x, y, *, out, resources):
    if spec.reducer.name not in ("max", "min"):
        pool_grad(spec, dy, x, y, out=out)
        return
    wins = pooled(spec, x, identity(spec)) == y[..., None]
    put_back(spec, first(wins) * dy[..., None], out)


@planted("pool_grad", check_nan_strict, 3)
def drops_the_gradient_of_nan(spec, dy, x, y, *, out, resources):
    shares = slopes(spec, x, y, spec.count(spec.window.whole))
    if is_extremum(spec):
        shares = np.where(np.isnan(y[..., None]), 0, shares)
        put_back(spec, shares * dy[..., None], out)
    else:
        pool_grad(spec, dy, x, y, out=out)


@planted("pool_grad", check_leaves_inputs_unchanged, 4, r"dy after the run\[[\d,]+\]=")
def divides_its_input_in_place(spec, dy, x, y, *, out, resources):
    if family(spec) == "mean":
        dy /= spec.count(spec.window.whole)
        put_back(spec, dy[..., None], out)
    else:
        pool_grad(spec, dy, x, y, out=out)


@planted("pool_grad", check_stays_within_error_bound, 3)
def forgets_the_sign_in_the_gradient_of_a_norm(spec, dy, x, y, *, out, resources):
    pool_grad(spec, dy, np.abs(x) if family(spec) == "lp" else x, y, out=out)


@planted("pool_grad", check_matches_definition_exactly, 4)
def gives_the_gradient_of_a_whole_window(spec, dy, x, y, *, out, resources):
    if is_extremum(spec):
        put_back(spec, dy[..., None], out)
    else:
        pool_grad(spec, dy, x, y, out=out)
