"""Real pictures that come with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DataError
from ...layout import Array
from .dataset import Dataset, stratified_folds

DIGITS_CREDIT = (
    "Digits: E. Alpaydin, C. Kaynak, 'Optical Recognition of Handwritten Digits' (1998), UCI Machine Learning "
    "Repository, CC BY 4.0, as they come with scikit-learn"
)
PHOTOS_CREDIT = (
    "Photos: flickr.com/photos/danielbuechele (china) and flickr.com/photos/vultilion (flower), "
    "CC BY 2.0, as they come with scikit-learn"
)


def digits(fold: int = 0) -> Dataset:
    """Load 1,797 handwritten digits of 8x8 cells, a fifth of each class held out.

    Parameters
    ----------
    fold : int
        Which fifth, from 0 to 4; the five are fixed, and have no picture in common.

    Returns
    -------
    Dataset
        Pictures of shape (N, 1, 8, 8).

    Raises
    ------
    DataError
        If scikit-learn is not installed, or there is no such fold.

    Examples
    --------
    >>> from convkernels.nn import data  # doctest: +SKIP
    >>> data.digits().train_x.shape  # doctest: +SKIP
    (1437, 1, 8, 8)
    """
    if fold not in range(5):
        raise DataError(f"fold={fold!r} must be from 0 to 4")
    loaded = _sklearn().load_digits()
    x = (loaded.images[:, np.newaxis] / 16).astype(np.float32)
    y = loaded.target.astype(np.int64)
    whole = Dataset("digits", x, y, x[:0], y[:0], tuple("0123456789"), DIGITS_CREDIT)
    return whole.split(stratified_folds(y, 5, generator=0)[fold])


def sample_images() -> dict[str, Array]:
    """Load two photos, "china" and "flower".

    Returns
    -------
    dict of str to ndarray
        RGB bytes of shape (427, 640, 3), by name; their attribution is `PHOTOS_CREDIT`.

    Raises
    ------
    DataError
        If scikit-learn is not installed.

    Examples
    --------
    >>> from convkernels.nn import data  # doctest: +SKIP
    >>> sorted(data.sample_images())  # doctest: +SKIP
    ['china', 'flower']
    """
    loaded = _sklearn().load_sample_images()
    return dict(zip(("china", "flower"), loaded.images, strict=True))


def _sklearn() -> Any:
    try:
        import sklearn.datasets  # type: ignore[import-untyped]  # noqa: PLC0415  # optional, ships no types
    except ModuleNotFoundError:
        raise DataError('the digits and photos come with scikit-learn: pip install "convkernels[nn]"') from None
    return sklearn.datasets
