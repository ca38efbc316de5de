"""What a dataset is, and which examples a split of it holds."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from localgrad.tasks import Task, classification

SPLITS = ("train", "validation", "test")
VALIDATION_NAMES = ("validation", "val", "valid")  # what published sets call theirs
HELD_OUT = 5_000


class Dataset(NamedTuple):
    """One split of a set of images, of texts, or of rows of numbers.

    Attributes:
      name: what tables and messages call it.
      inputs: images, uint8 `(N, H, W, C)`; texts, int32 `(N, L)`, numbers of words with 0 behind the end; or any other
        numbers, floats or integers: tables `(N, D)`, pictures of floats, and so on, `(N, ...)`.
      labels: int32 `(N,)`, each in `0 .. classes - 1`; of another task its targets, `(N, ...)`.
      classes: number of classes; None of a task that has none.
      words: of texts, the vocabulary: what each number stands for; None for all others.
      task: what is to be learnt of the labels; None is the classification of `classes`.
      label_names: what each class is called; None where they have numbers only.
      columns: of a table, what each column of the inputs is called; None where nobody said.
      targets: the same of the targets.
      notes: lines for the user, said where training on it begins, such as which columns of a file are what.

    Examples:
      >>> from localgrad.tasks import regression
      >>> x = np.linspace(-1, 1, 100, dtype=np.float32)[:, None]
      >>> Dataset("parabola", x, x**2, task=regression()).learnt.name
      'regression'
    """

    name: str
    inputs: np.ndarray
    labels: np.ndarray
    classes: int | None = None
    words: tuple[str, ...] | None = None
    task: Task | None = None
    label_names: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def learnt(self) -> Task:
        """The task: the one that is given, or the classification of `classes`.

        Raises:
          ValueError: where neither says what the labels are.
        """
        if self.task is not None:
            return self.task
        if isinstance(self.classes, bool) or not isinstance(self.classes, int | np.integer) or self.classes < 2:
            raise ValueError(
                f"{self.name}: classes={self.classes!r}; expected a whole number of at least 2, or task= of "
                "localgrad.tasks"
            )
        return classification(int(self.classes))


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
      ValueError: a share outside of [0, 1], or a set whose labels are no classes.

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
    if dataset.learnt.name != "classification":
        raise ValueError(f"{dataset.name} is for {dataset.learnt.name}: noise is put on the labels of classes alone")
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, dataset.learnt.outputs, len(dataset.labels)).astype(dataset.labels.dtype)
    return dataset._replace(labels=np.where(rng.random(len(drawn)) < share, drawn, dataset.labels))
