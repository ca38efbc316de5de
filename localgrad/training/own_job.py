"""From a model and data that were given to everything a run needs; what can be refused is refused here."""

import json
from collections.abc import Sequence
from functools import partial
from os import PathLike

from localgrad import data, processes
from localgrad.base import BlockState, Engine, Model, Source
from localgrad.pipeline import init
from localgrad.prediction import About, Predictor, about_of
from localgrad.report import params_sha256
from localgrad.training.beginnings import Beginning, Trained, trained_in, transferred
from localgrad.training.builders import build_engine
from localgrad.training.config_file import check_same, saved_config
from localgrad.training.finished import check_left
from localgrad.training.job import Job, float_of
from localgrad.training.no_effect import check_heard
from localgrad.training.own_config import OwnConfig, model_digest, names_of
from localgrad.training.own_data import GivenData, Read, preprocessing, read_given
from localgrad.training.own_program import or_saved, program_of
from localgrad.training.placement import check_placement, resolve
from localgrad.training.workdir import as_json, check_folder, folder_of

Begin = str | PathLike | Predictor | Trained | Sequence[BlockState] | None


def prepare_own(model: Model, given: GivenData, config: OwnConfig, begin: Begin = None) -> Job:
    """Builds the engine and the data of a run whose model is given.

    Args:
      model: the model.
      given: the data, and what is done to them.
      config: how long, from which seed, where; what is told of model and data is filled in here.
      begin: what training begins with, see `localgrad.fit`.

    Returns:
      A `Job`, without trackers and callbacks.

    Raises:
      ValueError, FileNotFoundError: for what cannot be, or a workdir of another run.
    """
    folder = folder_of(config.workdir)
    check_folder(folder)
    saved = saved_config(folder)
    read = read_given(model, given)
    trained = _trained(begin)
    config = OwnConfig(
        **{
            **vars(config),
            "batch_size": model.batch_size,
            "model": model_digest(model),
            "program": or_saved(program_of(model, given.augment, read.like), saved),
            "method": model.method,
            "net": names_of(model),
            "task": f"{model.task.name}({model.task.outputs})",
            "dataset": _name(given, read),
            "data": read.says,
            "evaluated": read.evaluated,
            "preprocessing": preprocessing(given, read.stats),
            "begin": "" if trained is None else params_sha256(trained.states)[:16],
            "trials": model.trials or 1,
        }
    )
    if saved is not None:
        check_same(config, saved, folder)
        check_placement(config, saved, model)
    asked, config = config, resolve(config, model)
    processes.agree(
        lambda: {"the data": read.says, "the run": json.loads(as_json({**config.to_json(), "workdir": ""}))}
    )
    engine = build_engine(config, model)
    source = _source(config, model, given, read, engine)
    about = _about(model, given, read, source)
    start = Beginning(partial(init, model)) if trained is None else transferred(model, trained, about)
    start = start._replace(notes=(*read.like.notes, *start.notes))
    total = config.epochs * source.steps_per_epoch
    check_heard(asked, model, read.splits, total, saved)
    job = Job(config, model, engine, source, read.splits, read.stats, total, start, about, eval_batch=model.batch_size)
    check_left(config, [job])
    return job


def _trained(begin: Begin) -> Trained | None:
    """The network that a run is to begin with."""
    if begin is None or isinstance(begin, Trained):
        return begin
    if isinstance(begin, str | PathLike):
        return trained_in(begin)
    if isinstance(begin, Predictor):
        if begin.states is None:
            raise ValueError("this predictor was opened from an export, which has no blocks: give the run's workdir.")
        return Trained(begin.states, begin.about)
    return Trained(tuple(begin))


def _source(config: OwnConfig, model: Model, given: GivenData, read: Read, engine: Engine) -> Source:
    mean, std = read.stats or (None, None)
    train, dtype = read.splits["train"], float_of(model.x_spec.dtype)
    if isinstance(train, data.Stream):
        assert read.look is not None
        return data.stream_source(
            train, read.look, batch_size=model.batch_size, mean=mean, std=std, dtype=dtype, put=engine.put
        )
    return data.source(
        train,
        batch_size=model.batch_size,
        seed=config.seed,
        mean=mean,
        std=std,
        dtype=dtype,
        augment=given.augment,
        views=given.views,
        trials=model.trials,
        resident=config.resident,
        put=engine.put,
    )


def _name(given: GivenData, read: Read) -> str:
    """What tables call the data."""
    return given.name or ("own data" if read.like.name == "train" else read.like.name)


def _about(model: Model, given: GivenData, read: Read, source: Source) -> About:
    like = read.like._replace(name=_name(given, read))
    return about_of(model, like, read.stats, epoch_steps=source.steps_per_epoch)
