"""Pools on arrays that lie like those before: the program is found once, and then carried out at other addresses."""

from __future__ import annotations

from collections.abc import Callable

from ...config import Resources
from ...layout import Array
from ...pool_spec import PoolSpec
from .calls import Program, execute, views
from .isa import host
from .pool_blocks import extreme, family, grad_threads, pool_threads, work_of
from .pooling import Kept, planned_collection, planned_extrema, planned_norms, planned_pool, planned_sums
from .thread_count import by_threads

Run = Callable[..., None]


def pool(spec: PoolSpec, x: Array, *, out: Array, resources: Resources) -> Run:
    """Plan a pool."""
    limit, seen = resources.max_workspace, views(x, out)

    def make(wanted: int) -> tuple[Program, int]:
        threads = pool_threads(spec, wanted, limit)
        return planned_pool(spec, *seen, threads, limit, host()), threads

    work = by_threads(resources.threads, work_of(spec), make)
    return lambda x, out: execute(*work(), x, out)


def pool_grad(spec: PoolSpec, dy: Array, x: Array, y: Array, *, out: Array, resources: Resources) -> Run:
    """Plan a gradient."""
    limit, isa = resources.max_workspace, host()
    norms = family(spec) in ("lp1", "lp2")
    seen = views(dy, x, out) if extreme(spec) else views(dy, y, x, out) if norms else views(dy, out)

    def make(wanted: int) -> tuple[Program, int]:
        threads = grad_threads(spec, wanted, limit)
        if norms:
            return planned_norms(spec, *seen, threads, isa), threads
        return (planned_extrema if extreme(spec) else planned_sums)(spec, *seen, threads, limit, isa), threads

    work = by_threads(resources.threads, work_of(spec), make)
    if extreme(spec):
        return lambda dy, x, y, out: execute(*work(), dy, x, out)
    if norms:
        return lambda dy, x, y, out: execute(*work(), dy, y, x, out)
    return lambda dy, x, y, out: execute(*work(), dy, out)


def pool_grad_kept(spec: PoolSpec, dy: Array, codes: Kept, *, out: Array, resources: Resources) -> Run:
    """Plan a gradient by these codes, which were kept."""
    limit, seen = resources.max_workspace, views(dy, out)

    def make(wanted: int) -> tuple[Program, int]:
        threads = pool_threads(spec, wanted, limit)
        return planned_collection(spec, *seen, codes.view, threads, limit, host()), threads

    work = by_threads(resources.threads, work_of(spec), make)
    return lambda dy, x, y, out: execute(*work(), dy, out, codes.memory)
