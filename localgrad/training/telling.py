"""Tells a run's trackers how it goes, and runs jax's profiler in its window."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from localgrad.base import BlockState, Metrics
from localgrad.training.job import Job
from localgrad.training.json_lines import JsonLines
from localgrad.training.rows import Rows
from localgrad.training.trace import Trace
from localgrad.training.trackers import TensorBoard, Tracker
from localgrad.training.workdir import CALLS, folder_of


class Telling:
    """The trackers of a run, from `open` to `close`; before and after nobody is told anything.

    Args:
      job: the run.
      log: takes a line of text for the user.
    """

    def __init__(self, job: Job, log: Callable[[str], None]):
        self._job, self._log = job, log
        self._trackers: list[Tracker] = []
        self._trace = Trace(None, "")
        self._rows = Rows(job.model, job.engine.plan, job.source.steps_per_epoch)

    def open(self, step: int, facts: dict[str, Any]) -> None:
        """Begins, or goes on, at a step; of several processes the first alone tells."""
        if jax.process_index() != 0:
            return
        job, folder = self._job, folder_of(self._job.config.workdir)
        events = folder / "tensorboard"
        own = [TensorBoard(events)] if job.config.tensorboard else []
        self._trackers = [JsonLines(folder / CALLS, self._log), *own, *job.trackers]
        self._trace = Trace(job.config.trace, events)
        known = {**job.config.to_json(), **facts, "blocks": [block.name for block in job.model.blocks]}
        for tracker in self._trackers:
            tracker.start(known, step)

    def begin(self, step: int) -> None:
        """Before several calls in a row: the clock of their rates begins."""
        self._rows.begin(step)

    def before(self, step: int, count: int) -> None:
        """Before a call that trains on batches `step .. step + count - 1`."""
        self._trace.before(step, count)

    def after(self, step: int, metrics: Metrics) -> None:
        """When a call is under way with which `step` batches have been fed."""
        self._trace.after(step, metrics)

    def call(self, step: int, metrics: Metrics) -> None:
        """The metrics of a call, as host arrays; `step` batches had been fed with it."""
        if self._trackers:
            row = self._rows.call(step, metrics)
            for tracker in self._trackers:
                tracker.call(row)

    def epoch(self, records: list[dict[str, Any]], states: Sequence[BlockState]) -> None:
        """The records of an epoch, and the states at its end."""
        row = self._rows.epoch(records, states) if len(self._trackers) > 1 else {}
        for tracker in self._trackers:
            tracker.epoch(row)

    def close(self) -> None:
        """After the last row, however the run ended."""
        self._trace.close()
        trackers, self._trackers = self._trackers, []
        for tracker in trackers:
            tracker.close()
