"""From a configuration to everything a run needs; all that can be refused is refused here, before any compilation."""

from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from localgrad import data, processes
from localgrad.base import Block, BlockState, Engine, Key, Model, Source
from localgrad.blocks import NETWORKS, Vectors, networks_of
from localgrad.evaluation.accuracy import EvalBatches
from localgrad.methods import METHODS, freeze, graft, kernels, trials
from localgrad.pipeline import init, sequential, specs, spmd
from localgrad.training.checkpoints import Checkpoint, Checkpoints
from localgrad.training.config import Config
from localgrad.training.config_file import check_same, read_config, saved_config
from localgrad.training.lock import InUseError
from localgrad.training.memory import check_sizes
from localgrad.training.optimizers import make_optimizer
from localgrad.training.options import bind, call
from localgrad.training.placement import check_placement, delays, resolve
from localgrad.training.workdir import check_folder, folder_of

_EVAL_BATCH = 500


class Job(NamedTuple):
    """A run, ready to start.

    Attributes:
      config: its configuration.
      model, engine, source: what trains, how, and on what.
      splits: `train` (as it is trained on), `validation` and `test`.
      stats: the pixel statistics that all splits share; None of texts.
      total_steps: batches in the run.
      begin: key -> the first states of the blocks: fresh, or grown from a shorter network.
    """

    config: Config
    model: Model
    engine: Engine
    source: Source
    splits: dict[str, data.Dataset]
    stats: tuple[np.ndarray, np.ndarray] | None
    total_steps: int
    begin: Callable[[Key], tuple[BlockState, ...]]

    def eval_batches(self, split: str) -> EvalBatches:
        """Masked batches of a split, in its order, without augmentation."""
        mean, std = self.stats or (None, None)
        return data.eval_batches(self.splits[split], _EVAL_BATCH, mean, std, self.model.x_spec.dtype)


def prepare(config: Config, *, resume: bool = True) -> Job:
    """Builds the model, the engine and the data of a run.

    Args:
      config: the run.
      resume: whether it may go on in its workdir, which must then be of the same run; False only looks at one.

    Returns:
      A `Job`, whose configuration says which engine, how many micro-batches and, of stages, which cuts it has.

    Raises:
      ValueError: for anything in the configuration that cannot be, a workdir of another configuration, or another
        process that reads other data.
      FileNotFoundError: if the data are not there, saying how to get them.
    """
    if resume:
        check_workdir(config)
    dtype = jnp.dtype(config.dtype)
    if dtype == jnp.float64 and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ValueError("--dtype=float64 needs 64-bit types switched on: JAX_ENABLE_X64=1.")
    augment = data.augmentation(config.augment) if config.augment else None
    train, validation, test = (
        data.get(
            config.dataset,
            split,
            data_dir=config.data_dir,
            max_length=config.max_length,
            vocabulary=config.vocabulary,
        )
        for split in data.SPLITS
    )
    train = data.with_label_noise(data.first(train, config.limit), config.label_noise)
    if config.batch_size > len(train.labels):
        raise ValueError(
            f"--batch_size={config.batch_size} is more than the {len(train.labels)} training examples of {train.name}."
        )
    processes.agree(lambda: _read(config, dict(zip(data.SPLITS, (train, validation, test), strict=True))))
    lengths = () if train.words is None else data.length_groups(train.inputs.shape[1])
    epoch_steps = data.steps_per_epoch(train, config.batch_size, lengths)
    total_steps = config.epochs * epoch_steps
    network, options = _network(config, train, lengths), _method_options(config)
    views = options.get("views", 1)
    if views != 1 and augment is None:
        raise ValueError(
            f"views={views} of an example differ by their augmentation: give --augment, for example crop,flip."
        )
    shared: dict[str, Any] = {
        "steps": total_steps,
        "epoch": epoch_steps,
        "decay_times_rate": config.decay_times_rate,
        "decayed": _decayed(config),
        "clip_norm": config.clip_norm,
    }
    optimizer = make_optimizer(
        config.optimizer, config.learning_rate, schedule=config.schedule, weight_decay=config.weight_decay, **shared
    )
    feedback = _feedback_optimizer(config, shared)
    x_spec = jax.ShapeDtypeStruct(
        (config.batch_size, *train.inputs.shape[1:]), dtype if train.words is None else jnp.dtype(jnp.int32)
    )
    method = METHODS[config.method]
    model = call("method", lambda: method(network, x_spec, train.classes, optimizer, feedback, **options))
    _check_decay(config, model)
    model = freeze(model, config.frozen)
    count = config.trials if config.trials > 1 else None
    if count is not None:
        model = trials(model, count)
    check_sizes(model)
    saved = saved_config(config.workdir) if resume else None
    if saved is not None:
        check_placement(config, saved, model)
    config = resolve(config, model)
    growing = config.grow_from is not None and checkpoints_of(config).find() is None
    begin = _growing(model, config) if growing else partial(init, model)

    engine = _engine(config, model)
    stats = data.pixel_stats(train) if train.words is None else None
    mean, std = stats or (None, None)
    source = data.source(
        train,
        batch_size=config.batch_size,
        seed=config.seed,
        mean=mean,
        std=std,
        lengths=lengths,
        dtype=dtype,
        augment=augment,
        views=views,
        trials=count,
        resident=config.resident,
        put=engine.put,
    )
    return Job(
        config,
        model,
        engine,
        source,
        {"train": train, "validation": validation, "test": test},
        stats,
        total_steps,
        begin,
    )


def checkpoints_of(config: Config, log: Callable[[str], None] = lambda line: None) -> Checkpoints:
    """The checkpoints of a run; one of a run of another configuration is none of them."""
    folder = folder_of(config.workdir)
    accept = lambda found: check_same(config, found["config"], folder)
    return Checkpoints(folder / "checkpoints", log, accept)


def check_still(config: Config, jobs: Sequence[Job]) -> None:
    """Looks again at a workdir that is owned now: another may have owned it since `prepare` looked.

    Raises:
      InUseError: if a run of another configuration, or on another placement, was begun in it meanwhile.
    """
    try:
        check_workdir(config)
        for job in jobs:
            saved = saved_config(job.config.workdir)
            if saved is not None:
                check_same(job.config, saved, folder_of(job.config.workdir))
                check_placement(job.config, saved, job.model)
    except ValueError as error:
        raise InUseError(f"another run was begun in {config.workdir} meanwhile: {error}") from None


def restore(job: Job, workdir: str | PathLike, *, best: bool = False, log: Callable[[str], None] = print) -> Checkpoint:
    """The newest sound checkpoint of a run, or the best on validation.

    Args:
      job: what the run's configuration makes.
      workdir: the run's folder; nothing in it is changed, so the run may go on meanwhile.
      best: the epoch that `summary.json` names, the first of equals; with batched trials that of their mean.
      log: takes a line for each checkpoint that cannot be used.

    Raises:
      FileNotFoundError: if it has none yet, or none that can be used.
      ValueError: if it is of another network.
    """
    folder, saved = folder_of(workdir), saved_config(workdir)

    def accept(found: dict[str, Any]) -> None:
        if saved is not None:
            check_same(Config.from_json(saved), found.get("config", saved), folder)

    checkpoints = Checkpoints(folder / "checkpoints", log, accept)
    found = checkpoints.restore(specs(job.model)[0], best=best)
    if best and found is not None:
        _check_best(checkpoints, found.step, log)
    some = checkpoints.steps()
    checkpoints.close()
    if found is None and some:
        raise FileNotFoundError(f"{workdir} has no checkpoint that can be used; it has {', '.join(map(str, some))}.")
    if found is None:
        raise FileNotFoundError(f"{workdir} has no checkpoint yet: let the run reach its first one.")
    return found


def _check_best(checkpoints: Checkpoints, step: int, log: Callable[[str], None]) -> None:
    """Says so if the best on validation, by the newest records, is gone, and another stands in for it."""
    newest = checkpoints.find()
    records = [] if newest is None else checkpoints.meta(newest["step"])["records"]
    validation = {record["step"]: np.mean(record["accuracy"]) for record in records if record["split"] == "validation"}
    best = max(validation, key=lambda step: (validation[step], -step), default=step)
    if best != step:
        log(f"the best on validation was checkpoint {best}, which is lost; {step} is the best of those that are left")


def _read(config: Config, splits: dict[str, data.Dataset]) -> dict[str, Any]:
    """What a run reads from the disk, for its processes to compare: each may be on a machine of its own."""
    facts: dict[str, Any] = {
        f"{field} of the {split} split": value
        for split, dataset in splits.items()
        for field, value in data.fingerprint(dataset).items()
    }
    for folder in filter(None, (config.workdir, config.grow_from)):
        facts[f"the checkpoints in {folder}"] = Checkpoints(folder_of(folder) / "checkpoints").steps()
        facts[f"the summary in {folder}"] = (folder_of(folder) / "summary.json").exists()
    if config.word_vectors is not None and folder_of(config.word_vectors).is_file():
        facts["the bytes of --word_vectors"] = folder_of(config.word_vectors).stat().st_size
    return facts


def _engine(config: Config, model: Model) -> Engine:
    """The engine of a resolved configuration."""
    if config.engine == "sequential":
        return sequential(model, delays(config, model))
    return spmd(
        model,
        stages=config.stages,
        data_parallel=config.data_parallel,
        cuts=config.cuts,
        staleness=config.staleness,
        micro_batches=config.micro_batches,
    )


def _feedback_optimizer(
    config: Config, shared: dict[str, Any]
) -> Callable[[float], optax.GradientTransformation] | None:
    """The optimizer of feedback that learns: as the weights', but for what has a flag; None if nothing has one."""
    names = ("optimizer", "learning_rate", "schedule", "weight_decay")
    given = {name: getattr(config, f"feedback_{name}") for name in names}
    own = {name: value for name, value in given.items() if value is not None}
    if own and not METHODS[config.method].trains_feedback:
        flag = f"--feedback_{next(iter(own))}"
        known = ", ".join(name for name, method in METHODS.items() if method.trains_feedback)
        raise ValueError(f"{flag} is for methods whose feedback learns ({known}); {config.method!r} has none.")
    if not own:
        return None
    chosen = {name: own.get(name, getattr(config, name)) for name in names}
    return make_optimizer(chosen.pop("optimizer"), chosen.pop("learning_rate"), **chosen, **shared)


def _decayed(config: Config) -> Callable[[Any], Any] | None:
    """The mask of what decays."""
    named = {"recipe": METHODS[config.method].decays, "kernels": (), "all": None}
    groups = named.get(config.decay_on, tuple(config.decay_on.split("+")))
    return None if groups is None else kernels(*groups)


def _check_decay(config: Config, model: Model) -> None:
    """Refuses to decay groups that the method does not have."""
    groups = sorted({group for state in specs(model)[0] for group in state.params})
    if config.decay_on not in ("recipe", "kernels", "all") and not set(config.decay_on.split("+")) <= set(groups):
        raise ValueError(
            f"--decay_on={config.decay_on}: choose recipe, kernels or all, or some of the groups of parameters that "
            f"method {config.method!r} has, joined by +: {', '.join(groups)}."
        )


def _growing(model: Model, config: Config) -> Callable[[Key], tuple[BlockState, ...]]:
    """Initialisation that goes on from a shorter network; one that does not fit is refused at once."""
    shorter = read_config(str(config.grow_from))
    for name in ("method", "dataset", "trials", "dtype"):
        ours, theirs = getattr(config, name), getattr(shorter, name)
        if ours != theirs:
            raise ValueError(
                f"--grow_from={config.grow_from} has --{name}={theirs}, this run {ours!r}: they must agree."
            )
    states = restore(prepare(shorter, resume=False), shorter.workdir).states
    graft(specs(model)[0], states)
    return lambda key: graft(init(model, key), states)


def _network(config: Config, train: data.Dataset, lengths: Sequence[int]) -> list[Block]:
    network, holds = NETWORKS[config.net], "images" if train.words is None else "texts"
    if network.reads != holds:
        raise ValueError(
            f"net {config.net!r} does not read the {holds} of {train.name}; choose {', '.join(networks_of(holds))}."
        )
    given: dict[str, Any] = {name: getattr(config, name) for name in ("widths", "activation", "norm", "dropout")}
    if config.blocks is not None:
        given["blocks"] = config.blocks[0] if len(config.blocks) == 1 else config.blocks
    own = ("variant", "words", "vectors", "buckets", "dtype")
    options = bind("net", config.net, network.make, given, config.net_options, own)
    if train.words is not None:
        options |= {"words": len(train.words), "dtype": jnp.dtype(config.dtype)}
        if config.net != "embedding":
            options["buckets"] = lengths if config.trials == 1 else ()  # vmap would run every one of them
    if config.word_vectors is not None:
        if train.words is None:
            raise ValueError(f"--word_vectors are of words, and {train.name} holds images.")
        options["vectors"] = Vectors(*data.read_vectors(config.word_vectors, train.words))
    return call("net", lambda: network(**options))


def _method_options(config: Config) -> dict[str, Any]:
    given = {name: getattr(config, name) for name in ("profile", "target_width", "bridge")}
    own = ("network", "x_spec", "classes", "tx")
    return bind("method", config.method, METHODS[config.method].make, given, config.method_options, own)


def check_workdir(config: Config) -> None:
    """Refuses a workdir that was made by a run of another configuration, or what is no folder of a run's own."""
    folder = folder_of(config.workdir)
    check_folder(folder)
    saved = saved_config(config.workdir)
    if saved is not None:
        check_same(config, saved, folder)
