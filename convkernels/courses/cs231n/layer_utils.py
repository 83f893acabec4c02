"""The course's sandwiches: layers that are often used together, forward and backward."""

from __future__ import annotations

from typing import Any

from convkernels.layout import Array

from .dense import affine_backward, affine_forward, relu_backward, relu_forward
from .entries import Param
from .norms import spatial_batchnorm_backward, spatial_batchnorm_forward
from .windows import conv_backward_fast, conv_forward_fast, max_pool_backward_fast, max_pool_forward_fast

Gradients = tuple[Array, Array, Array]


def affine_relu_forward(x: Array, w: Array, b: Array) -> tuple[Array, Any]:
    """Apply `affine_forward`, then `relu_forward`; the cache holds both."""
    a, fc_cache = affine_forward(x, w, b)
    out, relu_cache = relu_forward(a)
    return out, (fc_cache, relu_cache)


def affine_relu_backward(dout: Array, cache: Any) -> Gradients:
    """Go back through `affine_relu_forward`: dx, dw, db."""
    fc_cache, relu_cache = cache
    return affine_backward(relu_backward(dout, relu_cache), fc_cache)


def conv_relu_forward(x: Array, w: Array, b: Array, conv_param: Param) -> tuple[Array, Any]:
    """Apply `conv_forward_fast`, then `relu_forward`; the cache holds both."""
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    out, relu_cache = relu_forward(a)
    return out, (conv_cache, relu_cache)


def conv_relu_backward(dout: Array, cache: Any) -> Gradients:
    """Go back through `conv_relu_forward`: dx, dw, db."""
    conv_cache, relu_cache = cache
    return conv_backward_fast(relu_backward(dout, relu_cache), conv_cache)


def conv_bn_relu_forward(
    x: Array, w: Array, b: Array, gamma: Array, beta: Array, conv_param: Param, bn_param: Param
) -> tuple[Array, Any]:
    """Apply `conv_forward_fast`, `spatial_batchnorm_forward`, then `relu_forward`; the cache holds all three."""
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    an, bn_cache = spatial_batchnorm_forward(a, gamma, beta, bn_param)
    out, relu_cache = relu_forward(an)
    return out, (conv_cache, bn_cache, relu_cache)


def conv_bn_relu_backward(dout: Array, cache: Any) -> tuple[Array, Array, Array, Array, Array]:
    """Go back through `conv_bn_relu_forward`: dx, dw, db, dgamma, dbeta."""
    conv_cache, bn_cache, relu_cache = cache
    da, dgamma, dbeta = spatial_batchnorm_backward(relu_backward(dout, relu_cache), bn_cache)
    return *conv_backward_fast(da, conv_cache), dgamma, dbeta


def conv_relu_pool_forward(x: Array, w: Array, b: Array, conv_param: Param, pool_param: Param) -> tuple[Array, Any]:
    """Apply `conv_forward_fast`, `relu_forward`, then `max_pool_forward_fast`; the cache holds all three."""
    a, conv_cache = conv_forward_fast(x, w, b, conv_param)
    s, relu_cache = relu_forward(a)
    out, pool_cache = max_pool_forward_fast(s, pool_param)
    return out, (conv_cache, relu_cache, pool_cache)


def conv_relu_pool_backward(dout: Array, cache: Any) -> Gradients:
    """Go back through `conv_relu_pool_forward`: dx, dw, db."""
    conv_cache, relu_cache, pool_cache = cache
    ds = max_pool_backward_fast(dout, pool_cache)
    return conv_backward_fast(relu_backward(ds, relu_cache), conv_cache)
