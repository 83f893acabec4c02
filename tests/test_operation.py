"""The registry: what "auto" takes, what a named strategy does, what plugs in and out."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Barrier, Thread

import numpy as np
import pytest

import convkernels as ck
from convkernels.kernels import naive
from convkernels.operation import CONV, OPERATIONS, Implementation, Operation, find_operation
from convkernels.testing.strategies import integers

SPEC = ck.parse_problem("n2g1i3o4_in6x5_k3x2_s1x1_p0+0x0+0_d1x1")[1]
LIMIT = 1000
SAFE = ("bounded", "batch_invariant")
x = integers(SPEC.x_shape, SPEC.dtype, 0)
w = integers(SPEC.w_shape, SPEC.dtype, 1)
y = ck.conv2d(x, w, strategy="naive")


def implementation(name, *, declines=None, dislikes=None, needs=0, claims=()):
    """An implementation that cannot run, with these facts about it."""
    return Implementation(
        name,
        run=lambda *args, **kwargs: None,
        supports=lambda spec: declines,
        prefers=lambda spec, order: dislikes,
        workspace=lambda spec, limit: needs,
        claims=frozenset(claims),
    )


def chosen(*implementations, strategy="auto", precision="default", limit=LIMIT):
    made = Operation("conv", implementations)
    return made.select(SPEC, "channels_first", strategy, precision=precision, limit=limit).name


@pytest.fixture
def plug():
    """Register an implementation that records its calls and computes by the definition; it is gone after the test."""
    plugged = []

    def register(operation_name, name, **facts):
        calls = []

        def run(spec, *arrays, out, resources):
            calls.append((spec, arrays, resources))
            getattr(naive, operation_name)(spec, *arrays, out=out, resources=resources)

        ck.register(operation_name, name, run, **facts)
        plugged.append((operation_name, name))
        return calls

    yield register
    for operation_name, name in plugged:
        if name in OPERATIONS[operation_name].names():
            ck.unregister(operation_name, name)


@pytest.fixture
def plugins(monkeypatch):
    """Install entry points for one test, as if the process had just started."""
    before = {name: found.implementations for name, found in OPERATIONS.items()}
    installed = []
    monkeypatch.setattr(ck.plugins, "_plugins", ck.plugins._Plugins())
    monkeypatch.setattr(ck.plugins, "entry_points", lambda: installed)
    yield installed
    for name, implementations in before.items():
        OPERATIONS[name].implementations = implementations


@dataclass
class Entry:
    """What `importlib.metadata` gives for an entry point."""

    name: str
    plugin: object
    value: str = "package:plug"
    loads: int = 0

    def load(self):
        self.loads += 1
        if isinstance(self.plugin, Exception):
            raise self.plugin
        return self.plugin


def test_auto_takes_the_first_that_supports_and_prefers_the_problem():
    good, better = implementation("good"), implementation("better")
    assert chosen(better, good) == "better"
    assert chosen(implementation("cannot", declines="no"), better, good) == "better"
    assert chosen(implementation("dislikes", dislikes="slow here"), better, good) == "better"


def test_auto_takes_the_first_that_can_where_none_prefers_to():
    unwilling = [implementation(name, dislikes="slow") for name in ("first", "second")]
    assert chosen(implementation("cannot", declines="no"), *unwilling) == "first"


def test_auto_raises_with_a_line_for_each_where_none_can():
    with pytest.raises(ck.UnsupportedError) as caught:
        chosen(implementation("one", declines="no library"), implementation("two", declines="no such type"))
    assert str(caught.value) == f"no strategy of conv takes {SPEC}:\n  one: no library\n  two: no such type"


def test_auto_asks_about_the_problem_and_its_order():
    asked = []

    def asking(answer):
        return lambda *args: asked.append(args) or answer

    first = Implementation("first", print, supports=asking(None), prefers=asking("no"), workspace=asking(0))
    made = Operation("conv", (first, implementation("second")))
    assert made.select(SPEC, "channels_last", limit=77).name == "second"
    assert asked == [(SPEC,), (SPEC, 77), (SPEC, "channels_last")]


def test_a_named_strategy_runs_though_it_is_not_preferred():
    assert chosen(implementation("good"), implementation("bad", dislikes="slow"), strategy="bad") == "bad"


def test_a_named_strategy_that_declines_is_never_replaced():
    with pytest.raises(ck.UnsupportedError) as caught:
        chosen(implementation("good"), implementation("cannot", declines="needs a library"), strategy="cannot")
    assert str(caught.value) == f"strategy='cannot' declines {SPEC}: needs a library"


@pytest.mark.parametrize("name", ["GOOD", "good ", "", "none"])
def test_an_unknown_strategy_is_refused_with_the_names_there_are(name):
    with pytest.raises(ck.UnknownStrategyError, match="is not one of conv's: 'auto', 'good', 'bad'"):
        chosen(implementation("good"), implementation("bad"), strategy=name)


@pytest.mark.parametrize("claims", [(), ("bounded",), ("batch_invariant", "bounded_tile"), ("exact_on_integers",)])
def test_highest_precision_takes_only_those_that_claim_it(claims):
    loose, safe = implementation("loose", claims=claims), implementation("safe", claims=SAFE)
    assert chosen(loose, safe) == "loose"
    assert chosen(loose, safe, precision="highest") == "safe"
    missing = " and ".join(sorted({"bounded", "batch_invariant"} - set(claims)))
    with pytest.raises(ck.UnsupportedError, match=f"declines .*: precision='highest' needs the claims {missing}$"):
        chosen(loose, safe, precision="highest", strategy="loose")


def test_each_operation_has_an_implementation_of_the_highest_precision_that_needs_numpy_alone():
    for each in OPERATIONS.values():
        fast = [found for found in each.implementations if found.name not in ("direct", "naive")]
        assert any(found.claims >= set(SAFE) for found in fast)


@pytest.mark.parametrize(
    "text",
    [
        "n64g1i16o1_in16x16_k3x3_s1x1_p1+1x1+1_d1x1",
        "n8g1i512o1000_in1x1_k1x1_s1x1_p0+0x0+0_d1x1",
        "n8g1i200o100_in1x1_k1x1_s1x1_p0+0x0+0_d1x1",
        "n64g64i64o64_in8x8_k3x3_s1x1_p1+1x1+1_d1x1",
        "n64g4i4o4_in4x4_k3x3_s1x1_p1+1x1+1_d1x1",
    ],
)
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad", "conv_transpose"])
def test_the_choice_of_the_highest_precision_does_not_depend_on_the_batch(operation, text):
    spec = ck.parse_problem(text if operation != "conv_transpose" else f"conv_transpose:{text}")[1]
    names = {
        OPERATIONS[operation].select(each, "channels_first", precision="highest", limit=2**26).name
        for each in (spec, spec.one_image)
    }
    assert len(names) == 1


@pytest.mark.parametrize("needs", [LIMIT, LIMIT + 1])
def test_a_named_strategy_runs_in_exactly_what_it_needs(needs):
    wanted = implementation("wants", needs=needs)
    if needs <= LIMIT:
        assert chosen(wanted, strategy="wants") == "wants"
    else:
        with pytest.raises(ck.WorkspaceError, match=f"max_workspace={LIMIT} bytes is too small .*: {needs} would do"):
            chosen(wanted, strategy="wants")


def test_auto_takes_another_that_fits_and_prefers_the_problem():
    assert chosen(implementation("wants", needs=LIMIT + 1), implementation("fits", needs=LIMIT)) == "fits"


def test_auto_raises_rather_than_run_slowly_for_want_of_memory():
    slow = implementation("slow", dislikes="slow")
    wanting = [implementation("wants", needs=3000), implementation("wants_less", needs=2000)]
    with pytest.raises(ck.WorkspaceError, match="too small for every fast strategy: 2000 would do"):
        chosen(*wanting, slow)
    assert chosen(*wanting, slow, limit=2000) == "wants_less"
    assert chosen(implementation("cannot", declines="no", needs=3000), slow) == "slow"


def test_a_public_call_never_takes_the_definition_for_want_of_memory():
    with pytest.raises(ck.WorkspaceError, match="too small for every fast strategy"):
        ck.conv2d(x, w, max_workspace=8)
    assert np.array_equal(ck.conv2d(x, w, max_workspace=8, strategy="naive"), y)


@pytest.mark.parametrize("before", [None, *CONV.names()])
def test_a_registered_strategy_stands_where_it_was_put(plug, before):
    names = list(CONV.names())
    place = names.index(before) if before else 0
    plug("conv", "mine", before=before)
    assert list(CONV.names()) == [*names[:place], "mine", *names[place:]]
    ck.unregister("conv", "mine")
    assert list(CONV.names()) == names


def test_auto_takes_what_is_registered_and_forgets_what_is_not(plug):
    ck.conv2d(x, w)
    calls = plug("conv", "mine")
    assert np.array_equal(ck.conv2d(x, w), y)
    assert len(calls) == 1
    ck.unregister("conv", "mine")
    assert np.array_equal(ck.conv2d(x, w), y)
    assert len(calls) == 1


def test_a_taken_name_and_an_unknown_place_change_nothing(plug):
    names = CONV.names()
    with pytest.raises(ck.OptionError, match="conv has a strategy 'naive' already"):
        plug("conv", "naive")
    with pytest.raises(ck.UnknownStrategyError, match="before='nothing' is not one of conv's"):
        plug("conv", "mine", before="nothing")
    with pytest.raises(ck.UnknownStrategyError, match="'mine' is not one of conv's"):
        ck.unregister("conv", "mine")
    assert CONV.names() == names


@pytest.mark.parametrize("facts", [{"supports": None}, {"prefers": 1}, {"workspace": 0}, {"claims": ["fast"]}])
def test_facts_of_the_wrong_kind_are_refused(plug, facts):
    with pytest.raises(ck.OptionError, match="must be"):
        plug("conv", "mine", **facts)


def test_operations_are_found_by_their_exact_name():
    assert [find_operation(name) for name in OPERATIONS] == list(OPERATIONS.values())
    for name in ("Conv", "conv2d", None):
        with pytest.raises(ck.OptionError, match="operation="):
            find_operation(name)


def test_an_implementation_gets_canonical_views_of_one_type(plug):
    calls = plug("conv", "mine")
    half = x.astype(np.float16)
    b = np.ones(4, ">f4")
    laid, out = half.transpose(0, 2, 3, 1), np.full((2, 4, 4, 4), np.nan, np.float32)
    ck.conv2d(laid, w.transpose(2, 3, 1, 0), b, layout="NHWC", out=out, threads=3, max_workspace=12345)
    assert len(calls) == len(x)  # what is converted is converted image by image
    for spec, arrays, resources in calls:
        assert [array.shape for array in arrays] == [spec.x_shape, spec.w_shape, (4,)]
        assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
        assert resources.max_workspace < 12345
        assert resources.threads == 3
    assert np.array_equal(out, y.transpose(0, 2, 3, 1) + 1)


def test_a_named_forward_leaves_the_gradients_to_auto(plug):
    mine = plug("conv", "mine", before="naive")
    auto = plug("conv_input_grad", "other")
    result, vjp = ck.conv2d_vjp(x, w, strategy="mine")
    gradients = vjp(result)
    assert (len(mine), len(auto)) == (1, 1)
    expected = ck.conv2d_vjp(x, w, strategy="naive")[1](result)
    assert np.array_equal(gradients.dx, expected.dx)
    assert np.array_equal(gradients.dw, expected.dw)


def test_a_named_forward_binds_the_gradients_that_have_the_name(plug):
    calls = {name: plug(name, "mine", before="naive") for name in ("conv", "conv_weight_grad", "pool_grad", "pool")}
    result, vjp = ck.conv2d_vjp(x, w, strategy="mine")
    vjp(result)
    result, vjp = ck.max_pool2d_vjp(x, 2, strategy="mine")
    vjp(result)
    assert {name: len(found) for name, found in calls.items()} == dict.fromkeys(calls, 1)


def test_a_gradient_refuses_a_name_it_does_not_have(plug):
    plug("conv", "mine")
    with pytest.raises(ck.UnknownStrategyError, match="strategy='mine' is not one of conv_input_grad's"):
        ck.conv2d_input_grad(y, w, x_shape=x.shape, strategy="mine")
    with pytest.raises(ck.UnknownStrategyError, match="strategy='mine' is not one of conv_weight_grad's"):
        ck.conv2d_weight_grad(x, y, kernel_size=(3, 2), strategy="mine")


def test_a_named_forward_that_declines_is_not_replaced_in_a_vjp(plug):
    calls = plug("conv", "mine", supports=lambda spec: "only on Sundays")
    with pytest.raises(ck.UnsupportedError, match=r"^conv2d_vjp: strategy='mine' declines .*: only on Sundays"):
        ck.conv2d_vjp(x, w, strategy="mine")
    assert not calls


def test_plugins_load_at_the_first_auto_and_not_before(plugins, plug):
    entry = Entry("theirs", lambda: plug("conv", "theirs"))
    plugins.append(entry)
    ck.conv2d(x, w, strategy="naive")
    ck.conv2d(x, w, strategy="im2col")
    assert entry.loads == 0
    ck.conv2d(x, w)
    ck.conv2d(x, w)
    assert entry.loads == 1
    assert CONV.names()[0] == "theirs"
    assert "conv:" in str(ck.explain("conv2d", x, w))
    assert ck.explain("conv2d", x, w).choices[0].chosen.name == "theirs"


def test_a_name_that_only_a_plugin_has_loads_it(plugins, plug):
    calls = []
    plugins.append(Entry("theirs", lambda: calls.append(plug("conv", "theirs"))))
    assert np.array_equal(ck.conv2d(x, w, strategy="theirs"), y)
    assert len(calls[0]) == 1


@pytest.mark.parametrize("failure", [ImportError("no numba"), ValueError("broken")])
def test_a_plugin_that_fails_breaks_nothing_and_is_reported(plugins, plug, failure):
    def raising():
        raise failure

    plugins += [
        Entry("absent", failure, "absent:plug"),
        Entry("broken", raising, "broken:plug"),
        Entry("theirs", lambda: plug("conv", "theirs")),
    ]
    assert np.array_equal(ck.conv2d(x, w), y)
    assert CONV.names()[0] == "theirs"
    notes = ck.explain("conv2d", x, w).choices[0].notes
    for place in ("absent (absent:plug)", "broken (broken:plug)"):
        assert f"plugin {place} failed to load: {type(failure).__name__}: {failure}" in notes


def test_a_plugin_may_convolve_while_it_loads(plugins, plug):
    results = []

    def plugin():
        results.append(ck.conv2d(x, w))
        plug("conv", "theirs")

    plugins.append(Entry("theirs", plugin))
    assert np.array_equal(ck.conv2d(x, w), y)
    assert np.array_equal(results[0], y)
    assert not ck.plugins.load_plugins()


def test_threads_wait_for_the_plugins_and_load_them_once(plugins, plug):
    entry = Entry("theirs", lambda: plug("conv", "theirs"))
    plugins.append(entry)
    together, names = Barrier(4), []

    def first_call():
        together.wait()
        ck.conv2d(x, w)
        names.append(CONV.names()[0])

    threads = [Thread(target=first_call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entry.loads == 1
    assert names == ["theirs"] * 4
