"""Photos in, one figure of filtered photos out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]  # ships no types

from convkernels.layout import Array

from .errors import CommandError
from .files import write
from .filters import as_pixels

LARGEST_SIDE = 1024
SAMPLE_CREDIT = (
    "Photos: flickr.com/photos/danielbuechele (china) and flickr.com/photos/vultilion (flower), "
    "CC BY 2.0, as they come with scikit-learn"
)


@dataclass(frozen=True)
class Photo:
    """RGB pixels of shape (H, W, 3), a name, and the width and height from which it was scaled down, if it was."""

    name: str
    pixels: Array
    scaled_from: tuple[int, int] | None = None

    def __str__(self) -> str:
        height, width, _ = self.pixels.shape
        scaled = ", scaled down from {}x{}".format(*self.scaled_from) if self.scaled_from else ""
        return f"{self.name}, {width}x{height}{scaled}"


def printable(path: Path) -> str:
    """Spell a path without the bytes that no encoding has a character for."""
    return str(path).encode(errors="replace").decode()


def sample_photos() -> list[Photo]:
    """Load the two photos that come with scikit-learn."""
    samples = load_sample_images()
    return [Photo(Path(file).stem, pixels) for file, pixels in zip(samples.filenames, samples.images, strict=True)]


def read_photo(file: Path) -> Photo:
    """Read a picture of any format and mode, on white where it is transparent, and not larger than is useful."""
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bits, which Pillow would clip to 8 instead of scaling
                image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
            image = image.convert("RGBA")
    except Exception as error:  # decoders raise anything at all on a broken file
        reason = getattr(error, "strerror", None) or error
        raise CommandError(f"cannot read image {file}: {reason}") from None
    size = image.size
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    pixels = np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))
    return Photo(printable(Path(file.stem)), pixels, size if size != image.size else None)


def draw(rows: Sequence[tuple[Photo, str, dict[str, Array]]], credit: str) -> Figure:
    """Draw a row for each photo and layout, and a column for each of its filters.

    Parameters
    ----------
    rows : sequence of tuple
        A photo, the layout it was convolved in, and the results by filter.
    credit : str
        Stands small below.
    """
    width = 2.6
    heights = [width * min(1.5, max(0.3, photo.pixels.shape[0] / photo.pixels.shape[1])) for photo, _, _ in rows]
    titles = ["original", *rows[0][2]]
    figure = Figure(figsize=(width * len(titles) + 1, sum(heights) + 0.8), dpi=150, layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (photo, layout, results) in zip(grid, rows, strict=True):
        name = textwrap.fill(photo.name, 16, max_lines=2)
        label = {"rotation": "horizontal", "ha": "right", "va": "center", "parse_math": False}
        axes[0].set_ylabel(f"{name}\n{layout}", fontsize=13, **label)
        for place, result in zip(axes, [photo.pixels, *results.values()], strict=True):
            place.imshow(as_pixels(result), cmap="gray", vmin=0, vmax=255)
            place.set(xticks=[], yticks=[])
            place.spines[:].set_visible(False)
    for place, title in zip(grid[0], titles, strict=True):
        place.set_title(title, fontsize=14)
    figure.supxlabel(credit, fontsize=9, color="dimgray")
    return figure


def save(figure: Figure, file: Path) -> None:
    """Write a PNG, in full or not at all."""
    write(file, lambda part: figure.savefig(part, format="png"))
