"""Time: every operation by every strategy, in both common layouts and types."""

from .calls import prepared
from .problems import (
    BOTH,
    CONVOLUTIONS,
    CONVOLVED,
    DTYPES,
    GRADIENTS,
    NORMALISED,
    NORMS,
    ORDERS,
    POOLED,
    POOLS,
    TRANSPOSED,
)


class _Operation:
    """One operation; those below have their problems."""

    param_names = ("problem", "direction", "strategy", "order", "dtype")

    def setup(self, problem, direction, strategy, order, dtype):
        self.run = prepared(problem, direction, strategy, order, dtype)

    def time_run(self, problem, direction, strategy, order, dtype):
        self.run()


class Convolution(_Operation):
    """Convolution and its gradients."""

    params = (CONVOLUTIONS, GRADIENTS, CONVOLVED, ORDERS, DTYPES)


class Transposed(_Operation):
    """Transposed convolution."""

    params = (TRANSPOSED, BOTH, CONVOLVED, ORDERS, DTYPES)


class Pool(_Operation):
    """Pools."""

    params = (POOLS, BOTH, POOLED, ORDERS, DTYPES)


class Norm(_Operation):
    """Norms in training."""

    params = (NORMS, BOTH, NORMALISED, ORDERS, DTYPES)
