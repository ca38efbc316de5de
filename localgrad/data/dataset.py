"""What a dataset is, which examples a split holds, and the checks that every reader's arrays go through."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from localgrad.data.checks import checked_inputs, checked_labels

SPLITS = ("train", "validation", "test")
VALIDATION_NAMES = ("validation", "val", "valid")  # what published sets call theirs
HELD_OUT = 5_000
_ROWS = 1 << 16  # rows of numbers that statistics are taken of at a time


class Dataset(NamedTuple):
    """One split of a set of images, of texts, or of rows of numbers.

    Attributes:
      name: what tables and messages call it.
      inputs: images, uint8 `(N, H, W, C)`; texts, int32 `(N, L)`, numbers of words with 0 behind the end; or any other
        numbers, floats or integers: tables `(N, D)`, pictures of floats, and so on, `(N, ...)`.
      labels: int32 `(N,)`, each in `0 .. classes - 1`.
      classes: number of classes.
      words: of texts, the vocabulary: what each number stands for; None for all others.
    """

    name: str
    inputs: np.ndarray
    labels: np.ndarray
    classes: int
    words: tuple[str, ...] | None = None


class Part(NamedTuple):
    """The examples `start .. stop - 1` of a split as it was published."""

    published: str
    start: int
    stop: int


def part(name: str, split: str, sizes: Mapping[str, int]) -> Part:
    r"""Says which published examples make up a split.

    A set is used as it was published where it has a validation and a test split.  What it lacks is held out from the
    end of its training split, k examples at a time: the last 5,000, or a tenth where that is fewer.

    * no validation split: validation is the last k training examples;
    * a validation but no test split: the validation split is the test, and validation is the last k training examples;
    * neither: test is the last k training examples, validation the k before them.

    Args:
      name: the set's name, for messages.
      split: `train`, `validation` or `test`.
      sizes: number of examples of each published split.

    Returns:
      The published split and the range of its examples.

    Raises:
      ValueError: no published `train` split, or one too small to hold examples out of.

    >>> part("mnist", "validation", {"train": 60_000, "test": 10_000})
    Part(published='train', start=55000, stop=60000)
    """
    if "train" not in sizes:
        raise ValueError(f"{name} has no split named 'train', only {sorted(sizes)}; choose another set")
    total = sizes["train"]
    tail = min(HELD_OUT, max(1, total // 10))
    published_validation = next((other for other in VALIDATION_NAMES if other in sizes), None)

    test = Part("test", 0, sizes["test"]) if "test" in sizes else None
    validation = Part(published_validation, 0, sizes[published_validation]) if published_validation else None
    if test is None and validation is not None:
        test, validation = validation, None

    kept = total
    if test is None:
        test, kept = Part("train", kept - tail, kept), kept - tail
    if validation is None:
        validation, kept = Part("train", kept - tail, kept), kept - tail
    if kept < 1:
        raise ValueError(
            f"{name} has {total} training examples and splits {sorted(sizes)}: too few to hold out a validation split"
        )
    return {"train": Part("train", 0, kept), "validation": validation, "test": test}[split]


def checked(name: str, images: np.ndarray, labels: np.ndarray, classes: int, *, where: str) -> Dataset:
    """Makes a Dataset of images, or says what is wrong with its arrays.

    Args:
      name: the set's name.
      images: uint8 `(N, H, W, C)`.
      labels: integers `(N,)`.
      classes: number of classes.
      where: what the arrays were read from, for messages.

    Returns:
      The dataset, its labels as int32.

    Raises:
      ValueError: the shapes do not belong together, or a label is out of range.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"{where}: images are {images.dtype} {images.shape}; expected uint8 (N, H, W, C), none of them 0. "
            "Read the set anew, or choose another"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{where}: found {len(labels)} labels for {len(images)} images; expected one each. "
            "The two files are not of one split, or one is damaged: fetch both again"
        )
    return Dataset(name, images, np.asarray(checked_labels(labels, f"{where}: labels", classes)), classes)


def looked_at(dataset: Dataset) -> Dataset:
    """A dataset that anyone may have made, as arrays of the types that `Dataset` names; it is looked through once.

    Raises:
      ValueError: naming the field that is not as `Dataset` says, and what was found there.
    """
    name, classes = dataset.name, dataset.classes
    if isinstance(classes, bool) or not isinstance(classes, int | np.integer) or classes < 1:
        raise ValueError(f"{name}: classes={classes!r}; expected a whole number of at least 1")
    inputs = np.asarray(checked_inputs(dataset.inputs, f"{name}: inputs"))
    labels = np.asarray(dataset.labels)
    if labels.ndim == 2 and len(labels) == len(inputs):
        raise ValueError(
            f"{name}: labels are {labels.shape}; expected one integer an example. "
            + ("Give labels[:, 0]" if labels.shape[1] == 1 else "Of one-hot labels give labels.argmax(-1)")
        )
    labels = np.asarray(checked_labels(dataset.labels, f"{name}: labels", int(classes)))
    if inputs.ndim < 2 or 0 in inputs.shape:
        raise ValueError(
            f"{name}: inputs are {inputs.shape}; expected examples along the first axis and at least one more, none of "
            "them 0" + (": give inputs[:, None] for one number an example" if inputs.ndim == 1 and inputs.size else "")
        )
    if labels.shape != inputs.shape[:1]:
        raise ValueError(f"{name}: found labels {labels.shape} for {len(inputs)} inputs; expected one each")
    if dataset.words is not None:
        inputs = _checked_texts(name, inputs, len(dataset.words))
    return dataset._replace(inputs=inputs, labels=labels)


def _checked_texts(name: str, inputs: np.ndarray, words: int) -> np.ndarray:
    """Texts as int32."""
    if inputs.ndim != 2 or not np.issubdtype(inputs.dtype, np.integer):
        raise ValueError(
            f"{name}: it has words, and its inputs are {inputs.dtype} {inputs.shape}; expected int32 (N, L)"
        )
    if inputs.min() < 0 or inputs.max() >= words:
        raise ValueError(
            f"{name}: numbers of words run from {inputs.min()} to {inputs.max()}; expected 0 to {words - 1}, its words"
        )
    return inputs.astype(np.int32, copy=False)


def pixel_stats(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, or of each column of a table, in units of the inputs.

    Take them of the training split and use them for all three.  A channel that never varies gets a deviation of 1,
    so that it normalises to 0.

    Args:
      dataset: the training split, of images or other numbers `(N, ..., C)`.

    Returns:
      `(mean, std)`, each float64 `(C,)`.

    Raises:
      ValueError: the set is one of texts, or its inputs are no finite numbers.

    >>> grey = Dataset("grey", np.array([[[[0]]], [[[4]]]], np.uint8), np.zeros(2, np.int32), 1)
    >>> pixel_stats(grey)
    (array([2.]), array([2.]))
    """
    if dataset.words is not None:
        raise ValueError(f"{dataset.name} holds texts, whose numbers stand for words: they have no mean")
    inputs = looked_at(dataset).inputs
    if inputs.dtype != np.uint8:
        return _column_stats(inputs.reshape(-1, inputs.shape[-1]))
    # A histogram of the 256 bytes a channel is exact and needs no float copy of the images.
    byte = np.arange(256, dtype=np.float64)
    channels = np.moveaxis(inputs, -1, 0)
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in channels])
    mean = (counts @ byte) / counts.sum(axis=1)
    deviation = byte[None, :] - mean[:, None]
    std = np.sqrt((counts * deviation**2).sum(axis=1) / counts.sum(axis=1))
    return mean, np.where(std > 0, std, 1.0)


def _column_stats(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column of `(M, C)`, in float64 and in parts, so that no large copy is made."""
    starts = range(0, len(rows), _ROWS)
    mean = sum(rows[i : i + _ROWS].sum(axis=0, dtype=np.float64) for i in starts) / len(rows)
    squares = sum(((rows[i : i + _ROWS].astype(np.float64) - mean) ** 2).sum(axis=0) for i in starts)
    std = np.sqrt(squares / len(rows))
    varies = rows.min(axis=0) != rows.max(axis=0)  # rounding of the mean alone would give a constant a deviation
    return mean, np.where(varies & (std > 0), std, 1.0)


def first(dataset: Dataset, count: int | None) -> Dataset:
    """The first `count` examples of a split; None is all of them.

    Raises:
      ValueError: count < 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"count={count} examples of {dataset.name}; expected at least 1, or None for all")
    return dataset._replace(inputs=dataset.inputs[:count], labels=dataset.labels[:count])


def with_label_noise(dataset: Dataset, share: float, seed: int = 0) -> Dataset:
    """Draws a share of the labels anew, uniformly over the classes; a label may be drawn as it was.

    Args:
      dataset: a split.
      share: expected share of the labels, in [0, 1].
      seed: which of them, and what they become.

    Returns:
      The split with the same inputs.

    Raises:
      ValueError: a share outside of [0, 1].

    Examples:
      >>> import numpy as np
      >>> clean = Dataset("zeros", np.zeros((4, 1, 1, 1), np.uint8), np.zeros(4, np.int32), 10)
      >>> with_label_noise(clean, 0.0) is clean
      True
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} of the labels; expected 0 to 1")
    if not share:
        return dataset
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, dataset.classes, len(dataset.labels)).astype(dataset.labels.dtype)
    return dataset._replace(labels=np.where(rng.random(len(drawn)) < share, drawn, dataset.labels))
