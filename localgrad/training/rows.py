"""The rows that trackers are given.

Of a call: `step`, `epoch` (with fractions), and of each block `block_loss` and whatever else it reports, means over the
batches of the call; `examples_per_sec`, by the clock since the call before, or where calls begin; `delay`, by how many
batches each block learns late.  Of an epoch: the same, means over the epoch, and of each evaluated split its score by
exit, and `param_norm`, the norm of all parameters of each block.
"""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from localgrad.base import BlockState, Metrics, Model, Plan


class Rows:
    """Makes the rows of a run.

    Args:
      model: the model.
      plan: how it is laid over stages.
      epoch_steps: batches in an epoch.
    """

    def __init__(self, model: Model, plan: Plan, epoch_steps: int):
        self._model, self._epoch_steps = model, epoch_steps
        delays, stages = plan.schedule.delays, list(zip(plan.cuts, plan.cuts[1:], strict=False))
        by_block = len(delays) == len(model.blocks)  # as in the plan of the sequential engine, which has no stages
        self._delay = list(delays) if by_block else [delays[s] for s, (a, b) in enumerate(stages) for _ in range(a, b)]
        self.begin(0)

    def begin(self, step: int) -> None:
        """The clock of the rates begins, at a step."""
        self._step, self._clock = step, time.perf_counter()

    def call(self, step: int, metrics: Metrics) -> dict[str, Any]:
        """The row of a call, from its metrics as host arrays; `step` is the number of batches fed with it."""
        losses, more = [], dict.fromkeys(key for values in metrics.values for key in values if key != "loss")
        found: dict[str, list[Any]] = {key: [] for key in more}
        for values, ids in zip(metrics.values, metrics.batch_id, strict=True):
            real = np.asarray(ids) >= 0
            mean = lambda value, real=real: (
                np.asarray(value, np.float64)[real].mean(axis=0).tolist() if real.any() else None
            )
            losses.append(mean(values["loss"]))
            for key in found:
                found[key].append(mean(values[key]) if key in values else None)
        now = time.perf_counter()
        rate = (step - self._step) * self._model.batch_size / max(now - self._clock, 1e-9)
        self.begin(step)
        where = {"step": step, "epoch": step / self._epoch_steps}
        return {**where, "block_loss": losses, **found, "examples_per_sec": rate, "delay": self._delay}

    def epoch(self, records: Sequence[dict[str, Any]], states: Sequence[BlockState]) -> dict[str, Any]:
        """The row of an epoch, from its records and the states at its end."""
        train, *evaluated = records
        row = {key: value for key, value in train.items() if key != "split"}
        for record in evaluated:
            split = record["split"]
            row |= {f"{split}_{key}": value for key, value in record.items() if key not in ("step", "epoch", "split")}
        return {**row, "param_norm": [self._norm(state) for state in states], "delay": self._delay}

    def _norm(self, state: BlockState) -> Any:
        """The norm of a block's parameters, of each trial."""
        keep = 0 if self._model.trials is None else 1
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(jax.device_get(state.params))]
        squares = [(leaf**2).sum(axis=tuple(range(keep, leaf.ndim))) for leaf in leaves]
        return np.sqrt(np.sum(squares, axis=0)).tolist() if squares else 0.0
