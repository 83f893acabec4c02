"""Memory that is used again: never while anybody refers to it, not without end, and by one caller at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import convkernels as ck
from convkernels import recycling
from convkernels.recycling import KEPT, LARGE, LINE, Recycler

FLOAT = np.dtype(np.float32)
pytestmark = pytest.mark.skipif(not recycling.COUNTS, reason="references are not counted exactly here")


def large(recycler, cells=LARGE):
    return recycler.empty((cells // 64, 64), FLOAT)


def test_memory_is_used_again_when_nobody_refers_to_it():
    recycler = Recycler()
    first = large(recycler)
    place, view = first.ctypes.data, first.T[3:, ::2]
    assert place % LINE == 0
    assert first.flags.c_contiguous
    assert large(recycler).ctypes.data != place
    del first
    assert large(recycler).ctypes.data != place, "a view of a view is a reference"
    del view
    found = [large(recycler) for _ in range(3)]
    assert place in [array.ctypes.data for array in found]
    assert len({array.ctypes.data for array in found}) == 3


def test_small_results_are_not_kept():
    recycler = Recycler()
    assert recycler.empty((3, 4), FLOAT).flags.owndata
    assert not recycler.pieces


def test_much_larger_memory_is_not_taken_for_a_small_result():
    recycler = Recycler()
    place = large(recycler, 4 * LARGE).ctypes.data
    assert large(recycler, LARGE).ctypes.data != place


def test_no_more_is_kept_than_was_said(monkeypatch):
    monkeypatch.setattr(recycling, "KEPT", 20 * LARGE)
    recycler = Recycler()
    arrays = [large(recycler) for _ in range(9)]
    assert recycler.bytes == sum(piece.size for piece in recycler.pieces) <= 20 * LARGE
    for number, array in enumerate(arrays):
        array[...] = number
    del array
    last = arrays.pop().ctypes.data
    assert large(recycler).ctypes.data == last
    assert all((array == number).all() for number, array in enumerate(arrays))
    huge = large(recycler, KEPT)
    assert recycler.bytes <= 20 * LARGE
    huge[0] = 1


def test_results_of_two_calls_are_two_arrays():
    x, w = np.ones((2, 8, 128, 128), np.float32), np.ones((16, 8, 1, 1), np.float32)
    first = ck.conv2d(x, w)
    second = ck.conv2d(2 * x, w)
    third = ck.conv2d(x, w)  # a call made before, which goes the short way
    assert not np.shares_memory(first, second)
    assert (first == 8).all()
    assert (second == 16).all()
    assert not np.shares_memory(first, third)


def test_many_callers_get_memory_of_their_own():
    recycler = Recycler()

    def work(number):
        array = large(recycler)
        array[...] = number
        return (array == number).all()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))
