"""Evaluation batches: a split in its order, masked where there is no example."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.data.dataset import Dataset
from localgrad.data.look import looked_at
from localgrad.data.scaling import normalised, scaling, targets


def eval_batches(
    dataset: Dataset,
    batch_size: int,
    mean: np.ndarray | None = None,
    std: np.ndarray | None = None,
    dtype: Any = jnp.float32,
) -> "Evaluation":
    """Goes through a split in its order, in batches of one shape, as often as it is asked to.

    Args:
      dataset: the split.
      batch_size: examples a batch; the last one is filled up with zeros and masked.
      mean, std, dtype: as for `source`.

    Returns:
      What a `for` goes through, any number of times, of `len` batches: x `(batch_size, ...)` of `dtype` (of texts int32
      `(batch_size, L)`), y int32 `(batch_size,)`, or targets of another task, and mask bool `(batch_size,)`, False
      where there is no example.

    Raises:
      ValueError: an argument is out of range, or the dataset is not as `Dataset` says; the message names it.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; expected at least 1")
    dataset = looked_at(dataset)
    kind, scale = scaling(dataset, mean, std, dtype)
    ys = targets(dataset, dtype)

    def batch(start: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        inputs = dataset.inputs[start : start + batch_size]
        labels = ys[start : start + batch_size]
        mask = np.arange(batch_size) < len(inputs)
        x, y, mask = jax.device_put((filled_up(inputs, batch_size), filled_up(labels, batch_size), mask))
        return (x if kind is None else normalised(scale, x, kind)), y, mask

    return Evaluation(batch, range(0, len(dataset.inputs), batch_size))


def filled_up(rows: np.ndarray, count: int) -> np.ndarray:
    """Rows `(N, ...)` with zeros behind them, `(count, ...)`."""
    return np.pad(rows, ((0, count - len(rows)), *((0, 0),) * (rows.ndim - 1)))


@dataclass(frozen=True)
class Evaluation:
    """The masked batches of `eval_batches`: each `for` begins anew at the first."""

    batch: Callable[[int], tuple[jax.Array, jax.Array, jax.Array]]
    starts: range

    def __iter__(self) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
        return map(self.batch, self.starts)

    def __len__(self) -> int:
        return len(self.starts)
