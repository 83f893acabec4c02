"""The pool of threads: every piece is done once, in memory of one's own, whoever sleeps, grows, forks or ends."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from importlib import util
from threading import Thread

import numpy as np
import pytest
from guard import child
from hypothesis import example, given
from hypothesis import strategies as st

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import parallel
from convkernels.kernels.compiled.machine import address, array_in, entry, tables, words_at

ROOM = 64


@entry
def count_pieces(words, begin, end, memory):
    """Count how often each piece is done and in which memory, and how often that memory changed meanwhile."""
    given = words_at(words, 7)
    done, where, disturbed = array_in(given, 0), array_in(given, 1), array_in(given, 2)
    own = words_at(memory, 8)
    for place in range(begin, end):
        own[0] = place
        for _ in range(given[6]):
            own[1] += 1
        disturbed[place] += int(own[0] != place)
        done[place] += 1
        where[place] = memory


def counted(count, threads, effort=0):
    """Run; how often each piece was done, and in which memory."""
    done, where, disturbed = np.zeros((3, count), np.int64)
    words = np.array([*tables(done, where, disturbed), effort], np.int64)
    parallel.run(count_pieces, words, count, threads, ROOM)
    assert not disturbed.any()
    return done, where


@given(count=st.integers(1, 200), threads=st.integers(1, 9), effort=st.sampled_from([0, 10, 1000]))
@example(count=1, threads=2, effort=0)
@example(count=7, threads=7, effort=1000)
def test_every_piece_is_done_once_in_memory_that_nobody_else_uses(count, threads, effort):
    done, where = counted(count, threads, effort)
    assert (done == 1).all()
    apart = np.diff(np.unique(where))
    assert (apart >= ROOM).all()
    assert len(apart) < threads


@pytest.mark.parametrize(("shares", "most"), [(1, 10), (2, 5), (5, 2)])
def test_pieces_are_taken_in_so_many_parts(shares, most, monkeypatch):
    """Neighbours together: with one part for each thread, half of all."""
    steps = []
    monkeypatch.setattr(parallel, "share", lambda board, code, words, count, step, *more: steps.append(step))
    parallel.run_at(count_pieces, 0, 20, 2, ROOM, shares)
    assert steps == [most]


def test_other_threads_take_part_and_again_after_they_slept():
    for _ in range(2):
        end, helped = time.monotonic() + 20, False
        while not helped and time.monotonic() < end:
            helped = len(np.unique(counted(64, 2, 100_000)[1])) > 1
        assert helped
        end = time.monotonic() + 20
        while not parallel._pool.asleep[1] and time.monotonic() < end:
            time.sleep(0.01)
        assert parallel._pool.asleep[1]
        assert (counted(64, 2)[0] == 1).all()


def test_no_thread_works_for_a_call_that_is_over():
    """Thousands of calls whose pieces are done before the other threads have come to look."""
    kept = [np.zeros((3, count), np.int64) for count in (2, 3, 2, 5) * 2500]
    for each in kept:
        parallel.run(count_pieces, np.array([*tables(*each), 0], np.int64), each.shape[1], 4, ROOM)
    assert all((each[0] == 1).all() for each in kept)


def test_a_call_waits_for_whom_it_finds_inside():
    done, where, disturbed = np.zeros((3, 4), np.int64)
    words, board = np.array([*tables(done, where, disturbed), 0], np.int64), np.zeros(100, np.int64)
    inside, scratch = board[parallel.INSIDE // 8 :], np.zeros(ROOM, np.int64)
    inside[0] = 1
    call = (address(board), count_pieces.code, address(words), 4, 1, 1, address(scratch), ROOM)
    thread = Thread(target=parallel.share, args=call)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assert (done == 1).all()
    inside[0] = 0
    thread.join(20)
    assert not thread.is_alive()


def test_many_callers_at_once():
    with ThreadPoolExecutor(6) as pool:
        assert all((done == 1).all() for done, _ in pool.map(lambda n: counted(40 + n, 1 + n % 4, 2000), range(200)))


def test_an_address_is_where_numpy_says_it_is():
    whole = np.arange(60.0).reshape(3, 4, 5)
    for array in (whole, whole[1:, ::2, ::-1], whole.T, whole[:0], np.float32(whole), np.array(3)):
        assert address(array) == array.ctypes.data


def test_a_process_ends_whose_threads_wait():
    child(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_parallel import counted\n"
        "for threads in (2, 5, 3): assert (counted(50, threads)[0] == 1).all()\n"
    )
