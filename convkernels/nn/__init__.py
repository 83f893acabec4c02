"""Networks of this package's convolutions, pools and norms: layers, optimisers, training, models and data.

>>> from convkernels import nn
>>> net = nn.models.mnist_net(hdims=(32,), generator=0)
>>> net.parameter_count
119530
"""

from . import data, models
from .containers import Residual, Sequential
from .convolution import Conv1d, Conv2d, Conv3d, ConvTranspose2d
from .counting import Summary, summary
from .dense import Dropout, Dropout2d, Flatten, Linear, ReLU
from .gradient_check import check_gradients
from .layer import Layer, Parameter
from .norms import BatchNorm, GroupNorm, LayerNorm
from .optimisers import SGD, Adam, AdamW, Optimiser, RMSProp
from .pooling import AvgPool, GlobalAvgPool, MaxPool
from .saving import load_arrays, save_arrays
from .trainer import Score, Step, Trainer

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "AvgPool",
    "BatchNorm",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose2d",
    "Dropout",
    "Dropout2d",
    "Flatten",
    "GlobalAvgPool",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "Linear",
    "MaxPool",
    "Optimiser",
    "Parameter",
    "RMSProp",
    "ReLU",
    "Residual",
    "Score",
    "Sequential",
    "Step",
    "Summary",
    "Trainer",
    "check_gradients",
    "data",
    "load_arrays",
    "models",
    "save_arrays",
    "summary",
]
