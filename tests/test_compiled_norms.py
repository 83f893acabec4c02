"""What compiled norms promise beyond the kit: wide arrays, orders of memory, threads, vectors, magnitudes."""

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

from convkernels.kernels.compiled import isa, norm_columns, norm_forms, norm_rows, norms, thread_count
from convkernels.layout import SPATIAL, Layout
from convkernels.norm_spec import NormSpec
from convkernels.operation import OPERATIONS
from convkernels.testing.numeric import assert_within
from convkernels.testing.problems import INPUTS, Problem, run
from convkernels.testing.strategies import layouts, seeds

KINDS = ("batch", "group", "instance", "layer", "rms")
OPERATION = {"batch": "batch_norm_train"}
BOTH = ["float32", "float64"]


def problem_of(
    operation, shape, kind, layout, *, dtype="float32", groups=1, axes=None, plain=False, seed=0, data="reals"
):
    spec = NormSpec.make(shape, np.dtype(dtype), kind=kind, groups=groups, axes=axes)
    spatial = SPATIAL[len(shape) - 2]
    return Problem(operation, spec, Layout(layout), Layout("OI" + spatial, "OI"), data, seed, plain)


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


def statistics_of(problem):
    """The gradient's problem, with statistics as NumPy finds them: the definition would take minutes."""
    forward = run(OPERATIONS[problem.operation].find("numpy"), problem)
    gradient = replace(problem, operation=problem.operation + "_grad")
    shape = problem.spec.seen_shape
    arrays = {role: problem.arrays.get(role) for role in INPUTS[gradient.operation]}
    arrays |= {"dy": gradient.laid("dy", gradient.draw("dy", shape, problem.seed + 9))}
    gradient.__dict__["arrays"] = {**arrays, "mean": forward["mean"], "var": forward["var"]}
    return gradient


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


FORMS = [
    ("batch", "NCHW", "Rows"),
    ("batch", "NHWC", "Columns"),
    ("group", "NCHW", "Rows"),
    ("group", "NHWC", "Columns"),
    ("layer", "NCHW", "Rows"),
    ("layer", "NHWC", "Rows"),
    ("instance", "NHWC", "Columns"),
    ("rms", "NCHW", "Rows"),
    ("pixels", "NHWC", "Rows"),
    ("pixels", "NCHW", "Columns"),
]
"""Kinds (a layer norm of the channels alone is one of pixels), layouts, and the form of the forward if it has one."""
COMPILED = [each for each in FORMS if each[2]]


def standard(kind, layout, *, dtype="float32", shape=(3, 32, 19, 21), **more):
    """A problem of some vectors in each direction."""
    groups = 4 if kind == "group" else 1
    if kind == "pixels":
        kind, more = "layer", {**more, "axes": (1,)}
    return problem_of(OPERATION.get(kind, "group_norm"), shape, kind, layout, dtype=dtype, groups=groups, **more)


def in_float64(problem):
    """The same problem with the same data in the wider type."""
    arrays = {role: None if array is None else array.astype(float) for role, array in problem.arrays.items()}
    return replace(problem, spec=replace(problem.spec, dtype=np.dtype(float))).given(arrays)


def no_numpy(monkeypatch):
    """Let NumPy's way fail, which is taken for other forms."""
    for module, name in (
        (norms.numpy_norms, "norm"),
        (norms.numpy_norms, "batch_norm"),
        (norms.norm_gradients, "norm_grad"),
    ):
        monkeypatch.setattr(module, name, None)


@pytest.mark.parametrize(("kind", "layout", "form"), FORMS)
def test_coefficients_gradients_of_data_far_from_zero_are_right_to_some_roundings(kind, layout, form):
    """Sums of float32 are about the rounded mean, half a thousandth off here: 0.05 of them if that were forgotten."""
    problem = standard(kind, layout)
    problem = problem.with_x(problem.arrays["x"] + np.float32(1e4))
    gradient = statistics_of(problem)
    gradient = gradient.given({"dy": np.abs(gradient.arrays["dy"])})
    got = run(OPERATIONS[gradient.operation].find("direct"), gradient)
    expected = run(OPERATIONS[gradient.operation].find("numpy"), in_float64(gradient))
    terms = problem.arrays["x"].size // expected["dgamma"].size * float(gradient.arrays["dy"].mean())
    for name, result in expected.items():
        assert_within(got[name], result, 2e-5 if name == "out" else 3e-6 * terms, name=name)


@pytest.mark.parametrize(("kind", "layout", "form"), FORMS)
def test_sums_that_float32_does_not_hold_are_float64s(kind, layout, form):
    problem = standard(kind, layout)
    gradient = statistics_of(problem)
    dy = gradient.arrays["dy"]
    dy = dy * (np.float32(3e38) / np.abs(dy).max())
    gradient = gradient.given({"dy": dy})
    got = run(OPERATIONS[gradient.operation].find("direct"), gradient)
    expected = run(OPERATIONS[gradient.operation].find("numpy"), in_float64(gradient))
    for name in expected.keys() - {"out"}:  # which float32 does not hold
        assert_within(got[name], expected[name], 1e-6 * np.abs(dy).sum(dtype=float), name=name)


@pytest.mark.parametrize(("kind", "layout", "form"), FORMS)
def test_products_that_vanish_in_float32_count_where_eps_is_tiny(kind, layout, form):
    problem = standard(kind, layout)
    problem = replace(problem, spec=replace(problem.spec, eps=1e-50)).with_x(problem.arrays["x"] * np.float32(1e-23))
    gradient = statistics_of(problem)
    gradient = gradient.given({"dy": gradient.arrays["dy"] * np.float32(1e-23)})
    got = run(OPERATIONS[gradient.operation].find("direct"), gradient)
    expected = run(OPERATIONS[gradient.operation].find("numpy"), in_float64(gradient))
    for name, result in expected.items():
        assert_within(got[name], result, 1e-6 * np.abs(result).max(), name=name)


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


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-7), ("float64", 1e-13)])
def test_a_large_mean_leaves_the_variance_right(layout, dtype, rtol):
    """Also where what the sums are about lies far from the mean."""
    x = np.random.default_rng(0).normal(1e4, 1, size=(8, 16, 16, 16)).astype(dtype)
    x[0, 0, 0, 0] = -1e5 if layout == "NCHW" else 1e4
    axes = tuple(axis for axis, letter in enumerate(layout) if letter != "C")
    _, mean, var = ck.batch_norm_train(x, None, None, layout=layout, strategy="direct")
    exact = x.astype(np.longdouble)
    np.testing.assert_allclose(var, exact.var(axes).astype(float), rtol=rtol)
    np.testing.assert_allclose(mean, exact.mean(axes).astype(float), rtol=rtol)


def test_an_outlier_where_the_sums_begin_does_not_spoil_them():
    x = np.random.default_rng(0).normal(size=(16, 4, 64, 64))
    x[0, :, 0, 0] = 250
    for layout in ("NCHW", "NHWC"):
        data = np.ascontiguousarray(x if layout == "NCHW" else np.moveaxis(x, 1, -1))
        _, _, var = ck.batch_norm_train(data, None, None, layout=layout, strategy="direct")
        np.testing.assert_allclose(var, x.astype(np.longdouble).var((0, 2, 3)).astype(float), rtol=1e-14)


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-12, 1e12, 1e18, 1e30, 3e37])
@pytest.mark.parametrize(("kind", "layout", "form"), COMPILED)
def test_what_leaves_float32_on_the_way_is_computed_in_float64(kind, layout, form, size):
    problem = standard(kind, layout, plain=True)
    x = (problem.arrays["x"] * np.float32(size)).astype(np.float32)
    spec = replace(problem.spec, eps=0.0)
    scaled = replace(problem, spec=spec).given({"x": x})
    exact = replace(problem, spec=replace(spec, dtype=np.dtype(float))).given({"x": x.astype(float)})
    got = run(OPERATIONS[problem.operation].find("direct"), scaled)["out"]
    expected = run(OPERATIONS[problem.operation].find("numpy"), exact)["out"]
    np.testing.assert_allclose(got, expected, atol=2e-6)
    if size < 1e-30:
        return  # gradients are larger than float32 holds
    scaled, exact = statistics_of(scaled), statistics_of(exact)
    got = run(OPERATIONS[scaled.operation].find("direct"), scaled)["out"]
    dy = scaled.arrays["dy"].astype(float)
    expected = run(OPERATIONS[exact.operation].find("numpy"), exact.given({"dy": dy}))["out"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("kind", "layout", "form"), COMPILED)
def test_a_sample_with_nan_leaves_the_others_as_they_are(kind, layout, form):
    if kind == "batch":
        return
    problem = standard(kind, layout)
    x = problem.arrays["x"].copy(order="K")
    x[1] = np.nan
    implementation = OPERATIONS[problem.operation].find("direct")
    clean, dirty = run(implementation, problem)["out"], run(implementation, problem.given({"x": x}))["out"]
    np.testing.assert_array_equal(dirty[[0, 2]], clean[[0, 2]])
    assert np.isnan(dirty[1]).all()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_gradients_by_given_statistics_of_large_numbers_do_not_depend_on_the_batch(layout):
    gradient = replace(standard("batch", layout, shape=(9, 32, 4, 8)), operation="batch_norm_grad")
    dy = np.abs(gradient.arrays["dy"]) * np.float32(5e27)  # of which some sums are ordinary numbers, and others not
    implementation = OPERATIONS["batch_norm_grad"].find("direct")
    whole = run(implementation, gradient.given({"dy": dy}))["out"]
    for place in range(len(dy)):
        part = slice(place, place + 1)
        one = replace(gradient, spec=replace(gradient.spec, shape=(1, *gradient.spec.shape[1:])))
        one = one.given({**gradient.arrays, "x": gradient.arrays["x"][part], "dy": dy[part]})
        np.testing.assert_array_equal(run(implementation, one)["out"], whole[part])


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
        "from test_compiled_norms import FORMS, BOTH, check_standard\n"
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
