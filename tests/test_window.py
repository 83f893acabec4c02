"""Window arithmetic against the line it follows from: tap t of output o reads cell o * stride + t * dilation - lo."""

from __future__ import annotations

from itertools import count, product

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.testing.strategies import ranks, windows
from convkernels.window import LARGEST, PADDING_NAMES, Window, padding_form, per_axis, whole

any_window = ranks.flatmap(lambda rank: windows(rank, ceil=True))
pool_window = ranks.flatmap(lambda rank: windows(rank, ceil=True, pool=True))
small = st.integers(1, 6)


def coordinates(window, axis):
    """Of each window of one axis, the input coordinate of each tap; padding and overhang included."""
    return [
        [
            o * window.stride[axis] + t * window.dilation[axis] - window.padding[axis][0]
            for t in range(window.kernel_size[axis])
        ]
        for o in range(window.out_size[axis])
    ]


def is_real(window, axis, coordinate):
    return 0 <= coordinate < window.in_size[axis] + min(0, window.padding[axis][1])


def reads(window, tile=None):
    """Of each output (of a tile), the real cells that its taps fall on, in row-major order of the taps."""
    axes = [coordinates(window, axis) for axis in range(window.rank)]
    found = {}
    for position in product(*(range(part.start, part.stop) for part in tile or window.whole)):
        cells = product(*(axes[axis][o] for axis, o in enumerate(position)))
        found[position] = [cell for cell in cells if all(is_real(window, *pair) for pair in enumerate(cell))]
    return found


def shifted(found, outputs, cells):
    """What a smaller problem reads, in the coordinates of the whole."""

    def move(place, parts):
        return tuple(index + part.start for index, part in zip(place, parts, strict=True))

    return {move(position, outputs): [move(cell, cells) for cell in seen] for position, seen in found.items()}


@given(window=ranks.flatmap(windows))
def test_out_size_counts_the_windows_that_fit(window):
    for axis, size in enumerate(window.out_size):
        lo, hi = window.padding[axis]
        starts = range(-lo, window.in_size[axis] + hi, window.stride[axis])
        assert size == sum(start + window.extent[axis] <= window.in_size[axis] + hi for start in starts)


@given(window=any_window)
def test_extent_starts_and_taps(window):
    for axis in range(window.rank):
        places = coordinates(window, axis)
        assert list(window.starts(axis)) == [first for first, *_ in places]
        assert window.extent[axis] == places[0][-1] - places[0][0] + 1
    assert list(window.kernel_positions()) == list(np.ndindex(*window.kernel_size))
    assert window.taps == np.prod(window.kernel_size)


@given(size=st.integers(1, 20), kernel=small, stride=small, dilation=st.integers(1, 3), data=st.data())
def test_ceil_mode_is_pytorchs_rule(size, kernel, stride, dilation, data):
    """`pooling_output_shape_pad_lr` of ATen's Pool.h, for a padding of at most half a window."""
    lo, hi = (data.draw(st.integers(0, kernel // 2)) for _ in "lh")
    extent = dilation * (kernel - 1) + 1
    assume(size + lo + hi >= extent)
    out = (size + lo + hi - extent + stride - 1) // stride + 1
    if (out - 1) * stride >= size + lo:
        out -= 1
    options = {"kernel_size": kernel, "stride": stride, "padding": ((lo, hi),), "dilation": dilation}
    assert Window.make((size,), **options, ceil_mode=True).out_size == (out,)


@given(window=any_window)
def test_no_window_starts_behind_the_input_in_ceil_mode(window):
    assume(window.ceil_mode)
    for axis in range(window.rank):
        assert all(is_real(window, axis, max(start, 0)) for start in window.starts(axis))


@given(window=any_window)
def test_padded_says_whether_some_tap_falls_beside_the_input(window):
    assert window.padded == any(len(cells) < window.taps for cells in reads(window).values())


@given(window=any_window)
def test_tap_slices_pair_each_output_with_the_cell_its_tap_reads(window):
    axes = [coordinates(window, axis) for axis in range(window.rank)]
    for tap in window.kernel_positions():
        expected = {}
        for position in product(*map(range, window.out_size)):
            cell = tuple(axes[axis][o][t] for axis, (o, t) in enumerate(zip(position, tap, strict=True)))
            if all(is_real(window, *pair) for pair in enumerate(cell)):
                expected[position] = cell
        found = window.tap_slices(tap)
        if found is None:
            assert not expected
        else:
            outputs, cells = (
                product(*(range(part.start, part.stop, part.step or 1) for part in parts)) for parts in found
            )
            assert dict(zip(outputs, cells, strict=True)) == expected


@given(window=windows(1, ceil=True))
def test_every_tile_of_a_window_reads_the_same_cells_in_the_restricted_problem(window):
    size = window.out_size[0]
    for tile in ((slice(start, stop),) for start in range(size) for stop in range(start + 1, size + 1)):
        part, inner = window.restrict(tile)
        assert 0 <= part[0].start < part[0].stop <= window.in_size[0]
        assert inner.in_size == (part[0].stop - part[0].start,)
        assert inner.out_size == (tile[0].stop - tile[0].start,)
        assert shifted(reads(inner), tile, part) == reads(window, tile)


@given(window=any_window, data=st.data())
def test_a_tile_in_several_axes_reads_the_same_cells(window, data):
    tile = []
    for size in window.out_size:
        start = data.draw(st.integers(0, size - 1))
        tile.append(slice(start, data.draw(st.integers(start + 1, size))))
    part, inner = window.restrict(tuple(tile))
    assert shifted(reads(inner), tile, part) == reads(window, tile)


@given(window=any_window)
def test_exact_drops_what_no_window_reaches(window):
    part, exact = window.exact
    found = reads(window)
    assert shifted(reads(exact), window.whole, part) == found
    for axis, cells in enumerate(part):
        if not window.padded:
            read = {cell[axis] for seen in found.values() for cell in seen}
            assert (cells.start, cells.stop) == (min(read), max(read) + 1)
        lo, hi = exact.padding[axis]
        reach = exact.in_size[axis] + lo + hi - exact.extent[axis]
        assert reach == (exact.out_size[axis] - 1) * exact.stride[axis]


@given(window=any_window)
def test_unpadded_pieces_cover_every_output_that_reads_once(window):
    expected = {position: cells for position, cells in reads(window).items() if cells}
    found = {}
    for outputs, cells, inner in window.unpadded_pieces:
        assert set(inner.padding) == {(0, 0)}
        piece = shifted(reads(inner), outputs, cells)
        assert len(piece) == np.prod([part.stop - part.start for part in outputs])
        assert not found.keys() & piece.keys()
        found |= piece
    assert found == expected


@given(window=pool_window)
def test_each_output_of_a_pool_is_in_a_piece(window):
    outputs = [np.prod(inner.out_size) for *_, inner in window.unpadded_pieces]
    assert sum(outputs) == np.prod(window.out_size)


@given(window=pool_window, include_padding=st.booleans())
def test_cell_counts(window, include_padding):
    """Real cells, or those on the input and its declared padding; the overhang never counts."""

    def counts(axis, coordinate):
        lo, hi = window.padding[axis]
        return -lo <= coordinate < window.in_size[axis] + hi

    expected = np.ones((), int)
    for axis in range(window.rank):
        belongs = counts if include_padding else lambda axis, coordinate: is_real(window, axis, coordinate)
        of_axis = [sum(belongs(axis, place) for place in places) for places in coordinates(window, axis)]
        expected = np.multiply.outer(expected, of_axis)
    counted = window.cell_counts(window.whole, include_padding=include_padding)
    assert isinstance(counted, int) == (expected.min() == expected.max())
    assert np.array_equal(np.broadcast_to(counted, window.out_size), expected)


@given(window=any_window)
@example(window=Window((1,), (2,), (1,), ((1, 3),), (2,)))  # one between its taps, and one behind
def test_empty_window_is_the_first_without_a_real_cell(window):
    empty = (
        (axis, output)
        for axis in range(window.rank)
        for output, places in enumerate(coordinates(window, axis))
        if not any(is_real(window, axis, place) for place in places)
    )
    assert window.empty_window() == next(empty, None)


@given(size=st.integers(1, 12), kernel=small, stride=small, dilation=st.integers(1, 3))
def test_same_gives_ceil_in_over_stride_outputs_by_the_least_padding(size, kernel, stride, dilation):
    extent = dilation * (kernel - 1) + 1
    outputs = -(-size // stride)
    least = next(total for total in count() if (size + total - extent) // stride + 1 == outputs)
    options = {"kernel_size": kernel, "stride": stride, "dilation": dilation}
    upper, lower = (Window.make((size,), **options, padding=name) for name in ("same", "same_lower"))
    assert upper.out_size == lower.out_size == (outputs,)
    assert upper.padding == ((least // 2, least - least // 2),)
    assert lower.padding == ((least - least // 2, least // 2),)


@given(size=st.integers(1, 12), kernel=small, dilation=st.integers(1, 3))
def test_full_is_every_output_that_sees_any_input(size, kernel, dilation):
    options = {"kernel_size": kernel, "dilation": dilation}
    window = Window.make((size,), **options, padding="full")
    found = list(reads(window).values())
    assert (0,) in found[0]
    assert (size - 1,) in found[-1]
    ((lo, hi),) = window.padding
    for wider in ((lo + 1, hi), (lo, hi + 1)):
        assert [] in reads(Window.make((size,), **options, padding=(wider,))).values()


@given(size=st.integers(1, 12), kernel=small, dilation=st.integers(1, 3))
def test_causal_outputs_see_up_to_their_own_place(size, kernel, dilation):
    window = Window.make((size,), kernel_size=kernel, dilation=dilation, padding="causal")
    assert window.out_size == (size,)
    assert [max(cells) for cells in reads(window).values()] == [(output,) for output in range(size)]


def test_valid_pads_nothing_and_each_axis_gets_its_own_padding():
    options = {"kernel_size": (3, 2), "stride": (1, 2)}
    assert Window.make((6, 5), **options, padding="valid").padding == ((0, 0), (0, 0))
    assert Window.make((6, 5), **options, padding="same").padding == ((1, 1), (0, 1))
    assert Window.make((6, 5), **options, padding="same_lower").padding == ((1, 1), (1, 0))
    assert Window.make((6, 5), **options, padding="full").padding == ((2, 2), (1, 1))


@given(size=st.integers(1, 9), front=st.integers(0, 3), behind=st.integers(0, 3), data=st.data())
def test_negative_padding_reads_what_the_cropped_input_reads(size, front, behind, data):
    kernel, stride = data.draw(st.integers(1, size)), data.draw(small)
    cropped = Window.make((size,), kernel_size=kernel, stride=stride)
    whole_input = Window.make((front + size + behind,), kernel_size=kernel, stride=stride, padding=((-front, -behind),))
    assert reads(whole_input) == shifted(reads(cropped), (slice(0, None),), (slice(front, None),))


@given(window=any_window)
def test_windows_of_equal_fields_are_equal(window):
    same = Window.make(
        window.in_size,
        kernel_size=list(window.kernel_size),
        stride=np.array(window.stride),
        padding=[list(pair) for pair in window.padding],
        dilation=[np.int8(number) for number in window.dilation],
        ceil_mode=np.bool_(window.ceil_mode),
    )
    assert same == window
    assert hash(same) == hash(window)
    assert all(type(number) is int for pair in same.padding for number in pair + same.stride + same.dilation)
    assert window != Window(window.in_size, window.kernel_size, window.stride, window.padding, window.dilation, None)


@pytest.mark.parametrize(
    ("padding", "pairs"),
    [
        (1, ((1, 1), (1, 1))),
        (np.int64(0), ((0, 0), (0, 0))),
        (-1, ((-1, -1), (-1, -1))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        (((1, 2), (-3, 4)), ((1, 2), (-3, 4))),
        (np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
    ],
)
def test_padding_is_one_number_or_one_an_axis_or_a_pair_an_axis(padding, pairs):
    assert padding_form(padding, 2) == pairs


@pytest.mark.parametrize("name", PADDING_NAMES)
def test_padding_names_stay_names(name):
    assert padding_form(name, 1) == name


@pytest.mark.parametrize("value", [True, np.True_, 1.0, np.float64(2), "1", None, LARGEST + 1, -LARGEST - 1, (1,), 1j])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ck.OptionError, match=r"^size="):
        whole("size", value)


@pytest.mark.parametrize("value", [LARGEST, -LARGEST, np.uint8(7), np.array(7), 0])
def test_a_whole_number_of_any_kind_becomes_an_int(value):
    assert type(whole("size", value)) is int
    assert whole("size", value) == value


@pytest.mark.parametrize("value", [(1,), (1, 2, 3), (), (0, 1), -1, ((1, 1), (1, 1)), (1, None)])
def test_per_axis_takes_one_or_one_an_axis(value):
    assert per_axis("stride", 2, 2) == per_axis("stride", np.array([2, 2]), 2) == (2, 2)
    with pytest.raises(ck.OptionError, match=r"^stride="):
        per_axis("stride", value, 2)
