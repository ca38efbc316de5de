"""The trained network of a run, read again, and what `localgrad evaluate` finds of it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from localgrad.base import BlockState, Model
from localgrad.evaluation.alignment import aligner
from localgrad.evaluation.exits import anytime, anytime_flops, collect, measure_exits, temperatures
from localgrad.training import Config, Job, prepare, restore
from localgrad.training.records import by_trial

THRESHOLDS = (0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.1)  # confidences of leaving early


class Opened(NamedTuple):
    """A run whose newest checkpoint was read, of several batched trials the first.

    Attributes:
      job: without trials, on one device.
      states: one `BlockState` a block.
      step: batches that they have learnt from.
      scores, labels: of the test split, see `collect`.
      x, y: its first batch.
    """

    job: Job
    states: tuple[BlockState, ...]
    step: int
    scores: np.ndarray
    labels: np.ndarray
    x: jax.Array
    y: jax.Array

    @property
    def leaves_early(self) -> bool:
        """Whether an exit can be sure of a class."""
        return leaves_early(self.job.model)


def leaves_early(model: Model) -> bool:
    """Whether an exit of a model can be sure of a class."""
    return model.task.classes is not None and not model.task.per_token


def open_run(job: Job, log: Callable[[str], None] = print) -> Opened:
    """Reads the newest checkpoint of a run, and predicts on its test split.

    Args:
      job: what `prepare(read_config(workdir), resume=False)` gives.
      log: takes a line for each checkpoint that cannot be used.

    Raises:
      ValueError, FileNotFoundError: as `restore`.
    """
    saved = restore(job.specs, job.config.workdir, log=log)
    states = by_trial(saved.states, job.model.trials)[0]
    if job.model.trials is not None and isinstance(job.config, Config):
        job = prepare(dataclasses.replace(job.config, trials=1), resume=False)
    scores, labels = collect(job.model, states, job.eval_batches("test"))
    x, y, mask = next(iter(job.eval_batches("test")))
    return Opened(job, states, saved.step, scores, labels, x[mask], y[mask])


def measure(
    run: Opened, *, exits: bool = True, alignment: bool = False, thresholds: Sequence[float] = ()
) -> dict[str, Any]:
    """What the exits of a trained network give and cost.

    Args:
      run: see `open_run`.
      exits: the task's first score, FLOPs and latency at every exit; with thresholds always.
      alignment: the cosines of each block's update, and of feedback, see `aligner`.
      thresholds: confidences at which to leave early, see `anytime`; () does without that curve, which is of classes.

    Returns:
      Lists of plain numbers by name, for JSON: `exits`, `cosine`, `projection_cosine`, `weight_cosine`, `temperatures`
      and `anytime`, each where it was asked for.
    """
    model, states = run.job.model, run.states
    found: dict[str, Any] = {}
    if exits or thresholds:
        rows = measure_exits(model, states, run.scores, run.labels, run.x)
        score = next(iter(model.task.scores))
        found["exits"] = [{score if key == "score" else key: v for key, v in row._asdict().items()} for row in rows]
    if alignment:
        cosines = aligner(model)(states, run.x, run.y)
        found["cosine"], found["projection_cosine"] = cosines["update"], cosines["projection"]
        found["weight_cosine"] = cosines["weights"]
    if thresholds:
        fitted = temperatures(*collect(model, states, run.job.eval_batches("validation")))
        curve = anytime(run.scores, run.labels, fitted, anytime_flops(model, states, run.x), thresholds)
        found |= {"temperatures": fitted.tolist(), "anytime": [row._asdict() for row in curve]}
    return found
