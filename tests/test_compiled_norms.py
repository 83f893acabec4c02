"""What compiled norms promise beyond the kit: wide arrays, orders of memory, threads, vectors."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.kernels.compiled import available

if available.missing():
    pytest.skip(available.missing(), allow_module_level=True)

from guard import child, flush_arrays
from norm_problems import BOTH, COMPILED, FORMS, OPERATION, no_numpy, standard, statistics_of

from convkernels.kernels.compiled import isa, norm_columns, norm_forms, norm_rows, norms, thread_count
from convkernels.layout import SPATIAL, Layout
from convkernels.norm_spec import NormSpec
from convkernels.operation import OPERATIONS
from convkernels.testing.numeric import assert_within
from convkernels.testing.problems import Problem, run
from convkernels.testing.strategies import layouts, seeds

KINDS = ("batch", "group", "instance", "layer", "rms")


def both_ways(problem):
    """What the compiled and NumPy's implementation make of a problem."""
    operation = OPERATIONS[problem.operation]
    return [run(operation.find(name), problem) for name in ("direct", "numpy")]


@st.composite
def wide_problems(draw):
    """Rows and columns of several vectors, and ends of all lengths; samples on which statistics are passed by NumPy."""
    kind = draw(st.sampled_from(KINDS))
    rank = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 2, 5]))
    channels = groups * draw(st.sampled_from([1, 3, 7, 16]))
    sizes = [draw(st.sampled_from([1, 2, 5, 16, 37])) for _ in range(rank)]
    if rank == 3:
        sizes[0] = min(sizes[0], 3)
    shape = (draw(st.integers(2, 4)), channels, *sizes)
    axes = None
    if kind in ("layer", "rms"):
        axes = tuple(sorted(draw(st.sets(st.integers(1, rank + 1), min_size=1))))
    spec = NormSpec.make(
        shape, np.dtype(draw(st.sampled_from(BOTH))), kind=kind, groups=groups if kind == "group" else 1, axes=axes
    )
    layout = draw(layouts(rank))
    operation = OPERATION.get(kind, "group_norm")
    data = draw(st.sampled_from(["reals", "offset"]))
    spatial = SPATIAL[rank]
    return Problem(operation, spec, layout, Layout("OI" + spatial, "OI"), data, draw(seeds), draw(st.booleans()))


@given(problem=wide_problems())
def test_it_equals_numpy_on_wide_arrays_in_every_order(problem):
    got, expected = both_ways(problem)
    x = problem.arrays["x"]
    eps = float(np.finfo(x.dtype).eps)
    rstd = 1 / np.sqrt(expected["var"] + problem.spec.eps)
    scale = max(1.0, float(np.abs(x).max() * rstd.max()))
    for name, result in expected.items():
        largest = np.abs(result).max(initial=0.0) + (3 if name == "out" else 0)
        bound = 16 * eps * scale * largest + (eps * float(np.abs(x).max())) ** 2
        assert_within(got[name], result, bound, name=name)


@given(problem=wide_problems())
def test_gradients_equal_numpys_on_wide_arrays_in_every_order(problem):
    gradient = statistics_of(problem)
    got, expected = both_ways(gradient)
    x = problem.arrays["x"]
    eps, rstd = float(np.finfo(x.dtype).eps), 1 / np.sqrt(gradient.arrays["var"] + problem.spec.eps)
    spread = 1 + 2 * float(np.abs(x).max() * rstd.max())
    terms = 64 * eps * spread**2 * (1 + float(rstd.max())) * 8
    for name, result in expected.items():
        count = 1 if name == "out" else x.size**0.5
        assert_within(got[name], result, terms * count, name=name)


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize(("kind", "layout", "form"), COMPILED)
def test_the_usual_orders_are_compiled(kind, layout, form, dtype, monkeypatch):
    problem = standard(kind, layout, dtype=dtype)
    gradient = statistics_of(problem)
    x = problem.arrays["x"]
    found = norm_forms.form_of(problem.spec, [problem.arrays.get("gamma")], [x, x])
    assert type(found).__name__ == form
    no_numpy(monkeypatch)
    for each in (problem, gradient):
        run(OPERATIONS[each.operation].find("direct"), each)
    if kind == "batch":
        for name in ("batch_norm", "batch_norm_grad"):
            run(OPERATIONS[name].find("direct"), replace(problem, operation=name))


@pytest.fixture
def no_plans():
    """A place where what was worked out before and will be after is of no account."""
    for made in (norm_columns.forward, norm_columns.backward):
        made.cache_clear()
    yield
    for made in (norm_columns.forward, norm_columns.backward):
        made.cache_clear()


@pytest.mark.usefixtures("no_plans")
@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize(("kind", "layout", "form"), COMPILED)
def test_results_do_not_depend_on_the_threads(kind, layout, form, dtype, monkeypatch):
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    monkeypatch.setattr(norm_columns, "PIECE", 2**12)
    problem = standard(kind, layout, dtype=dtype)
    problems = [problem, statistics_of(problem)]
    if kind == "batch":
        problems += [replace(problem, operation=name) for name in ("batch_norm", "batch_norm_grad")]
    no_numpy(monkeypatch)
    for each in problems:
        implementation = OPERATIONS[each.operation].find("direct")
        bits = set()
        for threads in (1, 2, 3, 7):
            results = run(implementation, each, threads=threads)
            bits.add(tuple(result.tobytes() for result in results.values()))
        assert len(bits) == 1, each.operation


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("groups", [6, 4, None])
def test_strips_of_wide_rows_change_nothing(groups, dtype, monkeypatch):
    """Whoever works on them, and however many samples there are; sums of coefficients lie as those of whole rows."""
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    x, dy = np.random.default_rng(0).normal(size=(2, 3, 9, 8, 816)).astype(dtype)
    gamma, beta = np.random.default_rng(1).normal(size=(2, 816)).astype(dtype)
    name, more = ("group_norm_vjp", (groups,)) if groups else ("batch_norm_train_vjp", ())

    def results(x, dy, strategy, threads):
        y, *_, vjp = getattr(ck, name)(x, gamma, beta, *more, layout="NHWC", strategy=strategy, threads=threads)
        return y, *vjp(dy)

    found = [results(x, dy, "direct", threads) for threads in (1, 2, 3)]
    for other in found[1:]:
        assert all(map(np.array_equal, other, found[0]))
    rtol = 1e-4 if dtype == "float32" else 1e-12
    for got, expected in zip(found[0], results(x, dy, "numpy", 1), strict=True):
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol)
    if groups:
        alone = results(x[1:2], dy[1:2], "direct", 2)
        assert all(np.array_equal(one, many[1:2]) for one, many in zip(alone[:2], found[0][:2], strict=True))


@pytest.mark.parametrize("shape", [(32, 256, 56, 56), (32, 2048, 7, 7), (1, 1280, 128, 128), (512, 512, 14, 14)])
def test_batches_that_training_takes_are_compiled(shape):
    """Sums of 392 pieces had more than 16 MiB, and so NumPy's way was taken, which is ten times slower."""
    cells = np.empty((shape[0], *shape[2:], shape[1]), np.float32).transpose(0, 3, 1, 2)  # none of it is touched
    for kind in ("batch", "group"):
        spec = NormSpec.make(shape, np.dtype(np.float32), kind=kind, groups=32 if kind == "group" else 1)
        seen = cells.reshape(spec.seen_shape, copy=False)
        channels = spec.seen_shape[1:-2]
        coefficients = [np.ones((1, *channels, 1, 1), np.float32)]
        assert norms.together(spec, coefficients, [seen] * 3, 2**30, backward=True)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_tables_of_many_families_are_not_kept(layout):
    problem = standard("pixels", layout, shape=(2, 3, 90, 100))
    gradient = statistics_of(problem)
    made = (norm_rows.forward, norm_rows.backward)
    before = [each.cache_info().currsize for each in made]
    for each in (problem, gradient):
        compiled, expected = both_ways(each)
        for name, got in compiled.items():
            np.testing.assert_allclose(got, expected[name], rtol=1e-4, atol=1e-3)
    if layout == "NHWC":  # where each pixel is a family
        assert [each.cache_info().currsize for each in made] == before


def test_many_callers_at_once():
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    problem = standard("group", "NHWC")
    implementation = OPERATIONS["group_norm"].find("direct")
    expected = run(implementation, problem)["out"]
    with ThreadPoolExecutor(6) as pool:
        for got in pool.map(lambda _: run(implementation, problem, threads=2)["out"], range(24)):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.skipif(not os.uname().sysname.startswith("Linux"), reason="mprotect is called as Linux has it")
def test_nothing_outside_the_arrays_is_touched(dtype):
    """A fault ends the process, so a child makes the calls."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_compiled_norms import run_flush\n"
        f"run_flush({dtype!r})\n"
    )
    child(code)


def run_flush(dtype):
    """Every norm, in two orders, on arrays that end or begin where memory does."""
    for columns, (kind, layout, _) in product((1, 7, 16, 17, 31, 33), FORMS):
        shape = (2, 4 * columns, 3, 2) if layout == "NHWC" else (2, 4, columns, 3)
        forward = standard(kind, layout, dtype=dtype, shape=shape)
        problems = [forward, statistics_of(forward)]
        if kind == "batch":
            problems += [replace(forward, operation=name) for name in ("batch_norm", "batch_norm_grad")]
        for problem in problems:
            implementation = OPERATIONS[problem.operation].find("direct")
            expected = run(implementation, problem)
            for arrays, outputs in flush_arrays(problem):
                got = run(implementation, problem, arrays, outputs)
                for name, result in expected.items():
                    np.testing.assert_array_equal(got[name], result)


@pytest.mark.parametrize("forced", ["avx2", "generic"])
def test_narrower_instruction_sets(forced):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from norm_problems import FORMS, BOTH\n"
        "from test_compiled_norms import check_standard\n"
        "from convkernels.kernels.compiled import isa\n"
        f"assert isa.host().name == {forced!r}\n"
        "for dtype in BOTH:\n"
        "    for kind, layout, _ in FORMS: check_standard(kind, layout, dtype)\n"
    )
    try:
        isa.find(forced)
    except ck.OptionError as error:
        pytest.skip(str(error))
    child(code, {**os.environ, "CONVKERNELS_ISA": forced})


def check_standard(kind, layout, dtype):
    """Forward and gradient against NumPy's."""
    forward = standard(kind, layout, dtype=dtype)
    for problem in (forward, statistics_of(forward)):
        got, expected = both_ways(problem)
        for name, result in expected.items():
            tolerance = 400 * float(np.finfo(dtype).eps)
            np.testing.assert_allclose(got[name], result, rtol=tolerance, atol=tolerance * np.abs(result).max())


def test_other_types_are_declined():
    with pytest.raises(ck.UnsupportedError, match="computes float32 and float64, not float16"):
        ck.layer_norm(np.ones((1, 2, 3, 3), np.float16), None, None, strategy="direct")


def test_auto_takes_it_for_large_problems_and_small_ones():
    for text in ("norm:n8c64g32_in28x28_group", "norm:n2c8g2_in4x4_group"):
        assert ck.explain(text).choices[0].chosen.name == "direct"


def test_little_memory_is_left_to_numpy(monkeypatch):
    problem = standard("layer", "NHWC")
    called = []
    monkeypatch.setattr(norms.norm_gradients, "norm_grad", lambda *_, **__: called.append(True))
    monkeypatch.setattr(norms, "ROOM", 100)
    run(OPERATIONS["group_norm_grad"].find("direct"), statistics_of(problem))
    assert called


def test_a_gradient_by_x_is_not_computed_if_it_is_not_wanted():
    for kind, layout, _ in FORMS:
        gradient = statistics_of(standard(kind, layout))
        implementation = OPERATIONS[gradient.operation].find("direct")
        expected = run(implementation, gradient)
        outputs = {**gradient.outputs(), "out": None}
        got = run(implementation, gradient, outputs=outputs)
        assert got.keys() == expected.keys() - {"out"}
        for name, result in got.items():
            np.testing.assert_array_equal(result, expected[name])


@pytest.mark.parametrize(("kind", "layout", "form"), COMPILED)
def test_samples_are_gone_through_in_parts_where_memory_is_short(kind, layout, form, monkeypatch):
    if kind == "batch":
        return
    problem = standard(kind, layout, shape=(5, 32, 19, 21))
    gradient = statistics_of(problem)
    parts = []
    slices = norms.slices
    monkeypatch.setattr(norms, "slices", lambda size, step: parts.append(step) or slices(size, 2))
    no_numpy(monkeypatch)
    for each in (problem, gradient):
        implementation = OPERATIONS[each.operation].find("direct")
        got = run(implementation, each)
        monkeypatch.setattr(norms, "slices", slices)
        expected = run(implementation, each)
        monkeypatch.setattr(norms, "slices", lambda size, step: parts.append(step) or slices(size, 2))
        for name, result in expected.items():
            np.testing.assert_allclose(got[name], result, rtol=0 if name in ("out", "mean", "var") else 1e-5)
    assert parts


@pytest.mark.parametrize("channels", [512, 1024])
def test_rows_that_fall_on_the_same_lines_of_the_cache(channels):
    """Fewer of these are taken together, down to one."""
    x, dy = np.random.default_rng(0).normal(size=(2, 2, 3, 3, channels)).astype(np.float32)
    gamma = np.linspace(-1, 1, channels, dtype=np.float32)
    for function, more in ((ck.group_norm_vjp, (8,)), (ck.batch_norm_train_vjp, ())):
        got, expected = (
            (y, *vjp(dy))
            for y, *_, vjp in (
                function(x, gamma, gamma, *more, layout="NHWC", strategy=name) for name in ("direct", "numpy")
            )
        )
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_unaligned_and_mixed_data_take_numpys_way():
    x = np.random.default_rng(0).normal(size=(2, 16, 8, 8)).astype(np.float32)
    got = ck.layer_norm(x, np.ones(16), np.zeros(16), strategy="direct")
    np.testing.assert_allclose(got, ck.layer_norm(x, np.ones(16), np.zeros(16), strategy="numpy"), rtol=1e-12)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_gradients_of_a_single_channel_are_the_same_again(layout):
    """The first call adds up what many samples make of its coefficients otherwise than those that follow."""
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal([8, 1, 12, 10] if layout == "NCHW" else [8, 12, 10, 1]) for _ in range(2))
    gamma, beta = np.ones(1), np.zeros(1)
    first, second = (ck.group_norm_vjp(x, gamma, beta, 1, layout=layout, strategy="direct")[-1](dy) for _ in range(2))
    assert all(map(np.array_equal, first, second))
