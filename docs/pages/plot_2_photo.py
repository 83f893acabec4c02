"""
A photo and its filters
=======================

A convolution with two filters turns a photo to greyscale and finds its horizontal edges; depthwise convolutions blur
and sharpen each colour by itself.
"""

import matplotlib.pyplot as plt
import numpy as np

import convkernels as ck
from convkernels.nn.data import PHOTOS_CREDIT, sample_images

photo = sample_images()["china"]
x = photo[np.newaxis].astype(np.float64)  # NHWC

# %%
# The first filter weighs red, green and blue in its centre tap. The second takes differences of rows, in blue; a bias
# of 128 makes what does not change grey.
w, b = np.zeros((3, 3, 3, 2)), np.array([0.0, 128.0])
w[1, 1, :, 0] = 0.3, 0.6, 0.1
w[:, :, 2, 1] = [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]
y = ck.conv2d(x, w, b, padding="same", layout="NHWC")[0]

# %%
# Blur, sharpen and outline have a filter for each channel: a depthwise convolution.
FILTERS = {
    "blur": np.full((9, 9), 1 / 81),
    "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], float),
    "outline": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], float),
}


def each_channel(taps):
    return ck.depthwise_conv2d(
        x, np.broadcast_to(taps, (3, 1, *taps.shape)), padding="same", layout="NHWC", weight_layout="OIHW"
    )[0]


pictures = {"the photo": photo, "greyscale": y[..., 0], "horizontal edges": y[..., 1]}
pictures |= {name: each_channel(taps) for name, taps in FILTERS.items()}
figure, places = plt.subplots(2, 3, figsize=(12, 6), layout="constrained")
for axes, (name, picture) in zip(places.flat, pictures.items(), strict=True):
    axes.imshow(np.clip(picture, 0, 255).astype(np.uint8), cmap="gray", vmin=0, vmax=255)
    axes.set_title(name)
    axes.set_axis_off()
figure.supxlabel(PHOTOS_CREDIT, fontsize=8)
plt.show()
