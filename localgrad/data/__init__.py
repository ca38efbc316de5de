"""Image classification sets through one door, and training batches in an order that a seed fixes.

Importing this package imports neither scikit-learn nor TensorFlow: a set's reader is imported when it is asked for.
"""

from localgrad.data.arrays import batches
from localgrad.data.augment import Augment, augmentation
from localgrad.data.dataset import SPLITS, Dataset, first, pixel_stats, with_label_noise
from localgrad.data.door import get, names
from localgrad.data.shuffle import permuted
from localgrad.data.source import eval_batches, source
from localgrad.data.tfds import prepare

__all__ = [
    "SPLITS",
    "Augment",
    "Dataset",
    "augmentation",
    "batches",
    "eval_batches",
    "first",
    "get",
    "names",
    "permuted",
    "pixel_stats",
    "prepare",
    "source",
    "with_label_noise",
]
