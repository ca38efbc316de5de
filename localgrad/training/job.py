"""From a configuration to everything a run needs; all that can be refused is refused here, before any compilation."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from localgrad import data
from localgrad.base import BlockState, Engine, Model, Source, Spec
from localgrad.evaluation import EvalBatches
from localgrad.pipeline import init, specs
from localgrad.prediction import About, about_of
from localgrad.training.beginnings import Beginning, beginning
from localgrad.training.builders import build_engine, build_model, build_source
from localgrad.training.checkpoints import Checkpoints
from localgrad.training.config import Config
from localgrad.training.config_file import check_same, saved_config
from localgrad.training.inputs import known_by, read_inputs
from localgrad.training.lock import InUseError
from localgrad.training.no_effect import check_heard, check_heard_of_names
from localgrad.training.placement import check_placement, resolve
from localgrad.training.run_config import RunConfig
from localgrad.training.same_data import check_same_data
from localgrad.training.trackers import Tracker
from localgrad.training.workdir import check_folder, folder_of


class EpochEnd(NamedTuple):
    """What a callback is told after an epoch; one that returns True ends the training there.

    Attributes:
      epoch: how many epochs are done.
      step: batches since the start of training.
      records: of training and of each evaluation, as `metrics.jsonl` has them.
      states: one `BlockState` a block.
    """

    epoch: int
    step: int
    records: list[dict[str, Any]]
    states: tuple[BlockState, ...]


class Job(NamedTuple):
    """A run, ready to start: all that the loop needs, wherever it comes from.

    Attributes:
      config: its configuration.
      model, engine, source: what trains, how, and on what.
      splits: `train` (as it is trained on), and `validation` and `test` where there are such.
      stats: the pixel statistics that all splits share; None where nothing is scaled.
      total_steps: batches in the run.
      begin: how the first states of the blocks are made: fresh, or of a trained network.
      about: what its network must be told besides its weights, to predict.
      data: gives that by which it knows its data again, see `same_data`; {} where its configuration says it.  They are
        looked at when somebody asks, once.
      eval_batch: examples that are evaluated at once.
      trackers: who is told how it goes, besides the files of the workdir.
      callbacks: called after each epoch, see `EpochEnd`.
    """

    config: RunConfig
    model: Model
    engine: Engine
    source: Source
    splits: Mapping[str, data.Dataset | data.Stream]
    stats: tuple[np.ndarray, np.ndarray] | None
    total_steps: int
    begin: Beginning
    about: About | None = None
    data: Callable[[], Mapping[str, Any]] = dict
    eval_batch: int = 500
    trackers: Sequence[Tracker] = ()
    callbacks: Sequence[Callable[[EpochEnd], Any]] = ()

    @property
    def specs(self) -> tuple[Spec, ...]:
        """The shapes of its blocks' states, for `restore`."""
        return tuple(specs(self.model)[0])

    @property
    def evaluated(self) -> tuple[str, ...]:
        """The splits that are evaluated after each epoch."""
        return tuple(split for split in ("validation", "test") if split in self.splits)

    def eval_batches(self, split: str) -> EvalBatches:
        """Masked batches of a split, in its order, without augmentation."""
        return split_batches(self.splits[split], self.eval_batch, self.stats, self.model.x_spec.dtype)


def split_batches(
    split: data.Dataset | data.Stream, size: int, stats: tuple[np.ndarray, np.ndarray] | None, dtype: Any
) -> EvalBatches:
    """Masked batches of a split, in its order, without augmentation.

    Args:
      split: what to go through.
      size: of a batch.
      stats: mean and deviation of each channel; None where nothing is scaled.
      dtype: of inputs as the model takes them.
    """
    mean, std = stats or (None, None)
    if isinstance(split, data.Stream):
        return data.stream_batches(split, size, mean, std, float_of(dtype))
    return data.eval_batches(split, size, mean, std, float_of(dtype))


def float_of(dtype: Any) -> Any:
    """The dtype that inputs are converted to, or None where the model takes whole numbers as they are."""
    return dtype if jnp.issubdtype(dtype, jnp.floating) else None


def prepare(config: Config, *, resume: bool = True) -> Job:
    """Builds the model, the engine and the data of a run.

    Args:
      config: the run.
      resume: whether it may go on in its workdir, which must then be of the same run; False only looks at one.

    Returns:
      A `Job`, whose configuration says which engine, how many micro-batches and, of stages, which cuts it has.

    Raises:
      ValueError: for anything in the configuration that cannot be, a workdir of another configuration or of other data,
        or another process that reads other data.
      FileNotFoundError: if the data are not there, saying how to get them.
    """
    if resume:
        check_workdir(config)
    if config.dtype == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ValueError("--dtype=float64 needs 64-bit types switched on: JAX_ENABLE_X64=1.")
    inputs = read_inputs(config)
    known = cache(partial(known_by, config, inputs))
    if resume:
        check_same_data(known, config.workdir)
    model = build_model(config, inputs)
    steps = config.epochs * inputs.epoch_steps
    saved = saved_config(config.workdir) if folder_of(config.workdir).is_dir() else None
    check_heard(config, model, inputs.splits, steps, saved)
    check_heard_of_names(config, model, inputs, saved)
    if resume and saved is not None:
        check_placement(config, saved, model)
    config = resolve(config, model)
    asked = config.grow_from is not None or config.begin_from is not None
    fresh = asked and checkpoints_of(config).find() is None  # later what it began with need not be there
    about = about_of(model, inputs.train, inputs.stats, lengths=inputs.lengths, epoch_steps=inputs.epoch_steps)
    begin = beginning(model, config, about) if fresh else Beginning(partial(init, model))
    engine = build_engine(config, model)
    source = build_source(config, inputs, engine)
    return Job(config, model, engine, source, inputs.splits, inputs.stats, steps, begin, about, known)


def checkpoints_of(config: RunConfig, log: Callable[[str], None] = lambda line: None) -> Checkpoints:
    """The checkpoints of a run; one of a run of another configuration is none of them."""
    folder = folder_of(config.workdir)
    accept = lambda found: check_same(config, found["config"], folder)
    return Checkpoints(folder / "checkpoints", log, accept)


def check_workdir(config: RunConfig) -> None:
    """Refuses a workdir that was made by a run of another configuration, or what is no folder of a run's own."""
    folder = folder_of(config.workdir)
    check_folder(folder)
    saved = saved_config(config.workdir)
    if saved is not None:
        check_same(config, saved, folder)


def check_still(config: RunConfig, jobs: Sequence[Job]) -> None:
    """Looks again at a workdir that is owned now: another may have owned it since `prepare` looked.

    Raises:
      InUseError: if a run of another configuration, of other data, or on another placement, was begun in it meanwhile.
    """
    try:
        check_workdir(config)
        for job in jobs:
            saved = saved_config(job.config.workdir)
            if saved is not None:
                check_same(job.config, saved, folder_of(job.config.workdir))
                check_placement(job.config, saved, job.model)
            check_same_data(job.data, job.config.workdir)
    except ValueError as error:
        raise InUseError(f"another run was begun in {config.workdir} meanwhile: {error}") from None
