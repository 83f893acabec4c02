"""The courses' definitions of norms and losses are the library's."""

from __future__ import annotations

import numpy as np
import pytest

import convkernels as ck
from convkernels import losses
from convkernels.testing.kernel import COURSES
from convkernels.testing.search import draw_all


def drawn(case):
    """Some arguments of a case."""
    found = []
    draw_all(case, lambda sizes: found.append(case.arguments(sizes)), lambda: 30 - len(found), 0)
    return found


def close(results, expected):
    for name, result in results.items():
        np.testing.assert_allclose(result, np.reshape(expected[name], np.shape(result)), rtol=1e-9, atol=1e-9)


IN_LIBRARY = {
    "spatial_batchnorm": lambda a, eps: ck.batch_norm_train_vjp(a["x"], a["gamma"], a["beta"], eps=eps),
    "batchnorm": lambda a, eps: ck.batch_norm_train_vjp(
        a["x"][:, :, None], a["gamma"], a["beta"], eps=eps, layout="NCW"
    ),
    "layernorm": lambda a, eps: ck.layer_norm_vjp(a["x"][:, :, None], a["gamma"], a["beta"], eps=eps, layout="NCW"),
    "spatial_groupnorm": lambda a, eps: ck.group_norm_vjp(
        a["x"], a["gamma"].ravel(), a["beta"].ravel(), a["G"], eps=eps
    ),
}


@pytest.mark.parametrize("name", IN_LIBRARY)
def test_the_courses_norms_are_the_librarys(name):
    forward, backward = (COURSES["cs231n"][f"{name}_{way}"] for way in ("forward", "backward"))
    for a in drawn(backward):
        eps = next(value for value in a.values() if isinstance(value, dict)).get("eps", 1e-5)
        y, *_, vjp = IN_LIBRARY[name](a, eps)
        close({"out": y}, forward.expected({**a, "returned": {}}))
        close(vjp(a["dout"].reshape(y.shape))._asdict(), backward.expected(a))


@pytest.mark.parametrize(
    ("name", "loss"), [("softmax_loss", losses.softmax_cross_entropy_vjp), ("svm_loss", losses.svm_loss_vjp)]
)
def test_the_courses_losses_are_the_librarys(name, loss):
    case = COURSES["cs231n"][name]
    for a in drawn(case):
        value, vjp = loss(a["x"], a["y"])
        close({"loss": value, "dx": vjp()}, case.expected(a))
