"""From a configuration and its data to a network, a model, an engine and a source: one builder each."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad import data
from localgrad.base import Block, Engine, Model, Source
from localgrad.blocks import NETWORKS, Vectors, compute_dtype, looks_ahead, networks_of
from localgrad.methods import METHODS, coarse_to_fine, double_buffered, freeze, heads_alone, layerwise, trials
from localgrad.pipeline import check_replay, mpmd, replayed, sequential, spmd
from localgrad.training.config import OPTIONS, Config
from localgrad.training.inputs import Inputs
from localgrad.training.memory import check_sizes
from localgrad.training.options import bind, call
from localgrad.training.placement import delays
from localgrad.training.recipes import build_optimizers, check_decay, updates_by_turns
from localgrad.training.run_config import RunConfig


def build_network(config: Config, inputs: Inputs) -> list[Block]:
    """The network, whose options are checked by name.

    Raises:
      ValueError: for a network that does not read these data, or options that it does not have.
    """
    words = inputs.train.words
    network, holds = NETWORKS[config.net], "images" if words is None else "texts"
    if network.reads != holds:
        those = ", ".join(networks_of(holds))
        raise ValueError(f"net {config.net!r} does not read the {holds} of {inputs.train.name}; choose {those}.")
    given = _arguments(config, "net")
    if config.blocks is not None:
        given["blocks"] = config.blocks[0] if len(config.blocks) == 1 else config.blocks
    own = ("variant", "words", "vectors", "buckets", "dtype")
    options = bind("net", config.net, network.make, given, config.net_options, own)
    if words is not None:
        buckets = inputs.lengths if config.trials == 1 else ()  # vmap would run every one of them
        more = {"words": len(words), "dtype": jnp.dtype(config.long_dtype), "buckets": buckets}
        takes = inspect.signature(network.make).parameters
        options |= {name: value for name, value in more.items() if name in takes}
    if config.word_vectors is not None:
        if words is None:
            raise ValueError(f"--word_vectors are of words, and {inputs.train.name} holds images.")
        options["vectors"] = Vectors(*data.read_vectors(config.word_vectors, words))
    found = call("net", lambda: network(**options))
    return [compute_dtype(block) for block in found] if config.dtype == "bfloat16" else found


def build_model(config: Config, inputs: Inputs) -> Model:
    """The network under its method, with its optimizers: frozen below and in several trials where that is asked for.

    Raises:
      ValueError: for options, groups or sizes that cannot be.
    """
    network, options = build_network(config, inputs), method_options(config)
    views = _views(config)
    if views != 1 and inputs.augment is None:
        raise ValueError(
            f"views={views} of an example differ by their augmentation: give --augment, for example crop,flip."
        )
    optimizer, feedback = build_optimizers(config, inputs)
    dtype = jnp.dtype(config.long_dtype if inputs.train.words is None else jnp.int32)
    x_spec = jax.ShapeDtypeStruct((config.batch_size, *inputs.train.inputs.shape[1:]), dtype)
    method, task = METHODS[config.method], inputs.train.learnt
    seer = looks_ahead(network, x_spec) if task.ahead else None
    if seer is not None:
        raise ValueError(
            f"{inputs.train.name} is for the next token, and block {seer!r} of net {config.net!r} looks ahead at it: "
            "choose --net=transformer --net_options=causal=True, or another network that does not."
        )
    if "image_scale" in inspect.signature(method.make).parameters:
        options["image_scale"] = _image_scale(config, inputs)
    model = call("method", lambda: method(network, x_spec, task, optimizer, feedback, **options))
    if config.replay is not None and (config.schedule != "constant" or config.warmup_epochs):
        make = lambda ends: method(network, x_spec, task, *build_optimizers(config, inputs, ends), **options)
        model = _by_turns(config, inputs, model, make)
    check_decay(config, model)
    if config.coarse_labels:
        model = coarse_to_fine(model, [_groups(text, model) for text in config.coarse_labels])
    model = freeze(heads_alone(model) if config.heads_alone else model, config.frozen)
    model = _one_after_another(config, inputs, model)
    model = _with_two_versions(config, model)
    if config.trials > 1:
        model = trials(model, config.trials)
    check_sizes(model)
    return model


def _by_turns(config: Config, inputs: Inputs, model: Model, make: Callable[[Sequence[int]], Model]) -> Model:
    """A model to be replayed, whose every block has its schedule laid over its own turns.

    Args:
      make: the model of `updates_of` a block.
    """
    check_replay(model, config.replay or 0, config.replay_shares)
    each = updates_by_turns(config, inputs, len(model.blocks))
    return model._replace(blocks=tuple(make(ends).blocks[i] for i, ends in enumerate(each)))


def _one_after_another(config: Config, inputs: Inputs, model: Model) -> Model:
    """The model whose blocks learn one after another, where that is asked for."""
    if config.greedy_epochs is None:
        return model
    found = layerwise(model, config.greedy_epochs * inputs.epoch_steps)
    learning = sum(bool(block.tx) for block in model.blocks)
    if config.epochs != config.greedy_epochs * learning:
        raise ValueError(
            f"--greedy_epochs={config.greedy_epochs} of {learning} blocks that learn is a run of "
            f"--epochs={config.greedy_epochs * learning}; got {config.epochs}."
        )
    return found


def _with_two_versions(config: Config, model: Model) -> Model:
    """The model that learns once in several batches, where that is asked for.

    Raises:
      ValueError: for fewer batches than a gradient needs to come down, naming the flag.
    """
    if config.double_buffered is None:
        return model
    least = 2 * (config.stages - 1) if config.asynchronous is not None else 1
    if config.double_buffered < least:
        raise ValueError(
            f"--double_buffered={config.double_buffered}: a gradient comes down {config.stages} stages in {least} "
            f"batches; give at least {least}, or fewer --stages."
        )
    return double_buffered(model, config.double_buffered)


def _groups(text: str, model: Model) -> tuple[int, ...]:
    """The coarse class of each class, of an element of `--coarse_labels`.

    Raises:
      ValueError: for what is neither a number nor numbers with colons between them.
    """
    try:
        found = tuple(map(int, text.split(":")))
    except ValueError:
        raise ValueError(f"--coarse_labels is a list of numbers such as 2, or 0:0:1:1; got {text!r}.") from None
    classes = model.task.classes or 0
    return tuple(c * found[0] // classes for c in range(classes)) if len(found) == 1 and classes else found


def on_mesh(config: RunConfig) -> dict[str, Any]:
    """The arguments by which `spmd`, `mpmd` and `plan_of` lay a model over a mesh, from a configuration."""
    names = ("stages", "data_parallel", "cuts", "staleness", "asynchronous", "micro_batches")
    return {name: getattr(config, name) for name in names}


def build_engine(config: RunConfig, model: Model) -> Engine:
    """The engine of a resolved configuration."""
    if config.replay is not None:
        return replayed(model, config.replay, config.replay_shares)
    if config.engine == "sequential":
        return sequential(model, delays(config, model), weights=config.asynchronous or "stashed")
    if config.engine == "mpmd":
        return mpmd(model, **{name: value for name, value in on_mesh(config).items() if name != "data_parallel"})
    return spmd(model, **on_mesh(config))


def build_source(config: Config, inputs: Inputs, engine: Engine) -> Source:
    """Training batches, placed where the engine wants them."""
    mean, std = inputs.stats or (None, None)
    return data.source(
        inputs.train,
        batch_size=config.batch_size,
        seed=config.seed,
        mean=mean,
        std=std,
        lengths=inputs.lengths,
        dtype=jnp.dtype(config.long_dtype),
        augment=inputs.augment,
        views=_views(config),
        trials=config.trials if config.trials > 1 else None,
        resident=config.resident,
        put=engine.put,
    )


def method_options(config: Config) -> dict[str, Any]:
    """What the method is given by name.

    Raises:
      ValueError: for an option that it does not have.
    """
    given = _arguments(config, "method")
    own = ("network", "x_spec", "classes", "tx", "image_scale")
    return bind("method", config.method, METHODS[config.method].make, given, config.method_options, own)


def _views(config: Config) -> int:
    """How many views of an example the method has in a batch: what it is given, or its own default."""
    takes = inspect.signature(METHODS[config.method].make).parameters
    own = takes["views"].default if "views" in takes else 1
    return method_options(config).get("views", own)


def _image_scale(config: Config, inputs: Inputs) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation of pixels over the brightest of training: with them an input is an image in [0, 1] again.

    Raises:
      ValueError: for inputs that are no bytes, whose range is unknown.
    """
    if inputs.stats is None:  # texts, which the method itself refuses
        return None
    if inputs.train.inputs.dtype != np.uint8:
        raise ValueError(
            f"method {config.method!r} reconstructs images of bytes; those of {inputs.train.name} are "
            f"{inputs.train.inputs.dtype}."
        )
    brightest = max(1, int(inputs.train.inputs.max()))
    mean, std = (tuple(float(number) / brightest for number in np.ravel(numbers)) for numbers in inputs.stats)
    return mean, std


def _arguments(config: Config, of: str) -> dict[str, Any]:
    """The fields that a method or a network is given by name."""
    return {name: getattr(config, name) for name, about in OPTIONS.items() if about.argument_of == of}
