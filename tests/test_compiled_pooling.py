"""Compiled pools where the kit's small problems do not reach: long lines, every width and thread, guarded memory."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib import util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.config import Resources
from convkernels.layout import Layout
from convkernels.operation import OPERATIONS
from convkernels.testing.numeric import assert_same
from convkernels.testing.problems import INPUTS, Problem, problems, run

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from guard import Flush, child, flush_arrays

from convkernels.kernels.compiled import boxes, calls, isa, planes, pool_blocks, row_tables, thread_count

WINDOWS = [
    "in9x40_k3x3_s2x2_p1+1x1+1_d1x1",
    "in9x41_k3x3_s2x2_p0+0x0+0_d1x1",
    "in8x35_k2x2_s2x2_p0+0x0+0_d1x1",
    "in7x67_k3x3_s1x1_p1+1x1+1_d1x1",
    "in10x41_k3x2_s1x3_p1+2x0+1_d2x1",
    "in6x37_k2x3_s2x1_p-1+0x1+-1_d1x2",
    "in3x19_k3x19_s1x1_p0+0x0+0_d1x1",
    "in12x14_k2x2_s2x2_p0+0x0+0_d1x1",
    "in12x70_k2x2_s2x2_p0+0x0+0_d1x1",
    "in8x16_k2x2_s2x2_p-1+0x0+-3_d1x1",
    "in8x16_k2x2_s2x2_p-1+1x0+0_d1x1",
    "in14x14_k3x3_s1x1_p1+1x1+1_d1x1",
    "in7x35_k5x2_s1x1_p0+4x1+0_d1x1",
    "in6x9_k3x3_s1x1_p2+2x2+2_d2x2",
    "in13x55_k3x3_s2x2_p1+1x2+2_d1x2",
    "in14x14_k5x5_s3x3_p0+0x0+0_d1x1",
    "in9x90_k1x4_s2x5_p0+0x1+3_d1x1",
    "in70_k5_s2_p2+2_d1",
    "in3x4x33_k2x2x2_s2x2x2_p0+0x0+0x0+0_d1x1x1",
]
"""Rows of several vectors and a rest; strides that are shuffled, or gathered; borders, crops, planes in one window."""

REDUCERS = ["max", "max_ties-last", "max_ties-split", "max_ties-all", "min", "mean", "sum"]
ORDERS = ["NCHW", "NHWC", "CHWN", "HNWC"]


def problem_of(operation, window, reducer, order, channels=19, data="tied", dtype="float64"):
    """A problem of one of four memory orders; gradients are exact in float64, whatever they are divided by."""
    suffix = "" if dtype == "float32" else f"_{dtype}"
    problem = Problem.read(f"{operation}:n2c{channels}_{window}_{reducer}{suffix}", data=data)
    return replace(problem, layout=Layout(order.replace("H", problem.layout.axes[2:-1])))


def found(operation):
    return OPERATIONS[operation].find("direct")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("operation", ["pool", "pool_grad"])
def test_long_lines(operation, window, order):
    for reducer in REDUCERS:
        problem = problem_of(operation, window, reducer, order)
        got, expected = (run(OPERATIONS[operation].find(name), problem)["out"] for name in ("direct", "stride_tricks"))
        assert_same(got, expected, name=reducer)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "uint64"])
@pytest.mark.parametrize("order", ORDERS[:2])
@pytest.mark.parametrize("reducer", ["max", "min_ties-last", "max_ties-all"])
def test_whole_numbers_of_every_size(reducer, order, dtype):
    x = np.random.default_rng(0).integers(0, 9, Layout(order).shape((2, 19, 9, 21))).astype(dtype)
    x.flat[::7] = np.iinfo(dtype).min
    for kept in (x, x[::-1, :, ::-1]):
        (y, vjp), (expected, defined) = (
            ck.pool2d_vjp(kept, 3, reducer, stride=2, padding=1, layout=order, strategy=strategy)
            for strategy in ("direct", "stride_tricks")
        )
        assert_same(y, expected)
        for dy in (np.ones_like(y), np.arange(y.size).reshape(y.shape) * 0.5):
            assert_same(vjp(dy), defined(dy), name="dx")


def test_across_lines_cells_read_only_outputs_that_there_are():
    """A load whose mask is empty is slow where its page is not mapped; beyond the ends of lines there is only one."""
    spec = Problem.read("pool:n1c32_in9x11_k3x3_s2x2_p0+0x0+0_d1x1_max").spec
    asked = boxes.Boxes(spec, (0, 9), False, None, 1, 32, "code", 9, bounded=False)
    strides = (1000, 1)
    table = boxes.table(asked, (boxes.Given(strides),), (boxes.Given((11, 1)),))
    begin, found = table.kept.ctypes.data, set()
    for piece in table.words:
        _, rows, columns, _, _, origin, _, _, address, count = piece
        first = (address - begin) // table.kept.strides[0]
        for distance, *_ in table.kept[first : first + count]:
            found |= {origin + distance + i * 1000 + j for i in range(rows) for j in range(columns)}
    assert found == {1000 * i + j for i in range(spec.y_shape[2]) for j in range(spec.y_shape[3])}


@given(
    problem=problems("pool", ("tied", "distinct", "with_nan"), reducers=("max", "max_ties-last", "max_ties-all", "min"))
)
def test_a_vjp_that_keeps_the_winners_is_the_gradient(problem):
    """The public vjp takes another way than `pool_grad`, to the same result."""
    spec, layout, x = problem.spec, problem.layout, problem.arrays["x"]
    window, given_x = spec.window, layout.restore(x)
    options = {
        "stride": window.stride,
        "padding": window.padding,
        "dilation": window.dilation,
        "ceil_mode": window.ceil_mode,
        "padding_mode": spec.padding_mode,
        "layout": layout.axes,
    }
    (y, vjp), (expected, defined) = (
        ck.pool_vjp(given_x, window.kernel_size, spec.reducer, strategy=strategy, **options)
        for strategy in ("direct", "naive")
    )
    assert_same(y, expected)
    dy = np.arange(1, y.size + 1, dtype=y.dtype).reshape(y.shape)
    assert_same(vjp(dy), defined(dy), name="dx")
    if spec.reducer.name == "max":
        y, indices = ck.max_pool_with_indices(given_x, window.kernel_size, strategy="direct", **options)
        expected, wanted = ck.max_pool_with_indices(given_x, window.kernel_size, strategy="stride_tricks", **options)
        assert_same(y, expected)
        assert_same(indices, wanted, name="indices")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reducer", ["max", "max_ties-last", "max_ties-split", "min", "mean", "sum"])
@pytest.mark.parametrize("geometry", [(9, 3, 1, 1), (8, 5, 3, 0), (7, 3, 2, 1), (5, 2, 2, 0)])
def test_small_planes_are_turned(geometry, reducer, dtype):
    """To whole vectors of channels and a rest, forwards and back, by kept winners or not."""
    side, size, stride, padding = geometry
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (2, 75, side, side + 1)).astype(dtype)
    spec = Problem.read(f"pool:n2c75_in{side}x{side + 1}_k{size}x{size}_s{stride}x{stride}_p0+0x0+0_d1x1_max").spec
    assert planes.turning_pays(spec, 1, *calls.views(x, x))
    options = {"stride": stride, "padding": padding}
    (y, vjp), (expected, defined) = (
        ck.pool2d_vjp(x, size, reducer, strategy=strategy, **options) for strategy in ("direct", "stride_tricks")
    )
    assert_same(y, expected)
    dy = (12600 * rng.integers(-9, 9, y.shape)).astype(dtype)
    assert_same(vjp(dy), defined(dy), name="dx")
    with ck.config_context(max_workspace=pool_blocks.ROOM - 1):
        assert_same(ck.pool2d(x, size, reducer, strategy="direct", **options), expected)
        assert_same(vjp(dy), defined(dy), name="dx")


def test_a_vjp_heeds_what_it_was_given_and_not_what_x_became():
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 40)).astype(np.float32)
    y, vjp = ck.max_pool2d_vjp(x, 2, strategy="direct")
    dy = np.ones_like(y)
    expected = vjp(dy)
    wide = vjp(dy.astype(np.float64))
    assert wide.dtype == np.float64
    assert_same(wide.astype(np.float32), expected)
    x[...] = 0
    assert_same(vjp(dy), expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64"])
@pytest.mark.parametrize("shape", [(0, 3, 6, 20), (2, 3, 6, 20)])
def test_a_vjp_with_and_without_room_for_winners(shape, dtype):
    x = np.random.default_rng(0).integers(0, 9, shape).astype(dtype)
    y, vjp = ck.max_pool2d_vjp(x, 3, stride=1, strategy="naive")
    for limit in (6000 if dtype == "float16" else 400, None):  # conversions take memory too
        got, again = ck.max_pool2d_vjp(x, 3, stride=1, strategy="direct", max_workspace=limit)
        assert_same(got, y)
        assert_same(again(y), vjp(y))


@pytest.mark.parametrize("reducer", ["max", "mean", "lp2"])
@pytest.mark.parametrize("operation", ["pool", "pool_grad"])
@pytest.mark.parametrize("order", ORDERS[:3])
def test_results_do_not_depend_on_the_threads(order, operation, reducer, monkeypatch):
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    for window in WINDOWS:
        problem = problem_of(operation, window, reducer, order, data="reals", dtype="float32")
        arrays = [problem.arrays[role] for role in INPUTS[operation]]
        results = []
        for threads in (1, 2, 3, 7):
            out = problem.outputs()["out"]
            found(operation).run(problem.spec, *arrays, out=out, resources=Resources(2**26, threads))
            results.append(out.tobytes())
        assert len(set(results)) == 1, window


@pytest.mark.parametrize("order", ORDERS)
def test_sums_do_not_depend_on_the_batch(order):
    slides, strides = "in14x14_k3x3_s1x1_p1+1x1+1_d1x1", "in14x14_k5x5_s3x3_p0+0x0+0_d1x1"
    for window in ("in3x3_k2x2_s1x1_p0+0x0+0_d1x1", WINDOWS[2], WINDOWS[5], slides, strides):
        for operation in ("pool", "pool_grad"):
            problem = problem_of(operation, window, "sum", order, data="reals", dtype="float32")
            both = run(found(operation), problem)["out"]
            arrays = {role: problem.laid(role, array[:1]) for role, array in problem.arrays.items()}
            alone = run(found(operation), replace(problem, spec=problem.spec.one_image), arrays)["out"]
            assert_same(both[:1], alone)


@pytest.mark.parametrize("threads", [1, 2])
def test_kept_winners_and_indices_do_not_depend_on_the_threads(threads, monkeypatch):
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    x = np.random.default_rng(0).integers(0, 9, (3, 5, 13, 37)).astype(np.float32)
    y, indices, vjp = ck.max_pool2d_with_indices_vjp(x, 3, stride=2, padding=1, strategy="direct", threads=threads)
    expected, wanted, defined = ck.max_pool2d_with_indices_vjp(x, 3, stride=2, padding=1, strategy="stride_tricks")
    assert_same(y, expected)
    assert_same(indices, wanted)
    assert_same(vjp(y), defined(y))


@pytest.mark.parametrize("reducer", ["max", "mean"])
def test_rows_are_cut_to_the_buffer(reducer, monkeypatch):
    monkeypatch.setattr(row_tables, "BUFFER", 64)
    monkeypatch.setattr(pool_blocks, "TARGET", 64)
    row_tables.row_table.cache_clear()
    for operation in ("pool", "pool_grad"):
        for order in ORDERS:
            for text in ("in9x203_k3x3_s2x2_p1+1x1+1_d1x1_ceil", "in9x203_k4x5_s1x1_p1+2x2+1_d1x1"):
                problem = problem_of(operation, text, reducer, order, channels=3)
                got = run(found(operation), problem)["out"]
                assert_same(got, run(OPERATIONS[operation].find("stride_tricks"), problem)["out"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect is called as Linux has it")
@pytest.mark.parametrize("forced", ["", "avx2", "generic"])
def test_nothing_outside_the_arrays_is_touched(forced):
    """A fault ends the process, so a child makes the calls; on every processor's vectors."""
    skip_unless_there(forced)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_compiled_pooling import run_flush\n"
        "run_flush('float32')\n"
        "run_flush('float64')\n"
    )
    child(code, {**os.environ, "CONVKERNELS_ISA": forced})


def run_flush(dtype):
    """Pools, gradients and indices, in two orders, on arrays that end or begin where memory does: tails of any rest."""
    for size in (1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 65):
        for order in ("NCHW", "NHWC"):
            wide, channels = (size, 2) if order == "NCHW" else (5, size)
            for window, reducers in (
                (f"in5x{wide + 2}_k3x3_s2x2_p1+1x1+1_d1x1", ("max", "mean", "lp2", "max_ties-split")),
                (f"in5x{wide + 2}_k3x3_s1x1_p1+1x1+1_d1x1", ("max", "mean", "lp2", "max_ties-split")),
                (f"in4x{2 * wide}_k2x2_s2x2_p0+0x0+0_d1x1", ("max", "mean")),
                (f"in26x{2 * wide}_k2x2_s2x2_p0+0x0+0_d1x1", ("max", "mean")),
                (f"in3x{wide}_k3x{wide}_s1x1_p0+0x0+0_d1x1", ("max", "mean")),
            ):
                for reducer in reducers:
                    for operation in ("pool", "pool_grad"):
                        problem = problem_of(operation, window, reducer, order, channels, "tied", dtype)
                        plain = OPERATIONS[operation].find("stride_tricks")
                        expected = run(plain, problem)["out"] if problem.exact else None
                        for arrays, outputs in flush_arrays(problem):
                            got = run(found(operation), problem, arrays, outputs)["out"]
                            if expected is not None:
                                assert_same(got, expected)
                x = problem_of("pool", window, "max", order, channels, "tied", dtype).arrays["x"]
                spec = ck.parse_problem(f"pool:n2c{channels}_{window}_max")[1]
                options = {"stride": spec.window.stride, "padding": spec.window.padding, "strategy": "direct"}
                for flush in (Flush(at_end=True), Flush(at_end=False)):
                    # In the caller's order, which then is any; what is looked up must be what was found.
                    y, indices, vjp = ck.max_pool2d_with_indices_vjp(flush(x), spec.window.kernel_size, **options)
                    assert_same(
                        np.take_along_axis(x.reshape(2, channels, -1), indices.reshape(2, channels, -1), 2),
                        y.reshape(2, channels, -1),
                    )
                    assert vjp(flush(y)).sum() == y.sum()
        # More planes than lanes, which are reduced together where they are small.
        for reducer in ("max", "mean"):
            window = f"in2x{size}_k2x{size}_s1x1_p0+0x0+0_d1x1"
            problem = problem_of("pool", window, reducer, "NCHW", 35, "tied", dtype)
            expected = run(OPERATIONS["pool"].find("stride_tricks"), problem)["out"]
            for arrays, outputs in flush_arrays(problem):
                got = run(found("pool"), problem, arrays, outputs)["out"]
                np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("forced", ["avx2", "generic"])
def test_narrower_instruction_sets(forced):
    skip_unless_there(forced)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_compiled_pooling import WINDOWS, test_long_lines\n"
        "from convkernels.kernels.compiled import isa\n"
        f"assert isa.host().name == {forced!r}\n"
        "for operation in ('pool', 'pool_grad'):\n"
        "    for window in WINDOWS:\n"
        "        for order in ('NCHW', 'NHWC'): test_long_lines(operation, window, order)\n"
    )
    child(code, {**os.environ, "CONVKERNELS_ISA": forced})


def skip_unless_there(forced):
    try:
        isa.find(forced)
    except ck.OptionError as error:
        pytest.skip(str(error))


def test_a_reducer_of_ones_own_keeps_the_generic_path():
    spread = ck.Reducer("range", None, lambda windows, axes, count: windows.max(axes) - windows.min(axes))
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    assert ck.explain("pool2d", x, 2, spread).choices[0].chosen.name == "stride_tricks"
    with pytest.raises(ck.UnsupportedError, match="reduces by max, min, sum, mean, lp1, lp2, not by 'range'"):
        ck.pool2d(x, 2, spread, strategy="direct")


@pytest.mark.parametrize(
    ("dtype", "reducer", "reason"),
    [
        ("float64", "lp3", "reduces by max, min, sum, mean, lp1, lp2, not by 'lp3'"),
        ("complex128", "sum", "computes real numbers of at most 64 bits, not complex128"),
    ],
)
def test_what_it_declines(dtype, reducer, reason):
    with pytest.raises(ck.UnsupportedError, match=reason):
        ck.pool2d(np.ones((1, 1, 4, 4), dtype), 2, reducer, strategy="direct")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("divisor", [1, 3, 8, 49, 1000003, 2**22 - 1, 2**22 + 1])
def test_means_are_quotients(divisor, dtype):
    numbers = np.random.default_rng(0).integers(0, 2**63, 2**16, np.uint64) * np.uint64(2)
    x = numbers.view(dtype).reshape(1, 1, 1, -1)
    x[..., :5] = [0, np.inf, -np.inf, np.nan, np.finfo(dtype).max]
    with np.errstate(all="ignore"):
        means, quotients = (
            ck.avg_pool2d(x, 1, divisor_override=divisor, strategy="direct"),
            x / np.dtype(dtype).type(divisor),
        )
    normal = ~(np.abs(quotients) < np.finfo(dtype).tiny)
    np.testing.assert_array_equal(means[normal], quotients[normal])
    np.testing.assert_allclose(means[~normal], quotients[~normal], rtol=0, atol=np.finfo(dtype).smallest_subnormal)


def test_ties_of_too_many_taps_are_declined():
    x = np.ones((1, 1, 9, 9))
    y, vjp = ck.max_pool2d_vjp(x, 9, ties="all")
    assert vjp(y).sum() == 81
    spec = ck.parse_problem("pool:n1c1_in9x9_k9x9_s9x9_p0+0x0+0_d1x1_max_ties-all")[1]
    assert found("pool_grad").supports(spec) == "keeps the winners of at most 64 taps that tie, not of 81"


def test_without_numba_it_declines(monkeypatch):
    monkeypatch.setattr(pool_blocks, "missing", lambda: "Numba is not installed: pip install 'convkernels[jit]'")
    x = np.ones((1, 2, 8, 8), np.float32)
    assert ck.explain("max_pool2d", x, 2).choices[0].chosen.name == "stride_tricks"
    y, indices = ck.max_pool2d_with_indices(x, 2)
    assert y.shape == indices.shape
    with pytest.raises(ck.UnsupportedError, match=r"Numba is not installed: pip install 'convkernels\[jit\]'"):
        ck.max_pool2d(x, 2, strategy="direct")


@given(
    size=st.integers(1, 40),
    taps=st.integers(1, 5),
    step=st.integers(1, 4),
    spread=st.integers(1, 3),
    lo=st.integers(0, 3),
    start=st.integers(0, 9),
)
def test_margins_hold_every_output_of_a_cell(size, taps, step, spread, lo, start):
    from convkernels.kernels.compiled.runs import margins  # noqa: PLC0415
    from convkernels.window import Window  # noqa: PLC0415

    window = Window((start * step + size,), (taps,), (step,), ((lo, lo),), (spread,))
    reached = margins(window, 0, slice(start * step, start * step + size))
    for cell in range(start * step, start * step + size):
        for tap in range(taps):
            output, rest = divmod(cell + lo - tap * spread, step)
            assert rest or output in reached
