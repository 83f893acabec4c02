"""Bad input: each raises the right class, and says in full what is wrong, with which value, by which rule."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_refused

import convkernels as ck

x = np.zeros((2, 6, 8, 8))
w = np.zeros((4, 6, 3, 3))
b = np.zeros(4)
x_last = np.zeros((2, 8, 8, 6))
dy = np.zeros((2, 4, 6, 6))
READ_ONLY = np.zeros((2, 4, 6, 6))
READ_ONLY.flags.writeable = False
SHARED = np.zeros((2, 6, 8, 8))
middle = ck.Reducer("middle", None, np.median)

# What conv2d refuses when it is called on x: the call, the class, and the cause that the message has between
# "conv2d: " and " (x has shape (2, 6, 8, 8), layout 'NCHW')".
# fmt: off
CONV2D = [
    (lambda: ck.conv2d(x, w[0]), ck.ShapeError, "w has 3 axes, layout 'OIHW' has 4"),
    (lambda: ck.conv2d(x, w[:, :5]), ck.ShapeError, 'w has 5 input channels in a group, must have in_channels/groups=6/1=6'),
    (lambda: ck.conv2d(x, w[:, :3]), ck.ShapeError, 'w has 3 input channels in a group, must have in_channels/groups=6/1=6'),
    (lambda: ck.conv2d(x, np.zeros((4, 2, 3, 3)), groups=4), ck.ShapeError, 'in_channels=6 must be divisible by groups=4'),
    (lambda: ck.conv2d(x, np.zeros((5, 2, 3, 3)), groups=3), ck.ShapeError, 'out_channels=5 must be divisible by groups=3'),
    (lambda: ck.conv2d(x, w, groups=0), ck.OptionError, 'groups=0 must be at least 1'),
    (lambda: ck.conv2d(x, w, groups=-1), ck.OptionError, 'groups=-1 must be at least 1'),
    (lambda: ck.conv2d(x, w, groups=1.0), ck.OptionError, 'groups=1.0 must be a whole number'),
    (lambda: ck.conv2d(x, w, groups=True), ck.OptionError, 'groups=True must be a whole number, not a bool'),
    (lambda: ck.conv2d(x, w, groups=(1, 1)), ck.OptionError, 'groups=(1, 1) must be a whole number'),
    (lambda: ck.conv2d(x, w, stride=0), ck.OptionError, 'stride=0 must be at least 1'),
    (lambda: ck.conv2d(x, w, stride=-1), ck.OptionError, 'stride=-1 must be at least 1'),
    (lambda: ck.conv2d(x, w, stride=1.5), ck.OptionError, 'stride=1.5 must be a whole number'),
    (lambda: ck.conv2d(x, w, stride=True), ck.OptionError, 'stride=True must be a whole number, not a bool'),
    (lambda: ck.conv2d(x, w, stride=(1, True)), ck.OptionError, 'stride=True must be a whole number, not a bool'),
    (lambda: ck.conv2d(x, w, stride=(1, 2, 3)), ck.OptionError, 'stride=(1, 2, 3) has 3 entries, must be one number or 2'),
    (lambda: ck.conv2d(x, w, stride="2"), ck.OptionError, "stride='2' must be a whole number"),
    (lambda: ck.conv2d(x, w, stride=None), ck.OptionError, 'stride=None must be a whole number'),
    (lambda: ck.conv2d(x, w, stride=10**18), ck.OptionError, 'stride=1000000000000000000 must be at most 2147483647 in size'),
    (lambda: ck.conv2d(x, w, dilation=0), ck.OptionError, 'dilation=0 must be at least 1'),
    (lambda: ck.conv2d(x, w, dilation=(1, -2)), ck.OptionError, 'dilation=(1, -2) must be at least 1'),
    (lambda: ck.conv2d(x, w, dilation=2.0), ck.OptionError, 'dilation=2.0 must be a whole number'),
    (lambda: ck.conv2d(x, w, dilation=4), ck.ShapeError, "the window extends over 9 cells of spatial axis 0 (kernel_size=3, dilation=4), more than the padded input's 8 + 0 + 0 = 8"),
    (lambda: ck.conv2d(x, w, padding=0.5), ck.OptionError, 'padding=0.5 must be a whole number'),
    (lambda: ck.conv2d(x, w, padding=False), ck.OptionError, 'padding=False must be a whole number, not a bool'),
    (lambda: ck.conv2d(x, w, padding="smae"), ck.OptionError, "padding='smae' must be numbers or one of 'valid', 'same', 'same_lower', 'full', 'causal' (nearest: 'same')"),
    (lambda: ck.conv2d(x, w, padding="causal"), ck.OptionError, "padding='causal' is for one spatial axis, here are 2"),
    (lambda: ck.conv2d(x, w, padding=(1, 2, 3)), ck.OptionError, 'padding=(1, 2, 3) has 3 entries, must be one number or 2'),
    (lambda: ck.conv2d(x, w, padding=((1, 2),)), ck.OptionError, 'padding=((1, 2),) has 1 pairs, must have 2, one for each spatial axis'),
    (lambda: ck.conv2d(x, w, padding=((1, 2, 3), (1, 2, 3))), ck.OptionError, 'padding=((1, 2, 3), (1, 2, 3)) must be one number, 2 numbers or 2 pairs (lo, hi)'),
    (lambda: ck.conv2d(x, w, padding=((1, 1), 1)), ck.OptionError, 'padding=((1, 1), 1) must be one number, 2 numbers or 2 pairs (lo, hi)'),
    (lambda: ck.conv2d(x, w, padding=((1, 1), (0.5, 1))), ck.OptionError, 'padding=0.5 must be a whole number'),
    (lambda: ck.conv2d(x, w, padding=((-4, -4), (0, 0))), ck.ShapeError, 'padding=(-4, -4) crops all 8 cells of spatial axis 0'),
    (lambda: ck.conv2d(x, w, padding=((-8, 8), (0, 0))), ck.ShapeError, 'padding=(-8, 8) crops all 8 cells of spatial axis 0'),
    (lambda: ck.conv2d(x, w, padding=-3), ck.ShapeError, "the window extends over 3 cells of spatial axis 0 (kernel_size=3, dilation=1), more than the padded input's 8 + -3 + -3 = 2"),
    (lambda: ck.conv2d(x, w, padding=10**9), ck.ShapeError, 'the result would have canonical shape (2, 4, 2000000006, 2000000006), more than memory can address'),
    (lambda: ck.conv2d(x, w, padding=10**18), ck.OptionError, 'padding=1000000000000000000 must be at most 2147483647 in size'),
    (lambda: ck.conv2d(x, w, padding_mode="mirror"), ck.OptionError, "padding_mode='mirror' must be one of 'zeros', 'reflect', 'replicate', 'circular'"),
    (lambda: ck.conv2d(x, np.zeros((4, 6, 9, 3))), ck.ShapeError, "the window extends over 9 cells of spatial axis 0 (kernel_size=9, dilation=1), more than the padded input's 8 + 0 + 0 = 8"),
    (lambda: ck.conv2d(x, np.zeros((4, 6, 0, 3))), ck.OptionError, 'kernel_size=(0, 3) must be at least 1'),
    (lambda: ck.conv2d(x, np.zeros((0, 6, 3, 3))), ck.ShapeError, "w has size 0 along 'O', must have at least 1"),
    (lambda: ck.conv2d(x, w, b[:3]), ck.ShapeError, 'b has shape (3,), must have (4,): one number for each output channel'),
    (lambda: ck.conv2d(x, w, b.reshape(1, 4, 1, 1)), ck.ShapeError, 'b has shape (1, 4, 1, 1), must have (4,): one number for each output channel'),
    (lambda: ck.conv2d(x, w, 1.0), ck.ShapeError, 'b has shape (), must have (4,): one number for each output channel'),
    (lambda: ck.conv2d(x, w, weight_layout="OIWX"), ck.LayoutError, "weight_layout='OIWX' must name each axis once, in any order: a permutation of 'OIW', 'OIHW', 'OIDHW'"),
    (lambda: ck.conv2d(x, w, weight_layout="OIW"), ck.LayoutError, "weight_layout='OIW' has the spatial axes 'W', layout='NCHW' has 'HW'"),
    (lambda: ck.conv2d(x, w, weight_layout=3), ck.LayoutError, "weight_layout=3 must be a string of axis letters, such as 'OIHW'"),
    (lambda: ck.conv2d(x, w, strategy="im2cool"), ck.UnknownStrategyError, "strategy='im2cool' is not one of conv's: 'auto', 'fft', 'depthwise', 'winograd', 'direct', 'im2col', 'stride_tricks', 'naive' (nearest: 'im2col')"),
    (lambda: ck.conv2d(x, w, strategy=None), ck.UnknownStrategyError, "strategy=None is not one of conv's: 'auto', 'fft', 'depthwise', 'winograd', 'direct', 'im2col', 'stride_tricks', 'naive'"),
    (lambda: ck.conv2d(x, w, precision="high"), ck.OptionError, "precision='high' must be one of 'default', 'highest' (nearest: 'highest')"),
    (lambda: ck.conv2d(x, w, threads=0), ck.OptionError, 'threads=0 must be at least 1'),
    (lambda: ck.conv2d(x, w, threads=1.5), ck.OptionError, 'threads=1.5 must be a whole number'),
    (lambda: ck.conv2d(x, w, max_workspace=-1), ck.OptionError, 'max_workspace=-1 must be a whole number of bytes, at least 0'),
    (lambda: ck.conv2d(x, w, max_workspace="1GB"), ck.OptionError, "max_workspace='1GB' must be a whole number of bytes, at least 0"),
    (lambda: ck.conv2d(x, w, max_workspace=True), ck.OptionError, 'max_workspace=True must be a whole number of bytes, at least 0'),
    (lambda: ck.conv2d(x, w, strategy="im2col", max_workspace=100), ck.WorkspaceError, "max_workspace=100 bytes is too small for strategy='im2col': 872 would do"),
    (lambda: ck.conv2d(x, w, max_workspace=100), ck.WorkspaceError, 'max_workspace=100 bytes is too small for every fast strategy: 464 would do'),
    (lambda: ck.conv2d(x, w, out=[1]), ck.OptionError, 'out is a list, must be an array'),
    (lambda: ck.conv2d(x, w, out=np.zeros((2, 4, 6, 7))), ck.ShapeError, 'out has shape (2, 4, 6, 7), must have (2, 4, 6, 6)'),
    (lambda: ck.conv2d(x, w, out=np.zeros((2, 4, 6, 6), np.float32)), ck.DTypeError, 'out has dtype float32, must have float64'),
    (lambda: ck.conv2d(x, w, out=np.zeros((2, 4, 6, 6), ">f8")), ck.DTypeError, 'out has dtype >f8, must have float64'),
    (lambda: ck.conv2d(x, w, out=READ_ONLY), ck.OptionError, 'out is read-only, must be writable'),
    (lambda: ck.conv2d(x, w, out=np.lib.stride_tricks.as_strided(np.zeros(100), (2, 4, 6, 6), (8, 8, 8, 8))), ck.OverlapError, 'out overlaps itself in memory (strides (8, 8, 8, 8)), must not'),
    (lambda: ck.conv2d(SHARED, w, out=SHARED.reshape(-1)[:288].reshape(2, 4, 6, 6)), ck.OverlapError, 'out shares memory with an input, must not'),
    (lambda: ck.conv2d(x > 0, w), ck.DTypeError, 'x has dtype bool, must be integer, floating or complex'),
    (lambda: ck.conv2d(x, w.astype(object)), ck.DTypeError, 'w has dtype object, must be integer, floating or complex'),
    (lambda: ck.conv2d(x, w.astype(str)), ck.DTypeError, 'w has dtype <U32, must be integer, floating or complex'),
    (lambda: ck.conv2d(x.astype("datetime64[s]"), w), ck.DTypeError, 'x has dtype datetime64[s], must be integer, floating or complex'),
    (lambda: ck.conv2d(x.astype(np.uint64), w.astype(np.int64)), ck.DTypeError, 'uint64 mixed with signed integers has no common integer type (x uint64, w int64); convert one of them'),
    (lambda: ck.conv2d(np.ma.masked_array(x), w), ck.DTypeError, 'x is a masked array, whose mask would be lost: fill it first'),
    (lambda: ck.conv2d(x, w, stride=(1, (2, 3))), ck.OptionError, "stride=(2, 3) must be a whole number"),
    (lambda: ck.conv2d(x, w, padding=((1, (2, 3)), (1, 1))), ck.OptionError, "padding=(2, 3) must be a whole number"),
    (lambda: ck.conv2d(x, w, weight_layout=["OIHW"]), ck.LayoutError, "weight_layout=['OIHW'] must be a string of axis letters, such as 'OIHW'"),
    (lambda: ck.conv2d(x, w, padding_mode=["zeros"]), ck.OptionError, "padding_mode=['zeros'] must be one of 'zeros', 'reflect', 'replicate', 'circular' (nearest: 'zeros')"),
    (lambda: ck.conv2d(x, w, max_workspace=np.array([1, 2])), ck.OptionError, "max_workspace=array([1, 2]) must be a whole number of bytes, at least 0"),
    (lambda: ck.conv2d(x, w, out=np.ma.zeros((2, 4, 6, 6))), ck.OptionError, "out is a MaskedArray, must be an array"),
]

# The same for other calls, with the whole message.
OTHERS = [
    (lambda: ck.conv2d(x[0], w), ck.ShapeError, "conv2d: x has 3 axes, layout 'NCHW' has 4; arrays are batched: add an axis of one for 'N' (x has shape (6, 8, 8), layout 'NCHW')"),
    (lambda: ck.conv2d(x[None], w), ck.ShapeError, "conv2d: x has 5 axes, layout 'NCHW' has 4 (x has shape (1, 2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.conv1d(np.zeros((2, 6, 8)), w), ck.ShapeError, "conv1d: w has 4 axes, layout 'OIW' has 3 (x has shape (2, 6, 8), layout 'NCW')"),
    (lambda: ck.conv3d(x, w), ck.ShapeError, "conv3d: x has 4 axes, layout 'NCDHW' has 5; arrays are batched: add an axis of one for 'N' (x has shape (2, 6, 8, 8), layout 'NCDHW')"),
    (lambda: ck.conv2d(x_last, np.zeros((3, 3, 2, 8)), groups=4, layout="NHWC"), ck.ShapeError, "conv2d: in_channels=6 must be divisible by groups=4 (x has shape (2, 8, 8, 6), layout 'NHWC')"),
    (lambda: ck.conv2d(np.zeros((2, 0, 8, 8)), np.zeros((4, 0, 3, 3))), ck.ShapeError, "conv2d: x has size 0 along 'C', must have at least 1 (x has shape (2, 0, 8, 8), layout 'NCHW')"),
    (lambda: ck.conv2d(np.zeros((2, 6, 0, 8)), w), ck.ShapeError, "conv2d: the spatial axes have sizes (0, 8), each must be at least 1 (x has shape (2, 6, 0, 8), layout 'NCHW')"),
    (lambda: ck.conv2d(x, w, layout="NCWX"), ck.LayoutError, "conv2d: layout='NCWX' must name each axis once, in any order: a permutation of 'NCW', 'NCHW', 'NCDHW' (x has shape (2, 6, 8, 8), layout 'NCWX')"),
    (lambda: ck.conv2d(x, w, layout="NCW"), ck.LayoutError, "conv2d: layout='NCW' has the spatial axes 'W', must have 'HW': a permutation of 'NCHW' (x has shape (2, 6, 8, 8), layout 'NCW')"),
    (lambda: ck.conv2d(x, w, layout="nchw"), ck.LayoutError, "conv2d: layout='nchw' must name each axis once, in any order: a permutation of 'NCW', 'NCHW', 'NCDHW' (x has shape (2, 6, 8, 8), layout 'nchw')"),
    (lambda: ck.conv2d(x, w, layout="NCHH"), ck.LayoutError, "conv2d: layout='NCHH' must name each axis once, in any order: a permutation of 'NCW', 'NCHW', 'NCDHW' (x has shape (2, 6, 8, 8), layout 'NCHH')"),
    (lambda: ck.conv2d(x, w, layout=None), ck.LayoutError, "conv2d: layout=None must be a string of axis letters, such as 'NCHW' (x has shape (2, 6, 8, 8), layout None)"),
    (lambda: ck.conv2d(x, w, layout=("N", "C", "H", "W")), ck.LayoutError, "conv2d: layout=('N', 'C', 'H', 'W') must be a string of axis letters, such as 'NCHW' (x has shape (2, 6, 8, 8), layout ('N', 'C', 'H', 'W'))"),
    (lambda: ck.conv2d(np.zeros((6, 8, 8, 2)), w, layout="CHWN"), ck.LayoutError, "conv2d: layout='CHWN' has no usual weight layout: say weight_layout, a permutation of 'OIHW' (x has shape (6, 8, 8, 2), layout 'CHWN')"),
    (lambda: ck.conv2d([[1, 2], [3]], w), ck.ShapeError, "conv2d: x is no array: setting an array element with a sequence. The requested array has an inhomogeneous shape after 1 dimensions. The detected shape was (2,) + inhomogeneous part. (x is a list, layout 'NCHW')"),
    (lambda: ck.conv2d(None, w), ck.ShapeError, "conv2d: x has 0 axes, layout 'NCHW' has 4 (x is a NoneType, layout 'NCHW')"),
    (lambda: ck.conv2d(np.full((1, 1, 2, 2), 2**40), np.full((1, 1, 2, 2), 2**40)), ck.IntegerOverflowError, "conv2d: sums of this data could reach 4835703278458516698824704, int64 holds 9223372036854775807: convert to float64 (x has shape (1, 1, 2, 2), layout 'NCHW')"),
    (lambda: ck.conv2d(np.full((1, 1, 2, 2), 2**63, np.uint64), np.full((1, 1, 1, 1), 3, np.uint64)), ck.IntegerOverflowError, "conv2d: sums of this data could reach 27670116110564327424, uint64 holds 18446744073709551615: convert to float64 (x has shape (1, 1, 2, 2), layout 'NCHW')"),
    (lambda: ck.conv2d_input_grad(np.zeros((2, 4, 6, 5)), w, x_shape=x.shape), ck.ShapeError, "conv2d_input_grad: dy has shape (2, 4, 6, 5), must have (2, 4, 6, 6) as the output has (dy has shape (2, 4, 6, 5), layout 'NCHW')"),
    (lambda: ck.conv2d_input_grad(dy, w, x_shape=(2, 6, 8)), ck.ShapeError, "conv2d_input_grad: x_shape=(2, 6, 8) has 3 axes, layout 'NCHW' has 4 (dy has shape (2, 4, 6, 6), layout 'NCHW')"),
    (lambda: ck.conv2d_input_grad(dy, w, x_shape=8), ck.OptionError, "conv2d_input_grad: x_shape=8 must be a sequence of 4 whole numbers (dy has shape (2, 4, 6, 6), layout 'NCHW')"),
    (lambda: ck.conv2d_input_grad(dy, w, x_shape=(2, 6, 8.0, 8)), ck.OptionError, "conv2d_input_grad: x_shape=8.0 must be a whole number (dy has shape (2, 4, 6, 6), layout 'NCHW')"),
    (lambda: ck.conv2d_input_grad(dy, w, x_shape=(2, 5, 8, 8)), ck.ShapeError, "conv2d_input_grad: w has 6 input channels in a group, must have in_channels/groups=5/1=5 (dy has shape (2, 4, 6, 6), layout 'NCHW')"),
    (lambda: ck.conv2d_input_grad(dy, w, x_shape=(-2, 6, 8, 8)), ck.ShapeError, "conv2d_input_grad: dy has shape (2, 4, 6, 6), must have (-2, 4, 6, 6) as the output has (dy has shape (2, 4, 6, 6), layout 'NCHW')"),
    (lambda: ck.conv2d_weight_grad(x, np.zeros((3, 4, 6, 6)), kernel_size=3), ck.ShapeError, "conv2d_weight_grad: dy has shape (3, 4, 6, 6), must have (2, 4, 6, 6) as the output has (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.conv2d_weight_grad(x, dy, kernel_size=0), ck.OptionError, "conv2d_weight_grad: kernel_size=0 must be at least 1 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.conv2d_weight_grad(x, dy, kernel_size=(3, 3, 3)), ck.OptionError, "conv2d_weight_grad: kernel_size=(3, 3, 3) has 3 entries, must be one number or 2 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.conv2d_weight_grad(x, dy, kernel_size=4), ck.ShapeError, "conv2d_weight_grad: dy has shape (2, 4, 6, 6), must have (2, 4, 5, 5) as the output has (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.conv2d_weight_grad(x, dy, kernel_size=3, groups=4), ck.ShapeError, "conv2d_weight_grad: in_channels=6 must be divisible by groups=4 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.conv2d_vjp(x, w)[1](np.zeros((2, 4, 6, 5))), ck.ShapeError, "conv2d_vjp's vjp: dy has shape (2, 4, 6, 5), must have (2, 4, 6, 6) as the output has (dy has shape (2, 4, 6, 5), layout 'NCHW')"),
    (lambda: ck.conv2d_vjp(x, w)[1](dy, wrt="x"), ck.OptionError, "conv2d_vjp's vjp: wrt='x' must be a sequence of 'x', 'w', 'b' (dy has shape (2, 4, 6, 6), layout 'NCHW')"),
    (lambda: ck.conv2d_vjp(x, w)[1](dy, wrt=("x", "y")), ck.OptionError, "conv2d_vjp's vjp: wrt=('x', 'y') must be a sequence of 'x', 'w', 'b' (dy has shape (2, 4, 6, 6), layout 'NCHW')"),
    (lambda: ck.depthwise_conv2d(x, np.zeros((6, 2, 3, 3))), ck.ShapeError, "depthwise_conv2d: w has 2 input channels in a group, must have in_channels/groups=6/6=1 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.depthwise_conv2d(x, np.zeros((7, 1, 3, 3))), ck.ShapeError, "depthwise_conv2d: out_channels=7 must be divisible by groups=6 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.separable_conv2d(x, np.zeros((6, 1, 3, 3)), np.zeros((4, 6, 3, 3))), ck.ShapeError, "separable_conv2d: pointwise_w has 6 input channels and spatial sizes (3, 3), must have depthwise_w's 6 output channels and sizes of 1 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.separable_conv2d(x, np.zeros((6, 1, 3, 3)), np.zeros((4, 5, 1, 1))), ck.ShapeError, "separable_conv2d: pointwise_w has 5 input channels and spatial sizes (1, 1), must have depthwise_w's 6 output channels and sizes of 1 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x[0], 2), ck.ShapeError, "max_pool2d: x has 3 axes, layout 'NCHW' has 4; arrays are batched: add an axis of one for 'N' (x has shape (6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x, 0), ck.OptionError, "max_pool2d: window=0 must be at least 1 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x, 9), ck.ShapeError, "max_pool2d: the window extends over 9 cells of spatial axis 0 (kernel_size=9, dilation=1), more than the padded input's 8 + 0 + 0 = 8 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x, (2, 2, 2)), ck.OptionError, "max_pool2d: window=(2, 2, 2) has 3 entries, must be one number or 2 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x, 2.5), ck.OptionError, "max_pool2d: window=2.5 must be a whole number (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x, 2, stride=0), ck.OptionError, "max_pool2d: stride=0 must be at least 1 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x, 2, padding=2), ck.ShapeError, "max_pool2d: window 0 of spatial axis 0 would hold no cell of the input, only padding (in=8, kernel_size=2, stride=2, padding=(2, 2), dilation=1) (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x, 3, stride=1, padding=((0, 3), (0, 0))), ck.ShapeError, "max_pool2d: window 8 of spatial axis 0 would hold no cell of the input, only padding (in=8, kernel_size=3, stride=1, padding=(0, 3), dilation=1) (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x[:, :, :2], 2, dilation=3, padding=1, stride=1), ck.ShapeError, "max_pool2d: window 0 of spatial axis 0 would hold no cell of the input, only padding (in=2, kernel_size=2, stride=1, padding=(1, 1), dilation=3) (x has shape (2, 6, 2, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x, 2, ceil_mode=1), ck.OptionError, "max_pool2d: ceil_mode=1 must be True or False (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x, 2, ties="random"), ck.OptionError, "max_pool2d: ties='random' must be one of 'first', 'last', 'split', 'all' (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x, 2, padding_mode="edge"), ck.OptionError, "max_pool2d: padding_mode='edge' must be one of 'zeros', 'reflect', 'replicate', 'circular' (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x, 2, strategy="fast"), ck.UnknownStrategyError, "max_pool2d: strategy='fast' is not one of pool's: 'auto', 'direct', 'stride_tricks', 'im2col', 'naive' (nearest: 'auto') (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x.astype(complex), 2), ck.DTypeError, "max_pool2d: reducer 'max' takes signed integer, unsigned integer, floating elements, not complex128 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(np.zeros((1, 0, 4, 4)), 2), ck.ShapeError, "max_pool2d: x has size 0 along 'C', must have at least 1 (x has shape (1, 0, 4, 4), layout 'NCHW')"),
    (lambda: ck.max_pool2d_vjp(x, 2)[1](np.zeros((2, 6, 4, 3))), ck.ShapeError, "max_pool2d_vjp's vjp: dy has shape (2, 6, 4, 3), must have (2, 6, 4, 4) as the output has (dy has shape (2, 6, 4, 3), layout 'NCHW')"),
    (lambda: ck.max_pool2d_vjp(x, 2)[1](np.zeros((6, 4, 4))), ck.ShapeError, "max_pool2d_vjp's vjp: dy has 3 axes, layout 'NCHW' has 4; arrays are batched: add an axis of one for 'N' (dy has shape (6, 4, 4), layout 'NCHW')"),
    (lambda: ck.avg_pool2d(x.astype(int), 2), ck.DTypeError, "avg_pool2d: reducer 'mean' takes floating, complex elements, not int64 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.avg_pool2d(x, 2, count_include_pad=0), ck.OptionError, "avg_pool2d: count_include_pad=0 must be True or False (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.avg_pool2d(x, 2, divisor_override=0), ck.OptionError, "avg_pool2d: divisor_override=0 must be at least 1 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.avg_pool2d(x, 2, divisor_override=1.5), ck.OptionError, "avg_pool2d: divisor_override=1.5 must be a whole number (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.pool2d(x, 2, "median"), ck.OptionError, "pool2d: reducer='median' is not known; there are 'max', 'max_ties-last', 'max_ties-split', 'max_ties-all', 'min', 'min_ties-last', 'min_ties-split', 'min_ties-all', 'mean', 'sum', 'lp<p>', 'logsumexp<t>' (nearest: 'mean') (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.pool2d(x, 2, "maxx"), ck.OptionError, "pool2d: reducer='maxx' is not known; there are 'max', 'max_ties-last', 'max_ties-split', 'max_ties-all', 'min', 'min_ties-last', 'min_ties-split', 'min_ties-all', 'mean', 'sum', 'lp<p>', 'logsumexp<t>' (nearest: 'max') (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.pool2d(x, 2, "lp0"), ck.OptionError, "pool2d: p=0.0 must be above 0 (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.pool2d(x, 2, max), ck.OptionError, "pool2d: reducer=<built-in function max> must be a Reducer or the name of one (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.pool2d(x, 2, middle, padding=1), ck.UnsupportedError, "pool2d: reducer 'middle' has no pad_value: some windows reach beyond the input (in=(8, 8), kernel_size=(2, 2), padding=((1, 1), (1, 1)), ceil_mode=False) (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.pool2d_vjp(x, 2, middle), ck.UnsupportedError, "pool2d_vjp: reducer 'middle' has no gradient (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.pool2d(np.full((1, 1, 2, 2), 2**62), 2, "sum"), ck.IntegerOverflowError, "pool2d: sums of this data could reach 18446744073709551616, int64 holds 9223372036854775807: convert to float64 (x has shape (1, 1, 2, 2), layout 'NCHW')"),
    (lambda: ck.lp(0), ck.OptionError, 'p=0 must be above 0'),
    (lambda: ck.lp(float("inf")), ck.OptionError, 'p=inf must be finite'),
    (lambda: ck.lp("2"), ck.OptionError, "p='2' must be a number"),
    (lambda: ck.logsumexp(0), ck.OptionError, 't=0 has no limit: use the mean'),
    (lambda: ck.logsumexp(True), ck.OptionError, 't=True must be a number'),
    (lambda: ck.maximum("none"), ck.OptionError, "ties='none' must be one of 'first', 'last', 'split', 'all'"),
    (lambda: ck.Reducer("Max", None, np.max), ck.OptionError, "reducer name 'Max' must be lower-case letters, digits, dots and dashes, and not a word that problem strings use otherwise (bias, ceil, nopad, zeros, reflect, replicate, circular, auto, a dtype)"),
    (lambda: ck.Reducer("float32", None, np.max), ck.OptionError, "reducer name 'float32' must be lower-case letters, digits, dots and dashes, and not a word that problem strings use otherwise (bias, ceil, nopad, zeros, reflect, replicate, circular, auto, a dtype)"),
    (lambda: ck.register_reducer(ck.Reducer("max", None, np.max)), ck.OptionError, "reducer name 'max' is taken"),
    (lambda: ck.register_reducer("max"), ck.OptionError, "reducer='max' must be a Reducer"),
    (lambda: ck.register("conv", "im2col", print), ck.OptionError, "conv has a strategy 'im2col' already"),
    (lambda: ck.register("convolve", "mine", print), ck.OptionError, "operation='convolve' must be one of 'conv', 'conv_input_grad', 'conv_weight_grad', 'conv_transpose', 'pool', 'pool_grad', 'batch_norm', 'batch_norm_grad', 'batch_norm_train', 'batch_norm_train_grad', 'group_norm', 'group_norm_grad', 'local_response_norm', 'local_response_norm_grad' (nearest: 'conv')"),
    (lambda: ck.register("conv", "auto", print), ck.OptionError, "strategy name 'auto' must be a non-empty string other than 'auto'"),
    (lambda: ck.register("conv", "mine", None), ck.OptionError, 'run=None must be callable'),
    (lambda: ck.register("conv", "mine", print, before="fast"), ck.UnknownStrategyError, "before='fast' is not one of conv's: 'fft', 'depthwise', 'winograd', 'direct', 'im2col', 'stride_tricks', 'naive' (nearest: 'fft')"),
    (lambda: ck.register("conv", "mine", print, claims=["quick"]), ck.OptionError, "claim 'quick' must be one of 'exact_on_integers', 'batch_invariant', 'nan_strict', 'bounded', 'bounded_tile'"),
    (lambda: ck.unregister("conv", "mine"), ck.UnknownStrategyError, "strategy='mine' is not one of conv's: 'auto', 'fft', 'depthwise', 'winograd', 'direct', 'im2col', 'stride_tricks', 'naive'"),
    (lambda: ck.parse_problem("n1c64_in8_k2"), ck.OptionError, "problem 'n1c64_in8_k2' is not of the form [operation:]n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1[_option...][_dtype]"),
    (lambda: ck.parse_problem("conf:n1g1i4o4_in8_k2_s1_p0+0_d1"), ck.OptionError, "problem 'conf:n1g1i4o4_in8_k2_s1_p0+0_d1': operation 'conf' must be one of 'conv', 'conv_input_grad', 'conv_weight_grad', 'conv_transpose', 'norm', 'batch_norm', 'batch_norm_grad', 'batch_norm_train', 'batch_norm_train_grad', 'group_norm', 'group_norm_grad', 'local_response_norm', 'local_response_norm_grad', 'pool', 'pool_grad' (nearest: 'conv')"),
    (lambda: ck.parse_problem("n1c4_in8_k2_s1_p0+0_d1"), ck.OptionError, "problem 'n1c4_in8_k2_s1_p0+0_d1': the channels must be given as n..g..i..o.., not n..c.."),
    (lambda: ck.parse_problem("n1g3i4o4_in8_k2_s1_p0+0_d1"), ck.ShapeError, "problem 'n1g3i4o4_in8_k2_s1_p0+0_d1': i4 must be divisible by g3"),
    (lambda: ck.parse_problem("n1g1i4o4_in8x8_k2_s1_p0+0_d1"), ck.OptionError, "problem 'n1g1i4o4_in8x8_k2_s1_p0+0_d1': 'k' has 1 entries, 'in' has 2"),
    (lambda: ck.parse_problem("n1g1i4o4_in8_k9_s1_p0+0_d1"), ck.ShapeError, "problem 'n1g1i4o4_in8_k9_s1_p0+0_d1': the window extends over 9 cells of spatial axis 0 (kernel_size=9, dilation=1), more than the padded input's 8 + 0 + 0 = 8"),
    (lambda: ck.parse_problem("n1g1i4o4_in8_k2_s1_p0+0_d1_ceil"), ck.OptionError, "problem 'n1g1i4o4_in8_k2_s1_p0+0_d1_ceil': option 'ceil' is not one of conv's"),
    (lambda: ck.parse_problem("n1g1i4o4_in8_k2_s1_p0+0_d1_bool"), ck.OptionError, "problem 'n1g1i4o4_in8_k2_s1_p0+0_d1_bool': option 'bool' is not one of conv's"),
    (lambda: ck.parse_problem("n1g1i4o4_in8_k2_s1_p0+0_d1_8p-2"), ck.OptionError, "problem 'n1g1i4o4_in8_k2_s1_p0+0_d1_8p-2': option '8p-2' is not one of conv's"),
    (lambda: ck.parse_problem("pool:n1c4_in8_k2_s1_p0+0_d1"), ck.OptionError, "problem 'pool:n1c4_in8_k2_s1_p0+0_d1': reducer='' is not known; there are 'max', 'max_ties-last', 'max_ties-split', 'max_ties-all', 'min', 'min_ties-last', 'min_ties-split', 'min_ties-all', 'mean', 'sum', 'lp<p>', 'logsumexp<t>'"),
    (lambda: ck.parse_problem(7), ck.OptionError, 'problem 7 is not of the form [operation:]n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1[_option...][_dtype]'),
    (lambda: ck.set_config(max_workspace=1.5), ck.OptionError, 'max_workspace=1.5 must be a whole number of bytes, at least 0'),
    (lambda: ck.set_config(precision="low"), ck.OptionError, "precision='low' must be one of 'default', 'highest'"),
    (lambda: ck.set_config(threads=-2), ck.OptionError, 'threads=-2 must be at least 1'),
    (lambda: ck.conv2d(x, w, layout=["NCHW"]), ck.LayoutError, "conv2d: layout=['NCHW'] must be a string of axis letters, such as 'NCHW' (x has shape (2, 6, 8, 8), layout ['NCHW'])"),
    (lambda: ck.max_pool2d(x, 2, ties=["first"]), ck.OptionError, "max_pool2d: ties=['first'] must be one of 'first', 'last', 'split', 'all' (nearest: 'first') (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.max_pool2d(x, 2, ceil_mode=np.array(True)), ck.OptionError, "max_pool2d: ceil_mode=array(True) must be True or False (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.avg_pool2d(x, 2, count_include_pad=[True]), ck.OptionError, "avg_pool2d: count_include_pad=[True] must be True or False (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.avg_pool2d(x, 2, divisor_override=[3]), ck.OptionError, "avg_pool2d: divisor_override=(3,) must be a whole number (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.conv2d_input_grad(dy, w, x_shape=((1, 2), 6, 8, 8)), ck.OptionError, "conv2d_input_grad: x_shape=(1, 2) must be a whole number (dy has shape (2, 4, 6, 6), layout 'NCHW')"),
    (lambda: ck.conv2d_vjp(x, w)[1](dy, wrt=None), ck.OptionError, "conv2d_vjp's vjp: wrt=None must be a sequence of 'x', 'w', 'b' (dy has shape (2, 4, 6, 6), layout 'NCHW')"),
    (lambda: ck.conv2d_vjp(x, w)[1](dy, wrt=[["x"]]), ck.OptionError, "conv2d_vjp's vjp: wrt=[['x']] must be a sequence of 'x', 'w', 'b' (dy has shape (2, 4, 6, 6), layout 'NCHW')"),
    (lambda: ck.conv2d_vjp(x, w, b)[1](dy > 0, wrt=["b"]), ck.DTypeError, "conv2d_vjp's vjp: dy has dtype bool, must be integer, floating or complex (dy has shape (2, 4, 6, 6), layout 'NCHW')"),
    (lambda: ck.Reducer("mine", None, 3), ck.OptionError, "reducer 'mine' has 3 where a function must be"),
    (lambda: ck.Reducer("mine", None, np.max, kinds="fz"), ck.OptionError, "kinds='fz' of reducer 'mine' must be letters of 'iufc'"),
    (lambda: ck.pool2d(x, 2, ck.Reducer("max", None, np.max)), ck.OptionError, "pool2d: reducer name 'max' is that of a built-in one: give yours another (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.pool2d(x, 2, ck.Reducer("scalar", None, lambda windows, axes, count: windows.max())), ck.ShapeError, "pool2d: reduce of reducer 'scalar' returned shape (), must return (2, 6, 4, 4) (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.pool2d(x.astype(int), 2, ck.Reducer("own-mean", None, lambda windows, axes, count: windows.mean(axes))), ck.DTypeError, "pool2d: reduce of reducer 'own-mean' returned float64 for int64 cells: see `kinds` (x has shape (2, 6, 8, 8), layout 'NCHW')"),
    (lambda: ck.unregister_reducer("mine"), ck.OptionError, "reducer 'mine' is not registered"),
    (lambda: ck.separable_conv2d(x, np.zeros((6, 1, 3, 3)), np.zeros((6, 6, 1, 1)), padding=1, out=x), ck.OverlapError, "separable_conv2d: out shares memory with an input, must not (x has shape (2, 6, 8, 8), layout 'NCHW')"),
]
# fmt: on


@pytest.mark.parametrize(("call", "error", "cause"), CONV2D, ids=[cause[:60] for *_, cause in CONV2D])
def test_conv2d_refuses(call, error, cause):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert str(caught.value) == f"conv2d: {cause} (x has shape (2, 6, 8, 8), layout 'NCHW')"


@pytest.mark.parametrize(("call", "error", "message"), OTHERS, ids=[message[:60] for *_, message in OTHERS])
def test_others_refuse(call, error, message):
    assert_refused(call, error, message)


def test_the_classes_are_the_builtin_ones_too():
    builtin = {
        ck.ShapeError: ValueError,
        ck.OptionError: ValueError,
        ck.LayoutError: ValueError,
        ck.DTypeError: TypeError,
        ck.DataError: ValueError,
        ck.OrderError: RuntimeError,
        ck.OverlapError: ValueError,
        ck.IntegerOverflowError: OverflowError,
        ck.UnknownStrategyError: ValueError,
        ck.UnsupportedError: NotImplementedError,
        ck.WorkspaceError: MemoryError,
    }
    for error, base in builtin.items():
        assert issubclass(error, ck.ConvkernelsError)
        assert issubclass(error, base)


def test_an_unknown_keyword_is_a_type_error_with_the_nearest():
    with pytest.raises(TypeError, match=r"conv2d\(\) has no keyword 'strides'.*\(nearest: 'stride'\)"):
        ck.conv2d(x, w, strides=2)


def test_a_missing_argument_is_a_type_error_that_names_it():
    with pytest.raises(TypeError, match=r"^conv\(\) missing 1 required positional argument: 'w'"):
        ck.conv2d(x)


def test_explain_refuses_what_it_does_not_know():
    with pytest.raises(ck.OptionError, match=r"^explain: 'conv4d' is neither a problem string nor one of .*'conv2d'"):
        ck.explain("conv4d", x, w)


def test_a_refused_call_leaves_everything_as_it_was():
    out = np.full((2, 4, 6, 6), 7.0)
    for options in ({"stride": 0}, {"strategy": "none"}, {"max_workspace": 1}, {"groups": 4}, {"dilation": 4}):
        with pytest.raises(ck.ConvkernelsError):
            ck.conv2d(x, w, out=out, **options)
    assert (out == 7).all()
    before = ck.get_config()
    with pytest.raises(ck.OptionError):
        ck.set_config(threads=2, precision="low")
    assert ck.get_config() == before


def test_options_that_equal_good_ones_are_still_refused_once_the_good_ones_are_remembered():
    ck.conv2d(x, w, stride=1, padding=((1, 1), (1, 1)))
    for bad in ({"stride": True}, {"stride": 1.0}, {"padding": ((True, 1), (1, 1))}, {"padding": ((1.0, 1), (1, 1))}):
        with pytest.raises(ck.OptionError):
            ck.conv2d(x, w, **bad)
