"""The 1,797 handwritten digits that come with scikit-learn: 8x8 pixels of 0 to 16, ten classes."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from localgrad.data.dataset import Dataset
from localgrad.data.look import checked

HELD_OUT = 300


def load(name: str, split: str, data_dir: object = None) -> Dataset:
    """Reads a split of 1,197, 300 or 300 examples; there is nothing to download.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998; the test part of it.

    Args:
      name: `digits`; there are no others.
      split: `train`, `validation` or `test`.
      data_dir: not looked at: the set comes with scikit-learn.

    Returns:
      Images uint8 `(N, 8, 8, 1)` of 0 .. 16, as published.
    """
    if name != "digits":
        raise ValueError(f"digits has one form; got {name}.")

    pixels, labels = _published()
    rows = _rows(labels)[split]
    images = pixels[rows].astype(np.uint8).reshape(-1, 8, 8, 1)
    return checked("digits", images, labels[rows], 10, where="sklearn.datasets.load_digits")


@cache
def _published() -> tuple[np.ndarray, np.ndarray]:
    """Pixels `(N, 64)` and labels `(N,)`, as `sklearn.datasets.load_digits` has them.

    The file is read without the import of scikit-learn, which takes longer than all else before a first epoch's
    programs; should a version keep it elsewhere, it is asked for it.
    """
    found = find_spec("sklearn")
    folders = [] if found is None else found.submodule_search_locations or []
    for folder in folders:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.exists():
            rows = np.loadtxt(path, delimiter=",", dtype=np.int64)
            return rows[:, :-1], rows[:, -1]
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def _rows(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Stratified without a random generator, so that no version of one can move the splits.

    Of the examples sorted by class every sixth (5.99th) goes to test and the third after it to validation.
    """
    by_class = np.argsort(labels, kind="stable")
    test = np.arange(HELD_OUT) * len(labels) // HELD_OUT
    validation = test + 3
    train = np.setdiff1d(np.arange(len(labels)), np.concatenate([test, validation]))
    return {
        split: np.sort(by_class[chosen])
        for split, chosen in (("train", train), ("validation", validation), ("test", test))
    }
