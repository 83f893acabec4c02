"""The picture filters of the demonstration: convolutions, in either layout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convkernels.conv import conv2d
from convkernels.layout import Array, Layout
from convkernels.separable import depthwise_conv2d

PHOTO = Layout("NHWC")

GREY_AND_EDGES = np.zeros((2, 3, 3, 3))
GREY_AND_EDGES[0, :, 1, 1] = 0.3, 0.6, 0.1
GREY_AND_EDGES[1, 2] = [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]
GREY_AND_EDGES_BIAS = np.array([0.0, 128.0])

BLUR = np.full((5, 5), 1 / 25)
SHARPEN = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], float)
OUTLINE = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], float)


def filtered(photo: Array, layout: str) -> dict[str, Array]:
    """Run every filter on a photo.

    Parameters
    ----------
    photo : ndarray
        RGB, of shape (H, W, 3).
    layout : str
        The layout to convolve in.

    Returns
    -------
    dict of str to ndarray
        By the filter's name its result of shape (H, W) or (H, W, 3), as it left the convolution: not clipped.
    """
    data = Layout(layout)
    x = np.ascontiguousarray(data.restore(PHOTO.view(photo[None].astype(np.float64))))

    def run(convolve: Callable[..., Array], w: Array, b: Array | None = None) -> Array:
        padding = w.shape[-1] // 2
        y = convolve(x, w, b, padding=padding, layout=layout, weight_layout="OIHW")
        result: Array = PHOTO.restore(data.view(y))[0]
        return result

    def each_channel(w: Array) -> Array:
        return run(depthwise_conv2d, np.broadcast_to(w, (3, 1, *w.shape)))

    both = run(conv2d, GREY_AND_EDGES, GREY_AND_EDGES_BIAS)
    return {
        "greyscale": both[..., 0],
        "horizontal edges": both[..., 1],
        "blur": each_channel(BLUR),
        "sharpen": each_channel(SHARPEN),
        "outline": each_channel(OUTLINE),
    }


def as_pixels(result: Array) -> Array:
    """Clip a filter's result to what a screen shows."""
    return np.rint(result).clip(0, 255).astype(np.uint8)
