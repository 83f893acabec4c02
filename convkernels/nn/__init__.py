"""Networks of this package's convolutions, pools and norms: layers, optimisers, and how their state is kept."""

from .containers import Residual, Sequential
from .convolution import Conv1d, Conv2d, Conv3d, ConvTranspose2d
from .dense import Dropout, Dropout2d, Flatten, Linear, ReLU
from .layer import Layer, Parameter
from .norms import BatchNorm, GroupNorm, LayerNorm
from .optimisers import SGD, Adam, AdamW, Optimiser, RMSProp
from .pooling import AvgPool, GlobalAvgPool, MaxPool
from .saving import load_arrays, save_arrays

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
    "Sequential",
    "load_arrays",
    "save_arrays",
]
