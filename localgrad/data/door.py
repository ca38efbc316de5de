"""The one door to all datasets."""

from pathlib import Path

from localgrad.data import digits, fashion_mnist, tfds
from localgrad.data.dataset import EMBEDDED, SPLITS, Dataset


def names() -> tuple[str, ...]:
    """The sets that need no preparation; besides these, `get` takes the name of any set of tensorflow-datasets."""
    return EMBEDDED


def get(name: str, split: str, *, data_dir: str | Path | None = None) -> Dataset:
    """Reads one split of a dataset.

    Splits never depend on a seed.  A set is split as published; where it lacks a validation split, that is the last
    5,000 training examples, or a tenth where that is fewer (`dataset.part` has the whole rule).

    Args:
      name: `digits` (scikit-learn's, 1,197 / 300 / 300), `fashion_mnist` (IDX files or tensorflow-datasets), or any
        image classification set of tensorflow-datasets, as `name`, `name/config` or `name/config:version`.
      split: `train`, `validation` or `test`.
      data_dir: where to look for the files; None looks in the usual places.  `digits` has no files.

    Returns:
      The split: images uint8 `(N, H, W, C)` and labels int32 `(N,)`.

    Raises:
      FileNotFoundError: the set is not on this machine; the message says how to get it.
      ImportError: reading or preparing it needs TensorFlow, which is not installed.
      ValueError: no such set or split, or its files are damaged.

    >>> get("digits", "train").images.shape
    (1197, 8, 8, 1)
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {list(SPLITS)}")
    if name == "digits":
        return digits.load(split)
    if name == fashion_mnist.NAME:
        return fashion_mnist.load(split, data_dir)
    return tfds.load(name, split, data_dir)
