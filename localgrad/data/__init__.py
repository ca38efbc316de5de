"""Sets of images and of texts through one door, and training batches in an order that a seed fixes.

Importing this package imports neither scikit-learn nor TensorFlow: a set's reader is imported when it is asked for.
"""

from localgrad.data.alike import alike
from localgrad.data.arrays import batches
from localgrad.data.augment import PADDINGS, Augment, augmentation
from localgrad.data.dataset import SPLITS, Dataset, first, with_label_noise
from localgrad.data.door import get, names
from localgrad.data.evaluation import eval_batches
from localgrad.data.fetch import prepare
from localgrad.data.fingerprint import fingerprint
from localgrad.data.given import as_split
from localgrad.data.groups import length_groups, steps_per_epoch
from localgrad.data.images import IMAGE_ENDINGS, image_folder, read_image
from localgrad.data.registry import DATASETS, register_dataset
from localgrad.data.shuffle import permuted
from localgrad.data.source import source
from localgrad.data.stats import pixel_stats, range_stats
from localgrad.data.stream_source import stream_batches, stream_source
from localgrad.data.streams import Look, Stream
from localgrad.data.tables import csv_file, numbers, read_table
from localgrad.data.text import VOCABULARY
from localgrad.data.vectors import read_vectors

__all__ = [
    "DATASETS",
    "IMAGE_ENDINGS",
    "PADDINGS",
    "SPLITS",
    "VOCABULARY",
    "Augment",
    "Dataset",
    "Look",
    "Stream",
    "alike",
    "as_split",
    "augmentation",
    "batches",
    "csv_file",
    "eval_batches",
    "fingerprint",
    "first",
    "get",
    "image_folder",
    "length_groups",
    "names",
    "numbers",
    "permuted",
    "pixel_stats",
    "prepare",
    "range_stats",
    "read_image",
    "read_table",
    "read_vectors",
    "register_dataset",
    "source",
    "steps_per_epoch",
    "stream_batches",
    "stream_source",
    "with_label_noise",
]
