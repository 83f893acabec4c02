"""Pictures to train on, from files or from scikit-learn, and batches of them."""

from .dataset import Dataset, batches, crops_and_flips, stratified_folds
from .readers import cifar10, mnist, read_idx
from .samples import DIGITS_CREDIT, PHOTOS_CREDIT, digits, sample_images

__all__ = [
    "DIGITS_CREDIT",
    "PHOTOS_CREDIT",
    "Dataset",
    "batches",
    "cifar10",
    "crops_and_flips",
    "digits",
    "mnist",
    "read_idx",
    "sample_images",
    "stratified_folds",
]
