"""From a configuration to everything a run needs; all that can be refused is refused here, before any compilation."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from localgrad import data
from localgrad.base import Block, Engine, Model, Source
from localgrad.blocks import NETWORKS
from localgrad.methods import METHODS, trials
from localgrad.pipeline import sequential, spmd
from localgrad.training.config import Config, check_same
from localgrad.training.evaluation import EvalBatches
from localgrad.training.optimizers import make_optimizer
from localgrad.training.options import bind

_EVAL_BATCH = 500


class Job(NamedTuple):
    """A run, ready to start.

    Attributes:
      config: its configuration.
      model, engine, source: what trains, how, and on what.
      splits: the validation and the test split, and the pixel statistics that all splits share.
      total_steps: batches in the run.
    """

    config: Config
    model: Model
    engine: Engine
    source: Source
    splits: dict[str, data.Dataset]
    stats: tuple[np.ndarray, np.ndarray]
    total_steps: int

    def eval_batches(self, split: str) -> EvalBatches:
        """Masked batches of the validation or the test split."""
        dtype = self.model.x_spec.dtype
        return data.eval_batches(self.splits[split], _EVAL_BATCH, *self.stats, dtype=dtype)


def prepare(config: Config) -> Job:
    """Builds the model, the engine and the data of a run.

    Args:
      config: the run.

    Returns:
      A `Job`.

    Raises:
      ValueError: for anything in the configuration that cannot be, or a workdir of another configuration.
      FileNotFoundError: if the data are not there, saying how to get them.
    """
    for kind, name, known in (("method", config.method, METHODS), ("net", config.net, NETWORKS)):
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}; there are {', '.join(known)}.")
    check_workdir(config)
    dtype = jnp.dtype(config.dtype)
    if dtype == jnp.float64 and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ValueError("--dtype=float64 needs 64-bit types switched on: JAX_ENABLE_X64=1.")
    augment = data.augmentation(config.augment) if config.augment else None
    train, validation, test = (data.get(config.dataset, split, data_dir=config.data_dir) for split in data.SPLITS)
    train = train._replace(images=train.images[: config.limit], labels=train.labels[: config.limit])
    if config.batch_size > len(train.labels):
        raise ValueError(
            f"--batch_size={config.batch_size} is more than the {len(train.labels)} training examples of {train.name}."
        )
    total_steps = config.epochs * (len(train.labels) // config.batch_size)

    network, options = _network(config), _method_options(config)
    views = options.get("views", 1)
    if views != 1 and augment is None:
        raise ValueError(
            f"views={views} of an example differ by their augmentation: give --augment, for example crop,flip."
        )
    optimizer = make_optimizer(
        config.optimizer,
        config.learning_rate,
        schedule=config.schedule,
        steps=total_steps,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )
    x_spec = jax.ShapeDtypeStruct((config.batch_size, *train.images.shape[1:]), dtype)
    model = METHODS[config.method](network, x_spec, train.classes, optimizer, **options)
    count = config.trials if config.trials > 1 else None
    if count is not None:
        model = trials(model, count)

    if config.stages == config.data_parallel == jax.process_count() == 1:
        engine = sequential(model)
    else:
        engine = spmd(model, stages=config.stages, data_parallel=config.data_parallel, cuts=config.cuts)
    stats = data.pixel_stats(train)
    source = data.source(
        train,
        batch_size=config.batch_size,
        seed=config.seed,
        mean=stats[0],
        std=stats[1],
        dtype=dtype,
        augment=augment,
        views=views,
        trials=count,
        resident=config.resident,
        put=engine.put,
    )
    return Job(config, model, engine, source, {"validation": validation, "test": test}, stats, total_steps)


def _network(config: Config) -> list[Block]:
    given: dict[str, Any] = {name: getattr(config, name) for name in ("widths", "activation", "norm", "dropout")}
    if config.blocks is not None:
        given["blocks"] = config.blocks[0] if len(config.blocks) == 1 else config.blocks
    make = NETWORKS[config.net]
    return make(**bind("net", config.net, make, given, config.net_options, own=("variant",)))


def _method_options(config: Config) -> dict[str, Any]:
    given = {name: getattr(config, name) for name in ("profile", "target_width", "bridge")}
    own = ("network", "x_spec", "classes", "tx")
    return bind("method", config.method, METHODS[config.method].make, given, config.method_options, own)


def check_workdir(config: Config) -> None:
    """Refuses a workdir that was made by a run of another configuration, or a file in its place."""
    path = Path(config.workdir) / "config.json"
    if Path(config.workdir).exists() and not Path(config.workdir).is_dir():
        raise ValueError(f"--workdir={config.workdir} is a file; give a folder.")
    if path.exists():
        check_same(config, json.loads(path.read_text()), path)
