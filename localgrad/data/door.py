"""The one door to all datasets."""

from functools import lru_cache
from pathlib import Path

from localgrad.data import dbpedia, digits, idx_sets, movies, text, tfds, wordnet
from localgrad.data.dataset import EMBEDDED, SPLITS, Dataset
from localgrad.data.files import reached

_TEXTS = {module.NAME: module.read for module in (wordnet, movies, dbpedia)}


def names() -> tuple[str, ...]:
    """The sets that have readers of their own; besides these, `get` takes any set of tensorflow-datasets."""
    return EMBEDDED


def get(
    name: str,
    split: str,
    *,
    data_dir: str | Path | None = None,
    max_length: int | None = None,
    vocabulary: int = text.VOCABULARY,
) -> Dataset:
    """Reads one split of a dataset.

    Splits never depend on a seed.  A set is split as published; where it lacks a validation split, that is the last
    5,000 training examples, or a tenth where that is fewer (`dataset.part` has the whole rule).

    Args:
      name: `digits` (scikit-learn's, 1,197 / 300 / 300), `mnist`, `fashion_mnist`, `kmnist` and `emnist/digits`,
        `letters`, `balanced`, `byclass`, `bymerge` or `mnist` (IDX files or tensorflow-datasets), the texts
        `wordnet_gloss`, `wordnet_gloss/all`, `movie_snippets` and `dbpedia`, or any set of images or texts with a class
        each of tensorflow-datasets, as `name`, `name/config` or `name/config:version`.
      split: `train`, `validation` or `test`.
      data_dir: where to look for the files, `~` and `gs://bucket/folder` among them; None looks in the usual places.
        `digits` has no files.
      max_length: tokens kept of a text; None is as many as the longest has.
      vocabulary: of texts, how many of the training split's commonest words are told apart.

    Returns:
      The split: images uint8 `(N, H, W, C)` or texts int32 `(N, L)`, and labels int32 `(N,)`.

    Raises:
      FileNotFoundError: the set is not on this machine; the message says how to get it.
      ImportError: reading or preparing it needs TensorFlow, which is not installed.
      ValueError: no such set or split, or its files are damaged.

    >>> get("digits", "train").inputs.shape
    (1197, 8, 8, 1)
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {list(SPLITS)}")
    if name == "digits":
        return digits.load(split)
    with reached(tfds.root(data_dir)):
        if name.partition(":")[0] in idx_sets.SETS:
            return idx_sets.load(name, split, data_dir)
        folder = None if data_dir is None else str(data_dir)
        if name.partition("/")[0] in _TEXTS or tfds.holds_texts(name, data_dir):
            return _texts(name, folder, max_length, vocabulary)[split]
        return tfds.load(name, split, data_dir)


@lru_cache(maxsize=1)  # the splits of a set share the vocabulary of one of them
def _texts(name: str, data_dir: str | None, max_length: int | None, vocabulary: int) -> dict[str, Dataset]:
    plain, _, config = name.partition("/")
    read = _TEXTS.get(plain)
    corpus, where = read(config or None, data_dir) if read else tfds.read_texts(name, data_dir)
    return text.datasets(name, corpus, max_length=max_length, size=vocabulary, where=where)
