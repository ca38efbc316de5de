"""Small sets that need no download and are no classification: a sine, tables, and the bytes of texts."""

import sysconfig
from pathlib import Path

import numpy as np

from localgrad.data.dataset import Dataset
from localgrad.data.files import expanded, reached
from localgrad.tasks import multilabel, regression, tokens

PLACES = 64  # bytes of a sequence
_MOST = 1 << 20  # bytes that are read of all files together
_SIZES = {"train": 2048, "validation": 512, "test": 512}


def sine(name: str, split: str, data_dir: object = None) -> Dataset:
    """A regression: x uniform in [-3, 3], y = sin(2 x), `(N, 1)` each; 2,048 examples, and 512 of each other split.

    Args:
      name: `sine`; there are no others.
      split: `train`, `validation` or `test`, each drawn by a generator of its own.
      data_dir: not looked at: the set is computed.
    """
    _check_name("sine", name)
    rng = np.random.default_rng(list(_SIZES).index(split))
    x = rng.uniform(-3, 3, (_SIZES[split], 1))
    return Dataset("sine", x.astype(np.float32), np.sin(2 * x).astype(np.float32), task=regression())


def diabetes(name: str, split: str, data_dir: object = None) -> Dataset:
    """A regression: the progress of diabetes after a year from ten measures of 442 patients; comes with scikit-learn.

    Targets are in units of 100, so that losses are of the size of one.  Every tenth patient is in the test split, and
    the one after each in validation.

    Source: Efron et al., Least Angle Regression, Annals of Statistics 32(2), 2004.

    Args:
      name, split, data_dir: as `sine`.
    """
    _check_name("diabetes", name)
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes()
    rows = _interleaved(len(bunch.data), split)
    y = bunch.target[rows, None] / 100
    return Dataset("diabetes", bunch.data[rows].astype(np.float32), y.astype(np.float32), task=regression())


def topics(name: str, split: str, data_dir: object = None) -> Dataset:
    """Multi-label: 20 counts of words of 3,000 made-up documents, each with any of five topics; by scikit-learn.

    Source: `sklearn.datasets.make_multilabel_classification` with a fixed seed.

    Args:
      name: `topics`; there are no others.
      split, data_dir: as `sine`.
    """
    _check_name("topics", name)
    from sklearn.datasets import make_multilabel_classification

    x, y = make_multilabel_classification(3000, n_features=20, n_classes=5, n_labels=2, random_state=0)
    rows = _interleaved(len(x), split)
    return Dataset("topics", x[rows].astype(np.float32), y[rows].astype(np.int32), task=multilabel(5))


def next_bytes(name: str, split: str, data_dir: str | Path | None = None) -> Dataset:
    """Next-token prediction: the bytes of text files, in sequences of 64, each with the byte that follows every place.

    The first MiB of the files, in the order of their names, is cut into pieces; those held out are spread evenly over
    the whole, so that all splits are of all files.

    Args:
      name: `bytes`, or `bytes/N` for sequences of N places.
      split: `train`, `validation` or `test`.
      data_dir: a folder of `.txt` and `.md` files, or one file; None reads the sources of this Python's own library.

    Returns:
      Token ids int32 `(N, places)`, byte b as b + 1 since 0 is padding, and as labels the ids that follow.

    Raises:
      ValueError: for a length that is none, or too few bytes.
      FileNotFoundError: if there are no such files.
    """
    length = name.partition("/")[2] or str(PLACES)
    if not length.isdecimal() or int(length) < 2:
        raise ValueError(f"dataset {name!r}: behind the / stands a number of places of at least 2, such as bytes/128")
    places, found = int(length), _text_files(data_dir)
    content = b""
    with reached(found[0].parent):
        for path in found:
            if len(content) < _MOST:
                content += path.read_bytes()[: _MOST - len(content)]
    pieces = len(content) // (places + 1)
    if pieces < 20:
        raise ValueError(
            f"{found[0].parent}: {len(content)} bytes make {pieces} sequences of {places} places; expected at least 20"
        )
    ids = np.frombuffer(content[: pieces * (places + 1)], np.uint8).astype(np.int32).reshape(pieces, -1) + 1
    rows = _interleaved(pieces, split)
    words = ("", *(f"byte {value}" for value in range(256)))
    return Dataset(name, ids[rows, :-1], ids[rows, 1:], words=words, task=tokens(257, ahead=True))


def _text_files(data_dir: str | Path | None) -> list[Path]:
    """The files that bytes are read of."""
    if data_dir is None:
        return sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    folder = expanded(data_dir)
    found = [folder] if folder.is_file() else sorted([*folder.rglob("*.txt"), *folder.rglob("*.md")])
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no .txt or .md file, which data set 'bytes' reads: name another folder"
        )
    return found


def _interleaved(count: int, split: str) -> np.ndarray:
    """The rows of a split: of every ten one is for the test, the next for validation, and the others for training."""
    place = np.arange(count) % 10
    return np.flatnonzero({"test": place == 0, "validation": place == 1, "train": place > 1}[split])


def _check_name(own: str, name: str) -> None:
    if name != own:
        raise ValueError(f"{own} has one form; got {name}.")
