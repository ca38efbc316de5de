"""The 1,797 handwritten digits that come with scikit-learn: 8x8 pixels of 0 to 16, ten classes."""

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

    from sklearn.datasets import load_digits

    bunch = load_digits()
    rows = _rows(bunch.target)[split]
    images = bunch.images[rows].astype(np.uint8)[..., None]
    return checked("digits", images, bunch.target[rows], 10, where="sklearn.datasets.load_digits")


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
