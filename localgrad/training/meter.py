"""Per-block metrics, aligned: batch k means batch k on every block, however late a stage reports it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from localgrad.base import Metrics


class Meter:
    """Sums each block's metrics over the batches since `reset`.

    Stages report a batch late; `add` takes what has come, in order, and skips what it has seen, so that the copy of a
    pipeline may be drained and its metrics added without counting them twice.

    Args:
      names: the blocks' names, for messages.
      first: the next batch to expect.
      sums: sums of an interrupted epoch, from `to_json`.
    """

    def __init__(self, names: Sequence[str], first: int, sums: Sequence[dict[str, Any]] | None = None):
        self._names = names
        self._next = [first] * len(names)
        self._sums: list[dict[str, Any]] = [
            {key: np.asarray(value, np.float64) for key, value in block.items()} for block in sums or [{}] * len(names)
        ]

    def add(self, metrics: Metrics) -> None:
        """Takes the metrics of a call, as host arrays.

        Raises:
          DivergedError: as `Metrics.check`.
        """
        for i, (values, batch_ids) in enumerate(zip(metrics.values, metrics.batch_id, strict=True)):
            for k, batch_id in enumerate(batch_ids):
                if batch_id < self._next[i]:  # a bubble, or seen before
                    continue
                self._next[i] = int(batch_id) + 1
                for key, value in values.items():
                    self._sums[i][key] = self._sums[i].get(key, 0.0) + value[k].astype(np.float64)
        metrics.check(self._names)

    def means(self, count: int) -> list[dict[str, np.ndarray]]:
        """Mean of each metric of each block over `count` batches."""
        return [{key: total / count for key, total in block.items()} for block in self._sums]

    def reset(self) -> None:
        """Forgets the sums, at the end of an epoch."""
        self._sums = [{} for _ in self._names]

    def to_json(self) -> list[dict[str, Any]]:
        """The sums, for a checkpoint within an epoch."""
        return [{key: np.asarray(total).tolist() for key, total in block.items()} for block in self._sums]
