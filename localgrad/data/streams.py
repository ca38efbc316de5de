"""A loader of somebody else's: anything that can be gone through again and again.

A PyTorch `DataLoader`, a `tf.data.Dataset`, a Hugging Face dataset, a grain loader, a list of pairs: each element is a
pair `(x, y)` or a dict, of a batch of any size or of one example.  Examples are joined and cut into batches of the
model's size; the order, shuffled or not, is the loader's own.
"""

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from localgrad.data.checks import as_array, as_trained, channels_first
from localgrad.data.columns import as_column, columns_of, in_order, pair_of
from localgrad.data.dataset import Dataset
from localgrad.data.look import looked_at
from localgrad.tasks import Task

Chunk = tuple[np.ndarray, np.ndarray]
_EMPTY = (
    "expected some each time that it is gone through. One that drops its last batch gives nothing of fewer examples "
    "than its batch."
)
_LONG = 60.0  # seconds of counting after which somebody may wonder whether there is an end


class Look(NamedTuple):
    """What one pass over a stream finds.

    Attributes:
      examples: how many there are.
      dtype: of the inputs, as the loader gives them.
      mean, std: of each channel, float64 `(C,)`, as `pixel_stats` has them.
      columns: what the columns of the first element are called, where it is a table that has names.
    """

    examples: int
    dtype: np.dtype
    mean: np.ndarray
    std: np.ndarray
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Stream:
    """A loader, and what its elements are.

    Attributes:
      name: what messages call it.
      loader: gives an iterator of elements each time it is gone through.
      shape: of one example's inputs, as the model takes them.
      task: what the targets are of.
      fields: names of the inputs and the targets in elements that are dicts; None finds the usual ones.
      trained_on: the type of the inputs that training has; None where that is not known yet.
      columns: what the columns of the inputs are called in training, in order; None where nobody said.
    """

    name: str
    loader: Iterable[Any]
    shape: tuple[int, ...]
    task: Task
    fields: tuple[str, str] | None = None
    trained_on: np.dtype | None = None
    columns: tuple[str, ...] | None = None

    def chunks(self, size: int) -> Iterator[Chunk]:
        """One pass: batches of `size` examples, the last one perhaps of fewer."""
        return self._cut(size, lambda columns: None)

    def _cut(self, size: int, named: Callable[[tuple[str, ...]], None]) -> Iterator[Chunk]:
        """One pass, which tells what the columns of its first table are called."""
        waiting: list[Chunk] = []
        count, ours = 0, self.columns
        for element in self.loader:
            inputs, targets = pair_of(element, self.fields, self.name)
            x, y = self._as_batch(inputs, targets)
            if (theirs := columns_of(inputs)) is not None:
                if ours is None:
                    named(ours := theirs)
                x = in_order(x, theirs, ours, f"{self.name}: inputs")
            while count + len(x) >= size:
                rest = size - count
                waiting.append((x[:rest], y[:rest]))
                yield self._checked(waiting)
                x, y, waiting, count = x[rest:], y[rest:], [], 0
            if len(x):
                waiting.append((x.copy(), y.copy()))  # a loader may fill the same array anew
                count += len(x)
        if waiting:
            yield self._checked(waiting)

    def look(self, size: int) -> Look:
        """Goes through all of it once, `size` examples at a time.

        Raises:
          ValueError: it is empty.
        """
        count, total, squares, kind, first = 0, np.zeros(()), np.zeros(()), None, np.zeros(())
        patience: float | None = time.monotonic() + _LONG
        columns: list[tuple[str, ...]] = []
        for x, _ in self._cut(size, columns.append):
            if patience is not None and time.monotonic() > patience:
                warnings.warn(
                    f"{self.name} has given {count} examples and goes on: it is counted before training, in one pass. "
                    "A loader that repeats itself has no end: give one that makes one pass.",
                    stacklevel=2,
                )
                patience = None
            rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
            first = rows[0].copy() if kind is None else first
            rows -= first  # squares of what lies far from zero would leave no digit to their difference
            total, squares = total + rows.sum(axis=0), squares + (rows**2).sum(axis=0)
            count, kind = count + len(x), x.dtype
        if kind is None:
            raise ValueError(f"{self.name} gives no examples: {_EMPTY}")
        rows_each = count * int(np.prod(self.shape[:-1]))
        mean = total / rows_each
        variance = squares / rows_each - mean**2
        varies = variance > 1e-12 * squares / rows_each  # one that never does is zero here, to the last bit
        std = np.sqrt(np.where(varies, variance, 1.0))
        return Look(count, kind, first + mean, std, columns[0] if columns else self.columns)

    def _as_batch(self, x: Any, y: Any) -> Chunk:
        """A batch of both; a single example is a batch of one."""
        x, y = np.asarray(as_array(x, f"{self.name}: inputs")), np.asarray(as_array(y, f"{self.name}: labels"))
        if len(self.shape) == 3 and self.shape[-1] == 1 and x.shape[-2:] == self.shape[:-1]:
            x = x[..., None]  # grey pictures (H, W), or a batch of them
        if x.shape == self.shape:
            x, y = x[None], y[None]
        if x.shape[1:] != self.shape or not x.ndim:
            raise ValueError(
                f"{self.name}: its inputs are {x.shape}; the model takes (batch, {_listed(self.shape)})."
                f"{channels_first(x.shape, self.shape)}"
            )
        if len(x) == 1 and y.ndim == 0:  # a picture of one channel in front, (1, H, W), which is also a batch of one
            y = y[None]
        if y.shape[:1] != x.shape[:1]:
            raise ValueError(f"{self.name}: found labels {y.shape} for {len(x)} inputs; expected one each.")
        return x, y

    def _checked(self, parts: Sequence[Chunk]) -> Chunk:
        """Parts of a batch as one whose numbers were looked at, which takes long for each example alone."""
        xs, ys = zip(*parts, strict=True)
        kinds = {x.dtype for x in xs}
        if np.dtype(np.uint8) in kinds and len(kinds) > 1:
            raise ValueError(
                f"{self.name}: its inputs are {' and '.join(sorted(map(str, kinds)))} within one batch of the model: "
                "bytes are scaled where floats are not. Give one kind."
            )
        if len({y.shape[1:] for y in ys}) > 1:
            shapes = " and ".join(sorted({str(y.shape) for y in ys}))
            raise ValueError(f"{self.name}: its labels are {shapes} within one batch of the model: give one form.")
        y = as_column(np.concatenate(ys), self.task, self.name)
        found = looked_at(Dataset(self.name, np.concatenate(xs), y, task=self.task))
        if self.trained_on is None:
            return found.inputs, found.labels
        return as_trained(found.inputs, self.trained_on, f"{self.name}: inputs"), found.labels


def _endless(loader: Any) -> bool:
    """Whether a loader says of itself that it has no end, as those of tf.data and of grain do after `repeat()`."""
    cardinality = getattr(loader, "cardinality", None)
    try:
        return int(cardinality()) == -1 if callable(cardinality) else len(loader) >= sys.maxsize
    except (TypeError, ValueError, OverflowError, NotImplementedError):
        return False


def _is_empty(loader: Any) -> bool:
    """Whether a loader says of itself that it gives nothing."""
    try:
        return len(loader) == 0
    except (TypeError, ValueError, OverflowError, NotImplementedError):
        return False


def check_again(loader: Any, name: str) -> None:
    """Refuses what can be gone through only once, never to its end, or not at all.

    Raises:
      ValueError: naming it, and what to give.
    """
    if isinstance(loader, int | float):
        raise ValueError(
            f"{name}={loader}, which cannot be gone through: give arrays or a loader. A share of the training "
            "examples is validation=0.1, say."
        )
    if not isinstance(loader, Iterable):
        raise ValueError(f"{name} is a {type(loader).__name__}, which cannot be gone through: give arrays or a loader.")
    if isinstance(loader, Iterator):
        raise ValueError(
            f"{name} is a {type(loader).__name__}, which can be gone through only once, and every epoch goes through "
            "it: give what makes it, such as the list, the DataLoader or the dataset itself."
        )
    if _is_empty(loader):
        raise ValueError(f"{name} gives no examples: {_EMPTY}")
    if _endless(loader):
        raise ValueError(
            f"{name} is a {type(loader).__name__} without an end, and an epoch is one pass: leave out its repeat()."
        )


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
