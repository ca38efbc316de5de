"""`get`, which reads a split of any dataset by name."""

from functools import lru_cache
from pathlib import Path

from localgrad.data import text, tfds, tfds_folders
from localgrad.data.dataset import SPLITS, Dataset
from localgrad.data.files import reached
from localgrad.data.registry import DATASETS, Reader


def names() -> tuple[str, ...]:
    """The sets that have readers of their own; besides these, `get` takes any set of tensorflow-datasets."""
    return tuple(DATASETS)


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
        `wordnet_gloss`, `wordnet_gloss/all`, `movie_snippets` and `dbpedia`, or any set of tensorflow-datasets with
        images or texts of one class each, as `name`, `name/config` or `name/config:version`.
      split: `train`, `validation` or `test`.
      data_dir: where to look for the files, `~` and `gs://bucket/folder` among them; None looks in the usual places.
        `digits` has no files.
      max_length: tokens kept of a text; None is as many as the longest has.
      vocabulary: of texts, how many of the training split's commonest words have a token of their own.

    Returns:
      The split: images uint8 `(N, H, W, C)` or texts int32 `(N, L)`, and labels int32 `(N,)`.

    Raises:
      FileNotFoundError: the set is not on this machine; the message says how to get it.
      ImportError: reading or preparing it needs TensorFlow, which is not installed.
      ValueError: no such set or split, or its files are damaged.

    Examples:
      >>> get("digits", "train").inputs.shape
      (1197, 8, 8, 1)
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {list(SPLITS)}")
    row = _row(name)
    with reached(tfds_folders.root(data_dir)):
        if row.arrays is not None:
            return row.arrays(name, split, data_dir)
        if row.texts is not None or tfds.holds_texts(name, data_dir):
            return _texts(name, None if data_dir is None else str(data_dir), max_length, vocabulary)[split]
        return tfds.load(name, split, data_dir)


def _row(name: str) -> Reader:
    """The reader of a set, by its name without config and version; an empty one for sets of tensorflow-datasets."""
    row = DATASETS.get(name.partition(":")[0].partition("/")[0], Reader())
    return Reader() if row.texts is not None and ":" in name else row  # texts have no versions


@lru_cache(maxsize=1)  # the splits of a set share the vocabulary of one of them
def _texts(name: str, data_dir: str | None, max_length: int | None, vocabulary: int) -> dict[str, Dataset]:
    read = _row(name).texts
    config = name.partition("/")[2] or None
    corpus, where = tfds.read_texts(name, data_dir) if read is None else read(config, data_dir)
    return text.datasets(name, corpus, max_length=max_length, size=vocabulary, where=where)
