"""Products of matrices, compiled and BLAS': the same numbers, and which of them runs."""

from __future__ import annotations

from importlib import util

import numpy as np
import pytest

import convkernels as ck
from convkernels import dense
from convkernels.kernels import products
from convkernels.operation import CONV


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(70, 90, 110), (1, 900, 700), (300, 1000, 1), (50, 800, 500)])
def test_affine_and_its_gradients(rows, depth, columns, dtype, threads):
    rng = np.random.default_rng(0)
    x, w, b, dy = (
        rng.integers(-3, 4, shape) for shape in ((rows, depth), (depth, columns), (columns,), (rows, columns))
    )
    with ck.config_context(threads=threads):
        y, vjp = dense.affine_vjp(*(array.astype(dtype) for array in (x, w, b)))
        grads = vjp(dy.astype(dtype))
    for found, expected in zip((y, *grads), (x @ w + b, dy @ w.T, x.T @ dy, dy.sum(0)), strict=True):
        np.testing.assert_array_equal(found, expected.astype(dtype))


@pytest.mark.skipif(not util.find_spec("numba"), reason="needs Numba")
@pytest.mark.parametrize(
    ("rows", "columns", "threads", "here"),
    [(256, 32, 2, True), (256, 32, 1, False), (2, 3, 2, False), (9000, 9000, 2, False)],
)
def test_products_are_compiled_where_blas_threads_would_be_in_the_way(rows, columns, threads, here):
    x = np.broadcast_to(np.float32(1), (rows, 3136))
    with ck.config_context(threads=threads):
        assert (products.compiled(CONV, x, columns) is not None) is here
    with ck.config_context(threads=threads, max_workspace=10_000):
        assert products.compiled(CONV, x, columns) is None
