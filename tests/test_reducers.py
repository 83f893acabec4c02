"""What each reducer makes of a window: values and gradients by hand, special values, neutral padding, names."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import STRATEGIES
from hypothesis import assume, given
from hypothesis import strategies as st

import convkernels as ck
from convkernels import reducers
from convkernels.reducers import builtin_reducer, find_reducer, reducer_names
from convkernels.testing.numeric import assert_same
from convkernels.testing.strategies import SELECTING, SMOOTH, SUMMING, integers, seeds

BUILTIN = (*SELECTING, *SUMMING, *SMOOTH, "min_ties-split", "min_ties-all", "lp0.5")
every_strategy = pytest.mark.parametrize("strategy", [*STRATEGIES, "naive"])
nan, inf = math.nan, math.inf


def pooled(values, reducer, strategy, dtype=float, **options):
    """The result on one window of all values, and its gradient."""
    x = np.array(values, dtype).reshape(1, 1, -1)
    y, vjp = ck.pool1d_vjp(x, x.size, reducer, strategy=strategy, **options)
    return y.item(), vjp(np.ones_like(y)).ravel().tolist()


@every_strategy
@pytest.mark.parametrize(
    ("reducer", "values", "result", "gradient"),
    [
        ("max", [1, 3, 2], 3, [0, 1, 0]),
        ("max", [3, 1, 3], 3, [1, 0, 0]),
        ("max_ties-last", [3, 1, 3], 3, [0, 0, 1]),
        ("max_ties-split", [3, 1, 3, 3], 3, [1 / 3, 0, 1 / 3, 1 / 3]),
        ("max_ties-all", [3, 1, 3], 3, [1, 0, 1]),
        ("min", [1, -3, 2], -3, [0, 1, 0]),
        ("min", [3, 1, 1], 1, [0, 1, 0]),
        ("min_ties-last", [1, 3, 1], 1, [0, 0, 1]),
        ("min_ties-split", [1, 3, 1], 1, [0.5, 0, 0.5]),
        ("min_ties-all", [1, 3, 1], 1, [1, 0, 1]),
        ("mean", [1, 2, 6], 3, [1 / 3, 1 / 3, 1 / 3]),
        ("sum", [1, 2, 6], 9, [1, 1, 1]),
        ("lp1", [3, -4, 0], 7, [1, -1, 0]),
        ("lp2", [3, -4, 0], 5, [0.6, -0.8, 0]),
        ("lp3", [-3, 4, 5], 6, [-(0.5**2), (4 / 6) ** 2, (5 / 6) ** 2]),
        ("lp0.5", [1, -4, 0], 9, [3, -1.5, 0]),
        ("lp2", [0, 0, 0], 0, [0, 0, 0]),
        ("lp0.5", [0, 0, 0], 0, [0, 0, 0]),
        ("logsumexp1", [0, math.log(3)], math.log(4), [1 / 4, 3 / 4]),
        ("logsumexp2", [0, math.log(3)], math.log(10) / 2, [1 / 10, 9 / 10]),
        ("logsumexp-1", [0, math.log(3)], -math.log(4 / 3), [3 / 4, 1 / 4]),
        ("logsumexp1", [5], 5, [1]),
    ],
)
def test_results_and_gradients_by_hand(strategy, reducer, values, result, gradient):
    y, dx = pooled(values, reducer, strategy)
    assert y == pytest.approx(result, rel=1e-15)
    assert dx == pytest.approx(gradient, rel=1e-14, abs=0)


@every_strategy
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("reducer", BUILTIN)
def test_nan_propagates(strategy, reducer, place):
    values = [1.0, 0.0, 2.0]
    values[place] = nan
    y, dx = pooled(values, reducer, strategy)
    assert math.isnan(y)
    if reducer.startswith(("max", "min")):
        assert dx == [float(cell == place) for cell in range(3)]


@every_strategy
@pytest.mark.parametrize("reducer", SELECTING)
def test_the_first_of_several_nans_takes_the_whole_gradient(strategy, reducer):
    assert pooled([inf, nan, -inf, nan], reducer, strategy)[1] == [0, 1, 0, 0]


@every_strategy
@pytest.mark.parametrize(
    ("reducer", "values", "result"),
    [
        ("max", [1, inf, -inf], inf),
        ("min", [1, inf, -inf], -inf),
        ("max", [-inf, -inf], -inf),
        ("min", [inf, inf], inf),
        ("sum", [1, inf], inf),
        ("mean", [1, -inf], -inf),
        ("lp2", [1, -inf], inf),
        ("lp3.5", [inf, inf], inf),
        ("logsumexp1", [1000, inf], inf),
        ("logsumexp1", [1, -inf], 1),
        ("logsumexp1", [-inf, -inf], -inf),
        ("logsumexp-1", [-1000, -inf], -inf),
        ("logsumexp-1", [1, inf], 1),
        ("logsumexp-1", [inf, inf], inf),
    ],
)
def test_infinities(strategy, reducer, values, result):
    x = np.array(values, float).reshape(1, 1, -1)
    assert ck.pool1d(x, x.size, reducer, strategy=strategy).item() == result


@every_strategy
@pytest.mark.parametrize("infinity", [inf, -inf])
@pytest.mark.parametrize("extreme", ["max", "min"])
@pytest.mark.parametrize(
    ("ties", "gradient"), [("first", [1, 0]), ("last", [0, 1]), ("split", [0.5, 0.5]), ("all", [1, 1])]
)
def test_equal_infinities_tie(strategy, infinity, extreme, ties, gradient):
    reducer = extreme if ties == "first" else f"{extreme}_ties-{ties}"
    assert pooled([infinity, infinity], reducer, strategy) == (infinity, gradient)


@every_strategy
@pytest.mark.parametrize("values", [[-0.0, 0.0], [0.0, -0.0]])
@pytest.mark.parametrize("extreme", ["max", "min"])
@pytest.mark.parametrize(("ties", "gradient"), [("first", [1, 0]), ("last", [0, 1]), ("split", [0.5, 0.5])])
def test_minus_zero_ties_with_zero(strategy, values, extreme, ties, gradient):
    reducer = extreme if ties == "first" else f"{extreme}_ties-{ties}"
    assert pooled(values, reducer, strategy) == (0, gradient)


@every_strategy
@pytest.mark.parametrize(
    ("reducer", "values", "result", "gradient"),
    [
        ("lp2", [3, -4], 5, [0.6, -0.8]),
        ("lp3", [-3, 4, 5], 6, [-1 / 4, 4 / 9, 25 / 36]),
        ("lp8", [0, 1], 1, [0, 1]),
        ("logsumexp1", [-1, 1], 1, [0, 1]),
        ("logsumexp-0.5", [-1, 1], -1, [1, 0]),
        ("logsumexp1", [2, 2], 2, [0.5, 0.5]),
    ],
)
@pytest.mark.parametrize(("dtype", "scale"), [("float64", 1e300), ("float32", 1e30)])
def test_powers_and_exponentials_of_large_cells_do_not_overflow(
    strategy, dtype, scale, reducer, values, result, gradient
):
    y, dx = pooled(np.array(values) * scale, reducer, strategy, dtype)
    eps = float(np.finfo(dtype).eps)
    assert y == pytest.approx(result * scale, rel=8 * eps)
    assert dx == pytest.approx(gradient, rel=32 * eps, abs=0)


@every_strategy
@pytest.mark.parametrize(("dtype", "scale"), [("float64", 1e-300), ("float32", 1e-35)])
def test_powers_of_small_cells_do_not_vanish(strategy, dtype, scale):
    y, dx = pooled([3 * scale, -4 * scale], "lp2", strategy, dtype)
    assert y == pytest.approx(5 * scale, rel=1e-6)
    assert dx == pytest.approx([0.6, -0.8], rel=1e-6)


@every_strategy
@pytest.mark.parametrize(
    ("reducer", "values", "result"),
    [("logsumexp1", [1e308, -1e308], 1e308), ("logsumexp8", [1e308, 1], 1e308), ("logsumexp-8", [1e308, 1], 1)],
)
def test_cells_whose_difference_overflows(strategy, reducer, values, result):
    x = np.array([[values]])
    assert ck.pool1d(x, 2, reducer, strategy=strategy).item() == result


@every_strategy
def test_a_large_integer_that_wins_by_one_takes_the_gradient(strategy):
    """Also where dy is floating and cannot tell the two apart."""
    x = np.array([[[2**53, 2**53 + 1]]])
    _, vjp = ck.pool1d_vjp(x, 2, "max", strategy=strategy)
    assert vjp(np.ones((1, 1, 1))).tolist() == [[[0, 1]]]


@pytest.mark.parametrize("name", BUILTIN)
@given(seed=seeds, cells=st.integers(1, 6), data=st.data())
def test_padding_is_neutral(name, seed, cells, data):
    reducer = find_reducer(name)
    kinds = ["float32", "float64", *(["int8", "uint16"] if "i" in reducer.kinds else [])]
    dtype = np.dtype(data.draw(st.sampled_from(kinds)))
    windows = integers((4, cells), dtype, seed)
    windows[0] = {"f": -np.inf if "max" in name else 0, "i": -128, "u": 0}[dtype.kind]
    places = data.draw(st.lists(st.integers(0, cells), min_size=1, max_size=3))
    padded = np.insert(windows, places, reducer.pad_value(dtype), axis=1)
    assume(padded.dtype == dtype)
    assert_same(reducer.reduce(padded, (1,), cells), reducer.reduce(windows, (1,), cells))


@pytest.mark.parametrize("name", BUILTIN)
@given(seed=seeds, shape=st.tuples(*[st.integers(1, 3)] * 5))
def test_several_window_axes_are_reduced_as_one(name, seed, shape):
    reducer = find_reducer(name)
    windows = integers(shape, np.dtype(float), seed, most=2)
    flat = windows.reshape(*shape[:3], -1)
    y = reducer.reduce(windows, (3, 4), flat.shape[-1])
    assert_same(y, reducer.reduce(flat, (3,), flat.shape[-1]))
    dy = integers(y.shape, np.dtype(float), seed + 1)
    shares = reducer.vjp(dy, windows, y, (3, 4), flat.shape[-1])
    assert shares.shape == shape
    assert_same(shares.reshape(flat.shape), reducer.vjp(dy, flat, y, (3,), flat.shape[-1]))


def test_mean_divides_by_the_count_of_each_window():
    mean, windows = find_reducer("mean"), np.array([[1.0, 2], [3, 5]])
    count = np.array([2, 4])
    assert mean.reduce(windows, (1,), count).tolist() == [1.5, 2]
    assert mean.vjp(np.array([2.0, 2]), windows, np.zeros(2), (1,), count).tolist() == [[1, 1], [0.5, 0.5]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", BUILTIN)
def test_type_of_floating_cells_is_kept(name, dtype):
    reducer, windows = find_reducer(name), np.ones((2, 3), dtype)
    y = reducer.reduce(windows, (1,), np.array([3, 2]))
    assert y.dtype == dtype
    assert reducer.vjp(y, windows, y, (1,), np.array([3, 2])).dtype == dtype


@pytest.mark.parametrize("name", BUILTIN)
def test_windows_are_not_written(name):
    reducer, windows = find_reducer(name), np.array([[1.0, 2, 2], [3, 0, nan]])
    windows.flags.writeable = False
    dy = np.array([1.0, 2])
    dy.flags.writeable = False
    y = reducer.reduce(windows, (1,), 3)
    y.flags.writeable = False
    reducer.vjp(dy, windows, y, (1,), 3)


@given(
    family=st.sampled_from([ck.lp, ck.logsumexp]),
    parameter=st.floats(1e-200, 1e200) | st.integers(1, 10**6) | st.floats(-100, -1e-5),
)
def test_a_family_member_is_found_by_its_name(family, parameter):
    assume(family is ck.logsumexp or parameter > 0)
    reducer = family(parameter)
    assert find_reducer(reducer.name) == builtin_reducer(reducer.name) == reducer


@pytest.mark.parametrize(
    ("reducer", "name"),
    [
        (ck.lp(2), "lp2"),
        (ck.lp(2.5), "lp2.5"),
        (ck.lp(0.1 + 0.2), "lp0.30000000000000004"),
        (ck.lp(1e16), "lp1e16"),
        (ck.logsumexp(), "logsumexp1"),
        (ck.logsumexp(-1e-7), "logsumexp-1e-07"),
        (ck.maximum("last"), "max_ties-last"),
        (ck.minimum(), "min"),
    ],
)
def test_names(reducer, name):
    assert reducer.name == name


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_names_find_reducers_of_that_name(name):
    assert find_reducer(name).name == name
    assert find_reducer(find_reducer(name)) is find_reducer(name)


@pytest.mark.parametrize(
    "name", ["lp", "lp-1", "lp0", "lp2x", "lpinf", "logsumexp0", "LP2", "max_ties", "max_ties-any", ""]
)
def test_unknown_names_are_refused(name):
    with pytest.raises(ck.OptionError):
        find_reducer(name)


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(reducers, "_registered", {})


@pytest.mark.usefixtures("registry")
def test_a_registered_reducer_is_found_by_its_name_everywhere():
    spread = ck.Reducer("range", None, lambda windows, axes, count: windows.max(axes) - windows.min(axes))
    with pytest.raises(ck.OptionError, match="reducer='range' is not known"):
        find_reducer("range")
    ck.register_reducer(spread)
    ck.register_reducer(spread)
    assert find_reducer("range") is spread
    assert reducer_names()[-1] == "range"
    assert ck.pool1d(np.array([[[1.0, 5, 2]]]), 3, "range").item() == 4
    assert ck.parse_problem("pool:n1c1_in3_k3_s3_p0+0_d1_range")[1].reducer is spread


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("name", ["max", "min_ties-all", "mean", "lp2", "lp2.5", "logsumexp-1", "mine"])
def test_a_name_that_is_taken_stays_with_its_reducer(name):
    ck.register_reducer(ck.Reducer("mine", None, np.max))
    before = find_reducer(name)
    with pytest.raises(ck.OptionError, match=f"reducer name '{name}' is taken"):
        ck.register_reducer(ck.Reducer(name, None, np.min))
    assert find_reducer(name) is before


@pytest.mark.parametrize(
    "name", ["", "Max", "2norm", "a_b", "a b", "ceil", "nopad", "bias", "div2", "op1x1", "float32", "int"]
)
def test_names_that_problem_strings_could_not_hold_are_refused(name):
    with pytest.raises(ck.OptionError, match=f"reducer name '{name}' must be"):
        ck.Reducer(name, None, np.max)


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "p99.5", "soft_ties-all"])
def test_names_that_problem_strings_can_hold_are_taken(name):
    assert ck.Reducer(name, None, np.max).name == name
