"""The trained network of a run, read again, with the examples that it is to be looked at on."""

import dataclasses
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, NamedTuple

import jax
import numpy as np

from localgrad.base import BlockState, Model
from localgrad.data import Dataset, Stream, alike, as_split
from localgrad.evaluation import EvalBatches
from localgrad.evaluation.exits import collect
from localgrad.training import Config, Job, load, prepare, restore
from localgrad.training.job import split_batches
from localgrad.training.records import by_trial
from localgrad.training.restoring import find_checkpoint
from localgrad.training.same_data import check_same_data


class Opened(NamedTuple):
    """A run whose newest checkpoint was read, of several batched trials one.

    Attributes:
      model: without trials.
      states: one `BlockState` a block.
      step: batches that they have learnt from.
      splits: those that there are; `test` is one of them.
      batches: split -> masked batches of it, in its order.
      scores, labels: of the test split, see `collect`.
      x, y: its first batch.
    """

    model: Model
    states: tuple[BlockState, ...]
    step: int
    splits: Mapping[str, Dataset | Stream]
    batches: Callable[[str], EvalBatches]
    scores: np.ndarray
    labels: np.ndarray
    x: jax.Array
    y: jax.Array

    @property
    def leaves_early(self) -> bool:
        """Whether an exit can be sure of a class."""
        return leaves_early(self.model)


class Given(NamedTuple):
    """What is needed of a run of `localgrad.fit` to look at its network.

    Attributes:
      model: the one that was trained, made again, without trials.
      test: examples to look at it on, as `localgrad.fit` takes them.
      validation: the same, for the temperatures of leaving early; None does without that curve.
      fields: see `localgrad.fit`.
    """

    model: Model
    test: Any
    validation: Any = None
    fields: tuple[str, str] | None = None


def leaves_early(model: Model) -> bool:
    """Whether an exit of a model can be sure of a class."""
    return model.task.classes is not None and not model.task.per_token


def open_run(job: Job, log: Callable[[str], None] = print, trial: int = 0) -> Opened:
    """Reads the newest checkpoint of a run, and predicts on its test split.

    Args:
      job: what `prepare(read_config(workdir), resume=False)` gives.
      log: takes a line for each checkpoint that cannot be used.
      trial: which of several that were trained as one model, from 0.

    Raises:
      ValueError, FileNotFoundError: as `restore`; or its data are not those that it was trained on.
    """
    check_same_data(job.data, job.config.workdir)
    saved = restore(job.specs, job.config.workdir, log=log)
    states = by_trial(saved.states, job.model.trials)[trial]
    if job.model.trials is not None and isinstance(job.config, Config):
        job = prepare(dataclasses.replace(job.config, trials=1), resume=False)
    return _predicted(job.model, states, saved.step, job.splits, job.eval_batches)


def open_given(workdir: str | PathLike, given: Given, log: Callable[[str], None] = print) -> Opened:
    """Reads the newest checkpoint of a run of `localgrad.fit`, and predicts on the examples that are given.

    Args:
      workdir: its folder.
      given: the model and the examples.
      log: takes a line for each checkpoint that cannot be used.

    Raises:
      ValueError, FileNotFoundError: as `localgrad.load`; or the examples are not what the model takes.
    """
    model = given.model
    if model.trials is not None:
        raise ValueError(f"{workdir}: give the model of one trial; this one is of {model.trials} at once.")
    network = load(workdir, best=False, model=model, log=log, trial=0)
    about, dtype = network.about, model.x_spec.dtype
    like = about.like()
    splits: dict[str, Dataset | Stream] = {}
    for name, x in (("test", given.test), ("validation", given.validation)):
        if x is not None:
            split = as_split(x, name, shape=about.shape, dtype=dtype, task=model.task, fields=given.fields, like=like)
            split = alike(split, like)
            named = isinstance(split, Dataset) and about.label_names is not None
            splits[name] = split._replace(label_names=about.label_names) if named else split  # type: ignore[union-attr]
    batches = lambda name: split_batches(splits[name], model.batch_size, about.stats, dtype)
    _, found = find_checkpoint(workdir, best=False, log=lambda line: None)
    assert network.states is not None and found is not None
    return _predicted(model, network.states, found["step"], splits, batches)


def _predicted(
    model: Model,
    states: tuple[BlockState, ...],
    step: int,
    splits: Mapping[str, Dataset | Stream],
    batches: Callable[[str], EvalBatches],
) -> Opened:
    scores, labels = collect(model, states, batches("test"))
    x, y, mask = next(iter(batches("test")))
    return Opened(model, states, step, splits, batches, scores, labels, x[mask], y[mask])
