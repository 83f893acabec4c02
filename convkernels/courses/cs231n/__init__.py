"""The functions of CS231n's second assignment: NCHW, weights (F, C, HH, WW), with the course's own signatures.

Each forward returns ``(out, cache)``, each backward takes ``(dout, cache)``. The names in ``_naive`` run the definition
in Python loops, the others what is named, or what suits best.

>>> import numpy as np
>>> from convkernels.courses import cs231n
>>> x, w, b = np.ones((1, 3, 5, 5)), np.ones((2, 3, 3, 3)), np.zeros(2)
>>> out, cache = cs231n.conv_forward_fast(x, w, b, {"stride": 1, "pad": 1})
>>> dx, dw, db = cs231n.conv_backward_fast(np.ones_like(out), cache)
>>> out.shape, dx.shape, dw.shape, db.shape
((1, 2, 5, 5), (1, 3, 5, 5), (2, 3, 3, 3), (2,))
"""

from convkernels.courses.cs231n.cnn import ThreeLayerConvNet
from convkernels.courses.cs231n.dense import (
    affine_backward,
    affine_forward,
    dropout_backward,
    dropout_forward,
    relu_backward,
    relu_forward,
    softmax_loss,
    svm_loss,
)
from convkernels.courses.cs231n.layer_utils import (
    affine_relu_backward,
    affine_relu_forward,
    conv_bn_relu_backward,
    conv_bn_relu_forward,
    conv_relu_backward,
    conv_relu_forward,
    conv_relu_pool_backward,
    conv_relu_pool_forward,
)
from convkernels.courses.cs231n.norms import (
    batchnorm_backward,
    batchnorm_backward_alt,
    batchnorm_forward,
    layernorm_backward,
    layernorm_forward,
    spatial_batchnorm_backward,
    spatial_batchnorm_forward,
    spatial_groupnorm_backward,
    spatial_groupnorm_forward,
)
from convkernels.courses.cs231n.optim import adam, rmsprop, sgd, sgd_momentum
from convkernels.courses.cs231n.solver import Solver
from convkernels.courses.cs231n.windows import (
    conv_backward_fast,
    conv_backward_im2col,
    conv_backward_naive,
    conv_backward_strides,
    conv_forward_fast,
    conv_forward_im2col,
    conv_forward_naive,
    conv_forward_strides,
    max_pool_backward_fast,
    max_pool_backward_im2col,
    max_pool_backward_naive,
    max_pool_backward_reshape,
    max_pool_backward_strides,
    max_pool_forward_fast,
    max_pool_forward_im2col,
    max_pool_forward_naive,
    max_pool_forward_reshape,
    max_pool_forward_strides,
)

__all__ = [
    "Solver",
    "ThreeLayerConvNet",
    "adam",
    "affine_backward",
    "affine_forward",
    "affine_relu_backward",
    "affine_relu_forward",
    "batchnorm_backward",
    "batchnorm_backward_alt",
    "batchnorm_forward",
    "conv_backward_fast",
    "conv_backward_im2col",
    "conv_backward_naive",
    "conv_backward_strides",
    "conv_bn_relu_backward",
    "conv_bn_relu_forward",
    "conv_forward_fast",
    "conv_forward_im2col",
    "conv_forward_naive",
    "conv_forward_strides",
    "conv_relu_backward",
    "conv_relu_forward",
    "conv_relu_pool_backward",
    "conv_relu_pool_forward",
    "dropout_backward",
    "dropout_forward",
    "layernorm_backward",
    "layernorm_forward",
    "max_pool_backward_fast",
    "max_pool_backward_im2col",
    "max_pool_backward_naive",
    "max_pool_backward_reshape",
    "max_pool_backward_strides",
    "max_pool_forward_fast",
    "max_pool_forward_im2col",
    "max_pool_forward_naive",
    "max_pool_forward_reshape",
    "max_pool_forward_strides",
    "relu_backward",
    "relu_forward",
    "rmsprop",
    "sgd",
    "sgd_momentum",
    "softmax_loss",
    "spatial_batchnorm_backward",
    "spatial_batchnorm_forward",
    "spatial_groupnorm_backward",
    "spatial_groupnorm_forward",
    "svm_loss",
]
