"""A layout is a permutation: views, shapes and memory agree about it, and what is no permutation is refused."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.layout import SPATIAL, Layout, data_layout, weight_layout_for
from convkernels.testing.strategies import layouts, ranks

SIZES = {letter: size for size, letter in enumerate("NCOIDHW", start=2)}

any_layout = st.tuples(ranks, st.sampled_from(["NC", "OI"])).flatmap(lambda drawn: layouts(*drawn))


def canonical(layout: Layout) -> str:
    return layout.leading + SPATIAL[layout.rank]


def sizes(axes: str) -> tuple[int, ...]:
    return tuple(SIZES[letter] for letter in axes)


def numbered(axes: str) -> np.ndarray:
    return np.arange(np.prod(sizes(axes))).reshape(sizes(axes))


@given(layout=any_layout)
def test_view_puts_each_letter_in_its_canonical_place(layout):
    array = numbered(layout.axes)
    view = layout.view(array)
    assert np.array_equal(view, np.einsum(f"{layout.axes}->{canonical(layout)}", array))
    assert np.shares_memory(view, array)


@given(layout=any_layout)
def test_restore_undoes_view(layout):
    array = numbered(layout.axes)
    restored = layout.restore(layout.view(array))
    assert (restored.shape, restored.strides) == (array.shape, array.strides)
    assert np.shares_memory(restored, array)
    seen = numbered(canonical(layout))
    assert np.array_equal(layout.view(layout.restore(seen)), seen)


@given(layout=any_layout)
def test_shapes_follow_the_letters(layout):
    assert layout.shape(sizes(canonical(layout))) == sizes(layout.axes)
    assert layout.canonical_shape(sizes(layout.axes), "x_shape") == sizes(canonical(layout))


@given(layout=any_layout)
def test_empty_is_contiguous_in_the_layouts_own_order(layout):
    array = layout.empty(sizes(canonical(layout)), np.dtype(np.float32))
    assert array.shape == sizes(layout.axes)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous


@given(layout=any_layout)
def test_equal_letters_make_equal_layouts(layout):
    same = Layout(layout.axes, layout.leading)
    assert same == layout
    assert hash(same) == hash(layout)
    assert Layout(canonical(layout), layout.leading).permutation == tuple(range(len(layout.axes)))
    with pytest.raises(FrozenInstanceError):
        same.axes = "NCW"


@pytest.mark.parametrize(
    ("axes", "leading", "order"),
    [
        ("NCW", "NC", "channels_first"),
        ("NCHW", "NC", "channels_first"),
        ("NCDHW", "NC", "channels_first"),
        ("NWC", "NC", "channels_last"),
        ("NHWC", "NC", "channels_last"),
        ("NDHWC", "NC", "channels_last"),
        ("CHWN", "NC", "other"),
        ("NCWH", "NC", "other"),
        ("NWHC", "NC", "other"),
        ("CNHW", "NC", "other"),
        ("OIHW", "OI", "channels_first"),
        ("OHWI", "OI", "channels_last"),
        ("HWIO", "OI", "other"),
    ],
)
def test_order_says_where_the_channels_lie(axes, leading, order):
    assert Layout(axes, leading).order == order


@pytest.mark.parametrize(
    ("data", "weights"),
    [
        ("NCW", "OIW"),
        ("NCHW", "OIHW"),
        ("NCDHW", "OIDHW"),
        ("NWC", "WIO"),
        ("NHWC", "HWIO"),
        ("NDHWC", "DHWIO"),
    ],
)
def test_weight_layout_goes_with_the_datas(data, weights):
    assert weight_layout_for(Layout(data), None) == Layout(weights, "OI")


@given(data=ranks.flatmap(layouts), drawn=st.data())
def test_a_weight_layout_that_is_said_holds(data, drawn):
    weights = drawn.draw(layouts(data.rank, "OI"))
    assert weight_layout_for(data, weights.axes) == weights


@pytest.mark.parametrize(
    "axes", ["", "N", "NC", "NCHH", "NCHX", "nchw", "NCHWW", "NCTDHW", "OIHW", "NHW", "NCH", "NC W"]
)
def test_letters_that_are_no_permutation_are_refused(axes):
    with pytest.raises(ck.LayoutError, match="must name each axis once, in any order"):
        Layout(axes)


@pytest.mark.parametrize("axes", [None, 4, ("N", "C", "H", "W"), b"NCHW"])
def test_a_layout_that_is_no_string_is_refused(axes):
    with pytest.raises(ck.LayoutError, match="must be a string of axis letters, such as 'NCHW'"):
        Layout(axes)


@pytest.mark.parametrize(("axes", "rank"), [("NCW", 2), ("NHWC", 1), ("NCDHW", 2)])
def test_a_layout_of_another_rank_is_refused(axes, rank):
    assert data_layout(axes, None) == data_layout(axes, len(axes) - 2) == Layout(axes)
    with pytest.raises(ck.LayoutError, match=f"has the spatial axes '{SPATIAL[len(axes) - 2]}', must have"):
        data_layout(axes, rank)


def test_a_weight_layout_of_another_rank_is_refused():
    with pytest.raises(ck.LayoutError, match="weight_layout='OIW' has the spatial axes 'W'"):
        weight_layout_for(Layout("NCHW"), "OIW")


@pytest.mark.parametrize("axes", ["CHWN", "NCWH"])
def test_an_unusual_data_layout_wants_the_weight_layout_said(axes):
    with pytest.raises(ck.LayoutError, match="has no usual weight layout: say weight_layout"):
        weight_layout_for(Layout(axes), None)


@pytest.mark.parametrize("shape", [(), (2, 3, 4), (2, 3, 4, 5, 6)])
def test_arrays_of_another_rank_are_refused(shape):
    with pytest.raises(ck.ShapeError, match=f"x_shape=.* has {len(shape)} axes, layout 'NCHW' has 4"):
        Layout("NCHW").canonical_shape(shape, "x_shape")
    with pytest.raises(ck.ShapeError, match=f"w has {len(shape)} axes, layout 'NCHW' has 4"):
        Layout("NCHW").view(np.zeros(shape), "w")


@pytest.mark.parametrize(("name", "hinted"), [("x", True), ("dy", True), ("w", False)])
def test_only_an_unbatched_batch_gets_the_hint(name, hinted):
    with pytest.raises(ck.ShapeError) as caught:
        Layout("NHWC").view(np.zeros((4, 5, 6)), name)
    assert ("arrays are batched: add an axis of one for 'N'" in str(caught.value)) is hinted
