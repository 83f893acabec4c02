"""Draws front.png, the picture of the README: what a few calls make of a photo.

Run it with ``python docs/images/front.py``; it needs the extra ``cli``. Letters are of a grey that can be read on white
and on black, between them nothing is drawn.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import convkernels as ck
from convkernels.cli.pictures import sample_photos

GREY = "#7d8590"
SIDE = 210
"""Pixels of a photo's part, each of which is drawn as one."""
COLOURS = 96


def results(x):
    """What calls make of a photo of shape (1, H, W, 3), by how they are written."""
    laplacian = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]])
    w = np.einsum("ij,co->ijco", laplacian, np.eye(3)).astype(x.dtype)  # of each colour by itself
    edges = ck.conv2d(x, w, padding="same", padding_mode="replicate", layout="NHWC")
    median = ck.Reducer("median", None, lambda windows, axes, count: np.median(windows, axes))
    part = x[:, 60:130, 70:140]
    y, vjp = ck.max_pool2d_vjp(part, 3, layout="NHWC")
    return {
        "x": x,
        "conv2d(x, w)": 255 - 0.4 * np.abs(edges),
        "pool2d(x, 9, median)": ck.pool2d(x, 9, median, stride=1, layout="NHWC"),
        "max_pool2d(x, 10)": magnified(ck.max_pool2d(x, 10, layout="NHWC"), 10),
        "vjp of max_pool2d(x, 3)": magnified(vjp(y), 3),
    }


def magnified(x, factor):
    """Each pixel as a square."""
    return x.repeat(factor, 1).repeat(factor, 2)


def main():
    """Write the picture beside this file."""
    photo = next(photo.pixels for photo in sample_photos() if photo.name == "china")
    x = photo[None, 90 : 90 + SIDE, 150 : 150 + SIDE].astype(np.float32)
    drawn = results(x)
    dpi, gap, head = 100, 14, 22
    width, height = len(drawn) * (SIDE + gap) - gap, SIDE + head
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
    for place, (title, y) in enumerate(drawn.items()):
        left = place * (SIDE + gap) / width
        axes = figure.add_axes((left, 0, SIDE / width, SIDE / height))
        axes.imshow(y[0].clip(0, 255).astype(np.uint8), interpolation="nearest")
        axes.set_axis_off()
        middle = left + SIDE / width / 2
        style = {"ha": "center", "va": "top", "fontsize": 10, "family": "monospace", "color": GREY}
        figure.text(middle, 1 - 4 / height, title, **style)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    picture = Image.open(buffer).quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    picture.save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
