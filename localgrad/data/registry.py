"""Data sets by name: one row each; besides these, `get` takes any set of tensorflow-datasets."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from localgrad import registry
from localgrad.data import dbpedia, digits, idx_sets, made, movies, tfds, wordnet
from localgrad.data.dataset import Dataset
from localgrad.data.text import Corpus

Folder = str | Path | None  # where a set's files are; None is the usual places


class Reader(NamedTuple):
    """How a set is read: as arrays, or as texts that the door makes arrays of.

    Attributes:
      arrays: `(name, split, data_dir) -> Dataset`, of the whole name that was asked for.
      texts: `(config, data_dir) -> (corpus, where it was read from)`, all splits at once; `config` is what stands
        behind a `/` in the name, or None.
    """

    arrays: Callable[[str, str, Folder], Dataset] | None = None
    texts: Callable[[str | None, Folder], tuple[Corpus, str]] | None = None


def _idx(name: str, split: str, data_dir: Folder) -> Dataset:
    """IDX files; a config that they do not have is tensorflow-datasets' affair."""
    return (idx_sets if name.partition(":")[0] in idx_sets.SETS else tfds).load(name, split, data_dir)


DATASETS = registry.Table(
    Reader,
    "register_dataset",
    {
        "digits": Reader(digits.load),
        "mnist": Reader(_idx),
        "fashion_mnist": Reader(_idx),
        "kmnist": Reader(_idx),
        "emnist": Reader(_idx),
        wordnet.NAME: Reader(texts=wordnet.read),
        movies.NAME: Reader(texts=movies.read),
        dbpedia.NAME: Reader(texts=dbpedia.read),
        "sine": Reader(made.sine),
        "diabetes": Reader(made.diabetes),
        "topics": Reader(made.topics),
        "bytes": Reader(made.next_bytes),
    },
)


def register_dataset(
    name: str,
    arrays: Callable[[str, str, Folder], Dataset] | None = None,
    *,
    texts: Callable[[str | None, Folder], tuple[Corpus, str]] | None = None,
) -> None:
    """Adds a data set, for `--dataset=NAME` and `get`.

    Args:
      name: a word; a name such as `NAME/config` is this set's too.
      arrays, texts: see `Reader`; one of the two.

    Raises:
      ValueError: a name that is no word, or that another set has; both readers, or none.
    """
    if (arrays is None) == (texts is None):
        raise ValueError(f"data set {name!r}: give one of arrays= and texts=, and not both.")
    registry.add("data set", DATASETS, name, Reader(arrays, texts))
