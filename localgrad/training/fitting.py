"""`localgrad.fit`: trains a model of your own modules on your own data, in the one loop."""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, NamedTuple

from localgrad import data
from localgrad.base import BlockState, Model
from localgrad.prediction import About, Predictor, make_predictor
from localgrad.report import params_sha256
from localgrad.training.beginnings import Trained
from localgrad.training.job import EpochEnd, Job
from localgrad.training.lock import InUseError
from localgrad.training.own_config import OwnConfig, checked_hyperparameters
from localgrad.training.own_data import GivenData
from localgrad.training.own_job import Begin, prepare_own
from localgrad.training.restoring import find_checkpoint, restore
from localgrad.training.run import run
from localgrad.training.stopping import Interrupted
from localgrad.training.trackers import Tracker
from localgrad.training.workdir import folder_of, read_records


class Fitted(NamedTuple):
    """A run of `fit` that is done.

    Attributes:
      model: what was trained.
      states: one `BlockState` a block, after the last batch.
      best: those of the best epoch on validation, the first of equals; without validation the last.
      summary: the object of `summary.json`.
      records: those of `metrics.jsonl`.
      about: what the network must be told besides its weights, to predict.
      workdir: the folder of the run; None where it kept no files.
    """

    model: Model
    states: tuple[BlockState, ...]
    best: tuple[BlockState, ...]
    summary: dict[str, Any]
    records: list[dict[str, Any]]
    about: About
    workdir: str | None

    def predictor(self, best: bool = True) -> Predictor:
        """The trained network on new inputs, raw ones.

        Args:
          best: of the best epoch on validation, or after the last batch.

        Raises:
          ValueError: a model of several trials.
        """
        return make_predictor(self.model, self.best if best else self.states, self.about)


def fit(
    model: Model,
    train: Any,
    validation: Any = None,
    *,
    epochs: int,
    workdir: str | PathLike | None = None,
    stages: int = 1,
    test: Any = None,
    stop_after: int | None = None,
    seed: int = 0,
    begin: Begin | Fitted = None,
    mean: Any = None,
    std: Any = None,
    normalise: bool | None = None,
    augment: data.Augment | str | Sequence[str] | None = None,
    views: int = 1,
    fields: tuple[str, str] | None = None,
    label_names: Sequence[str] | None = None,
    name: str | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    trackers: Sequence[Tracker] = (),
    callbacks: Sequence[Callable[[EpochEnd], Any]] = (),
    log: Callable[[str], None] = print,
    **placement: Any,
) -> Fitted:
    """Trains a model of any modules on any data, with checkpoints, records, evaluation, and a way to go on.

    The same call again resumes where a kill left it, or returns what is done; with more epochs it goes on.  Everything
    happens in the loop that `localgrad train` runs.

    Args:
      model: what a method makes of a network, such as `localgrad.al(blocks, x_spec, classes, tx=...)`; its `x_spec`
        says the size of a batch.
      train: a pair of arrays `(x, y)`, or a dict of them; a `localgrad.data.Dataset`; the path of a folder with a
        folder of pictures for each class, or of a CSV file; or anything that can be gone through again and again, of
        pairs or dicts of a batch or of one example (a DataLoader, tf.data, a Hugging Face dataset, grain).
      validation: the same, or the share of the training arrays that is held out, such as 0.1.  It chooses the best
        epoch.
      epochs: passes over the training set.
      workdir: folder of everything the run writes; None keeps nothing but what is returned.
      stages: devices that the blocks are spread over.
      test: a third split, evaluated after each epoch, which chooses nothing.
      stop_after: epochs without a better validation after which training ends; None goes through all of them.
      seed: of initialisation, order, augmentation and dropout.
      begin: a trained network whose layers this one begins with where they fit, its heads and optimizers anew: a
        workdir, a `Predictor`, what `fit` returned, or states.
      mean, std: of each channel, in units of the raw inputs; by default those of the training split where it is scaled.
      normalise: scale inputs by mean and deviation; None does so with bytes (uint8) and leaves all else as it is.
      augment: `(keys (B,), inputs (B, ...)) -> inputs`, or names such as `"crop,flip"`; of arrays alone.
      views: how often each example is augmented, for a model that takes so many views.
      fields: names of the inputs and the targets, where they come as dicts or columns.
      label_names: what each class is called, in the order of their numbers; folders and CSV files are numbered by it.
      name: the data's name in tables.
      hyperparameters: names with numbers or words that belong to the run and stand nowhere in it: a workdir is refused
        where they differ, as it is where modules, losses or optimizers compute something else.
      trackers: who is told of every call and every epoch, see `localgrad.training.Tracker`.
      callbacks: called with an `EpochEnd` after each epoch; True ends the training, and the same call returns what is
        done then.
      log: takes a line of text for the user.
      placement: fields of `localgrad.training.run_config.RunConfig`, such as `data_parallel`, `cuts`, `engine`,
        `staleness`, `micro_batches`, `resident`, `checkpoint_every_steps`, `tensorboard` and `trace`.

    Returns:
      A `Fitted`; its `predictor()` takes raw inputs.

    Raises:
      ValueError, FileNotFoundError: before anything is compiled, for what cannot be, or a workdir of another run.
      Interrupted, DivergedError, InUseError, OSError: as `localgrad.training.run_job`.
    """
    if not isinstance(model, Model):
        raise TypeError(f"model is what a method makes, such as localgrad.al(...); got {type(model).__name__}.")
    chosen: Any = data.augmentation(augment) if isinstance(augment, str | list | tuple) else augment
    given = GivenData(train, validation, test, fields, label_names, name, mean, std, normalise, chosen, views)
    start = Trained(begin.best, begin.about) if isinstance(begin, Fitted) else begin
    with _folder(workdir) as folder, _as_arguments():
        config = _config(placement, epochs, stages, stop_after, seed, str(folder), hyperparameters)
        job = prepare_own(model, given, config, start)._replace(trackers=tuple(trackers), callbacks=tuple(callbacks))
        try:
            return _carried_out(job, None if workdir is None else str(workdir), log)
        except Interrupted as stop:
            if workdir is None:
                stop.add_note("No workdir was given, so that nothing is kept to go on from.")
            raise


def _carried_out(job: Job, workdir: str | None, log: Callable[[str], None]) -> Fitted:
    """Runs a job, and reads what came of it."""
    summary = run(job.config, [job], log)
    folder = job.config.workdir
    last = restore(job.specs, folder)
    _, found = find_checkpoint(folder, best=True, log=log)
    best = last if found is None or found["step"] == last.step else restore(job.specs, folder, best=True)
    records = read_records(folder_of(folder) / "metrics.jsonl")
    assert job.about is not None
    if not summary:  # of several processes the first alone has it
        summary = {"params_sha256": params_sha256(last.states)}
    return Fitted(job.model, last.states, best.states, summary, records, job.about, workdir)


def _config(
    placement: Mapping[str, Any],
    epochs: int,
    stages: int,
    stop_after: int | None,
    seed: int,
    workdir: str,
    hyperparameters: Mapping[str, Any] | None,
) -> OwnConfig:
    """The configuration of the arguments; what is no argument is refused.

    Raises:
      TypeError: an argument that there is not.
    """
    taken = {"epochs", "stages", "stop_after", "seed", "workdir", "batch_size"}
    known = [
        name for name, about in OwnConfig.options().items() if about.group != "What was given" and name not in taken
    ]
    unknown = sorted(set(placement) - set(known))
    if unknown:
        raise TypeError(
            f"fit() has no argument {unknown[0]!r}; besides those of its signature it has {', '.join(known)}."
        )
    more: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in placement.items()}
    return OwnConfig(
        epochs=epochs,
        stages=stages,
        stop_after=stop_after,
        seed=seed,
        workdir=workdir,
        hyperparameters=checked_hyperparameters(hyperparameters),
        **more,
    )


@contextmanager
def _folder(workdir: str | PathLike | None) -> Iterator[Any]:
    """The workdir, or one that is gone afterwards."""
    if workdir is not None:
        yield workdir
        return
    with tempfile.TemporaryDirectory(prefix="localgrad-") as folder:
        yield folder


@contextmanager
def _as_arguments() -> Iterator[None]:
    """Says of an argument what the command line would say of a flag: `workdir=` and not `--workdir=`."""
    try:
        yield
    except (ValueError, FileNotFoundError, InUseError) as error:
        error.args = tuple(re.sub(r"--(?=[a-z_]+)", "", arg) if isinstance(arg, str) else arg for arg in error.args)
        raise
