"""Convolution, pooling and their gradients for NumPy arrays, in any axis layout.

>>> import numpy as np
>>> import convkernels as ck
>>> ck.conv2d(np.ones((1, 8, 8, 3)), np.ones((3, 3, 3, 16)), padding="same", layout="NHWC").shape
(1, 8, 8, 16)
"""

from .config import Config, config_context, get_config, set_config
from .conv import (
    ConvGradients,
    conv,
    conv1d,
    conv1d_input_grad,
    conv1d_vjp,
    conv1d_weight_grad,
    conv2d,
    conv2d_input_grad,
    conv2d_vjp,
    conv2d_weight_grad,
    conv3d,
    conv3d_input_grad,
    conv3d_vjp,
    conv3d_weight_grad,
    conv_input_grad,
    conv_vjp,
    conv_weight_grad,
)
from .errors import (
    ConvkernelsError,
    DTypeError,
    IntegerOverflowError,
    LayoutError,
    OptionError,
    OverlapError,
    ShapeError,
    UnknownStrategyError,
    UnsupportedError,
    WorkspaceError,
)
from .operation import Implementation, Resources, register, unregister
from .planning import Choice, Explanation, explain
from .pool import (
    avg_pool,
    avg_pool1d,
    avg_pool1d_vjp,
    avg_pool2d,
    avg_pool2d_vjp,
    avg_pool3d,
    avg_pool3d_vjp,
    avg_pool_vjp,
    max_pool,
    max_pool1d,
    max_pool1d_vjp,
    max_pool2d,
    max_pool2d_vjp,
    max_pool3d,
    max_pool3d_vjp,
    max_pool_vjp,
    pool,
    pool1d,
    pool1d_vjp,
    pool2d,
    pool2d_vjp,
    pool3d,
    pool3d_vjp,
    pool_vjp,
)
from .reducers import Reducer, logsumexp, lp, maximum, minimum, register_reducer
from .separable import (
    SeparableConvGradients,
    depthwise_conv,
    depthwise_conv1d,
    depthwise_conv1d_vjp,
    depthwise_conv2d,
    depthwise_conv2d_vjp,
    depthwise_conv3d,
    depthwise_conv3d_vjp,
    depthwise_conv_vjp,
    separable_conv,
    separable_conv1d,
    separable_conv1d_vjp,
    separable_conv2d,
    separable_conv2d_vjp,
    separable_conv3d,
    separable_conv3d_vjp,
    separable_conv_vjp,
)
from .spec import ConvSpec, PoolSpec, parse_problem
from .window import Window

__version__ = "0.1.0"
