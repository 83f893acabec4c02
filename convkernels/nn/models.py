"""Networks of the courses and of the textbooks; all take pictures in any layout, and return scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from ..errors import OptionError
from .containers import Residual, Sequential
from .convolution import Conv2d
from .dense import Dropout, Dropout2d, Flatten, Linear, ReLU
from .layer import Layer
from .norms import BatchNorm
from .pooling import GlobalAvgPool, MaxPool

Seed = int | np.random.Generator | None


def mnist_net(
    xdim: tuple[int, int, int] = (1, 28, 28),
    cdims: Sequence[int] = (32, 64),
    hdims: Sequence[int] = (1024, 128),
    ydim: int = 10,
    *,
    batch_norm: bool = False,
    dropout: float = 0.5,
    layout: str = "NCHW",
    dtype: DTypeLike = np.float32,
    generator: Seed = None,
) -> Sequential:
    """Make [conv 3x3, (batch norm), ReLU, 2x2 max pool, 2-D dropout] x cdims, flatten, [linear, ReLU] x hdims, linear.

    Parameters
    ----------
    xdim : tuple of int
        Channels, height and width of a picture.
    cdims, hdims : sequence of int
        The channels of the convolutions, and the numbers of the linear layers.
    ydim : int
        The classes.
    batch_norm : bool
        Whether there is one.
    dropout : float
        The rate of the 2-D dropout.
    layout : str
        The axes of a batch.
    dtype : dtype
        That of the parameters.
    generator : int or numpy.random.Generator, optional
        Where weights and dropout are drawn; a number is a seed.

    Returns
    -------
    Sequential
        The network.

    Raises
    ------
    OptionError
        If the pools leave nothing of a picture.

    Examples
    --------
    >>> from convkernels import nn
    >>> nn.summary(nn.models.mnist_net(hdims=(32,)), (1, 1, 28, 28)).parameters
    119530
    """
    rng = np.random.default_rng(generator)
    channels, height, width = xdim
    stages: list[Layer] = []
    for filters in cdims:
        stages.append(Conv2d(channels, filters, 3, padding=1, layout=layout, dtype=dtype, generator=rng))
        if batch_norm:
            stages.append(BatchNorm(filters, layout=layout, dtype=dtype))
        stages += [ReLU(), MaxPool(2, layout=layout), Dropout2d(dropout, layout=layout, generator=rng)]
        channels, height, width = filters, height // 2, width // 2
    if min(height, width) < 1:
        raise OptionError(f"xdim={xdim!r} is too small for {len(cdims)} pools")
    stages.append(Flatten(layout))
    features = channels * height * width
    for hidden in hdims:
        stages += [Linear(features, hidden, dtype=dtype, generator=rng), ReLU()]
        features = hidden
    return Sequential(*stages, Linear(features, ydim, dtype=dtype, generator=rng))


def three_layer_net(
    input_dim: tuple[int, int, int] = (3, 32, 32),
    num_filters: int = 32,
    filter_size: int = 7,
    hidden_dim: int = 100,
    num_classes: int = 10,
    *,
    layout: str = "NCHW",
    dtype: DTypeLike = np.float32,
    generator: Seed = None,
) -> Sequential:
    """Make CS231n's network: conv, ReLU, 2x2 max pool, linear, ReLU, linear.

    Parameters
    ----------
    input_dim : tuple of int
        Channels, height and width of a picture.
    num_filters, filter_size, hidden_dim, num_classes : int
        The convolution's filters and their side, which is odd; the numbers between the linear layers; the classes.
    layout : str
        The axes of a batch.
    dtype : dtype
        That of the parameters.
    generator : int or numpy.random.Generator, optional
        Where weights are drawn; a number is a seed.

    Returns
    -------
    Sequential
        The network.

    Raises
    ------
    OptionError
        If `filter_size` is even.

    Examples
    --------
    >>> from convkernels import nn
    >>> nn.models.three_layer_net(hidden_dim=500).parameter_count
    4106246
    """
    if filter_size % 2 == 0:
        raise OptionError(f"filter_size={filter_size} must be odd, so that the convolution keeps height and width")
    rng = np.random.default_rng(generator)
    channels, height, width = input_dim
    padding = filter_size // 2
    return Sequential(
        Conv2d(channels, num_filters, filter_size, padding=padding, layout=layout, dtype=dtype, generator=rng),
        ReLU(),
        MaxPool(2, layout=layout),
        Flatten(layout),
        Linear(num_filters * (height // 2) * (width // 2), hidden_dim, dtype=dtype, generator=rng),
        ReLU(),
        Linear(hidden_dim, num_classes, dtype=dtype, generator=rng),
    )


def lenet5(
    xdim: tuple[int, int, int] = (1, 28, 28),
    ydim: int = 10,
    *,
    layout: str = "NCHW",
    dtype: DTypeLike = np.float32,
    generator: Seed = None,
) -> Sequential:
    """Make LeNet-5 as it is usually made today: ReLU, max pools, every map seen by every filter.

    LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998).

    Parameters
    ----------
    xdim : tuple of int
        Channels, height and width of a picture; 28x28 is padded to the paper's 32x32.
    ydim : int
        The classes.
    layout : str
        The axes of a batch.
    dtype : dtype
        That of the parameters.
    generator : int or numpy.random.Generator, optional
        Where weights are drawn; a number is a seed.

    Returns
    -------
    Sequential
        The network.

    Raises
    ------
    OptionError
        If a picture is too small.

    Examples
    --------
    >>> from convkernels import nn
    >>> nn.models.lenet5().parameter_count
    61706
    """
    rng = np.random.default_rng(generator)
    conv = partial(Conv2d, layout=layout, dtype=dtype, generator=rng)
    linear = partial(Linear, dtype=dtype, generator=rng)
    channels, *sides = xdim
    height, width = ((side // 2 - 4) // 2 for side in sides)
    if min(height, width) < 1:
        raise OptionError(f"xdim={xdim!r} is too small: the second convolution needs 12x12")
    return Sequential(
        *(conv(channels, 6, 5, padding=2), ReLU(), MaxPool(2, layout=layout)),
        *(conv(6, 16, 5), ReLU(), MaxPool(2, layout=layout)),
        *(Flatten(layout), linear(16 * height * width, 120), ReLU(), linear(120, 84), ReLU(), linear(84, ydim)),
    )


def alexnet(
    ydim: int = 1000,
    *,
    convolutional: bool = False,
    layout: str = "NCHW",
    dtype: DTypeLike = np.float32,
    generator: Seed = None,
) -> Sequential:
    """Make AlexNet for pictures of 3x227x227, without its local response norms.

    Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012). The second,
    fourth and fifth convolution have two groups, each of which was on a graphics card of its own.

    Parameters
    ----------
    ydim : int
        The classes.
    convolutional : bool
        Whether the three dense layers are convolutions, 6x6 and twice 1x1, of the same weights: on a larger picture
        they give a score for each place, and not one alone. The scores then have four axes.
    layout : str
        The axes of a batch.
    dtype : dtype
        That of the parameters.
    generator : int or numpy.random.Generator, optional
        Where weights and dropout are drawn; a number is a seed.

    Returns
    -------
    Sequential
        The network.

    Raises
    ------
    ConvkernelsError
        If `layout` is not one of four axes.

    Examples
    --------
    >>> from convkernels import nn
    >>> net = nn.models.alexnet(generator=0)
    >>> [layer.params["w"].size for _, layer in net.layers() if isinstance(layer, nn.Conv2d)]
    [34848, 307200, 884736, 663552, 442368]
    >>> net.parameter_count
    60965224
    """
    rng = np.random.default_rng(generator)
    conv = partial(Conv2d, layout=layout, dtype=dtype, generator=rng)
    features: list[Layer] = [
        *(conv(3, 96, 11, stride=4), ReLU(), MaxPool(3, stride=2, layout=layout)),
        *(conv(96, 256, 5, padding=2, groups=2), ReLU(), MaxPool(3, stride=2, layout=layout)),
        *(conv(256, 384, 3, padding=1), ReLU()),
        *(conv(384, 384, 3, padding=1, groups=2), ReLU()),
        *(conv(384, 256, 3, padding=1, groups=2), ReLU(), MaxPool(3, stride=2, layout=layout)),
    ]
    if convolutional:
        dense: list[Layer] = [conv(256, 4096, 6), conv(4096, 4096, 1), conv(4096, ydim, 1)]
    else:
        linear = partial(Linear, dtype=dtype, generator=rng)
        features.append(Flatten(layout))
        dense = [linear(256 * 6 * 6, 4096), linear(4096, 4096), linear(4096, ydim)]
    drop = partial(Dropout, 0.5, generator=rng)
    return Sequential(*features, dense[0], ReLU(), drop(), dense[1], ReLU(), drop(), dense[2])


def resnet(
    xdim: tuple[int, int, int] = (3, 32, 32),
    widths: Sequence[int] = (16, 32, 64),
    blocks: int = 1,
    ydim: int = 10,
    *,
    layout: str = "NCHW",
    dtype: DTypeLike = np.float32,
    generator: Seed = None,
) -> Sequential:
    """Make a small residual network for small pictures, of 6 * blocks + 2 layers with three widths.

    He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (2016), section 4.2; the shortcuts that change
    shape are 1x1 convolutions.

    Parameters
    ----------
    xdim : tuple of int
        Channels, height and width of a picture.
    widths : sequence of int
        The channels of each stage; all but the first halve height and width.
    blocks : int
        The residual blocks of a stage.
    ydim : int
        The classes.
    layout : str
        The axes of a batch.
    dtype : dtype
        That of the parameters.
    generator : int or numpy.random.Generator, optional
        Where weights are drawn; a number is a seed.

    Returns
    -------
    Sequential
        The network.

    Raises
    ------
    ConvkernelsError
        If a number is out of range.

    Examples
    --------
    >>> from convkernels import nn
    >>> nn.summary(nn.models.resnet(), (1, 3, 32, 32)).parameters
    78042
    """
    rng = np.random.default_rng(generator)
    # A norm follows each convolution, and would take its bias away.
    conv = partial(Conv2d, bias=False, layout=layout, dtype=dtype, generator=rng)
    norm = partial(BatchNorm, layout=layout, dtype=dtype)
    channels = xdim[0]
    stages: list[Layer] = [conv(channels, widths[0], 3, padding=1), norm(widths[0]), ReLU()]
    channels = widths[0]
    for number, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if number and not block else 1
            body = Sequential(
                *(conv(channels, width, 3, stride=stride, padding=1), norm(width), ReLU()),
                *(conv(width, width, 3, padding=1), norm(width)),
            )
            changes = stride > 1 or channels != width
            shortcut = Sequential(conv(channels, width, 1, stride=stride), norm(width)) if changes else None
            stages += [Residual(body, shortcut), ReLU()]
            channels = width
    return Sequential(
        *stages,
        GlobalAvgPool(layout),
        Flatten(layout),
        Linear(channels, ydim, dtype=dtype, generator=rng),
    )
