"""From a configuration and its data to a network, a model, an engine and a source: one builder each."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from localgrad import data
from localgrad.base import Block, Engine, Model, Source
from localgrad.blocks import NETWORKS, Vectors, compute_dtype, looks_ahead, networks_of
from localgrad.methods import METHODS, coarse_to_fine, double_buffered, freeze, heads_alone, kernels, layerwise, trials
from localgrad.pipeline import mpmd, replayed, sequential, specs, spmd
from localgrad.training.config import OPTIONS, Config
from localgrad.training.inputs import Inputs
from localgrad.training.memory import check_sizes
from localgrad.training.optimizers import make_optimizer
from localgrad.training.options import bind, call
from localgrad.training.placement import delays
from localgrad.training.run_config import RunConfig

Transform = Callable[[float], optax.GradientTransformation]  # of the scale of its rate


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
    optimizer, feedback = _optimizers(config, inputs)
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
    _check_decay(config, model)
    if config.coarse_labels:
        model = coarse_to_fine(model, [_groups(text, model) for text in config.coarse_labels])
    model = freeze(heads_alone(model) if config.heads_alone else model, config.frozen)
    model = _one_after_another(config, inputs, model)
    if config.double_buffered is not None:
        _check_double_buffered(config)
        model = double_buffered(model, config.double_buffered)
    if config.trials > 1:
        model = trials(model, config.trials)
    check_sizes(model)
    return model


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


def _check_double_buffered(config: Config) -> None:
    """Refuses fewer batches than a gradient needs to come down.

    Raises:
      ValueError: naming the flag.
    """
    least = 2 * (config.stages - 1) if config.asynchronous is not None else 1
    if config.double_buffered is not None and config.double_buffered < least:
        raise ValueError(
            f"--double_buffered={config.double_buffered}: a gradient comes down {config.stages} stages in {least} "
            f"batches; give at least {least}, or fewer --stages."
        )


def _groups(text: str, model: Model) -> tuple[int, ...]:
    """The coarse class of each class, of an element of `--coarse_labels`.

    Raises:
      ValueError: for what is no number, or numbers with colons between them.
    """
    try:
        found = tuple(map(int, text.split(":")))
    except ValueError:
        raise ValueError(f"--coarse_labels is a list of numbers such as 2, or 0:0:1:1; got {text!r}.") from None
    classes = model.task.classes or 0
    return tuple(c * found[0] // classes for c in range(classes)) if len(found) == 1 and classes else found


def on_mesh(config: RunConfig) -> dict[str, Any]:
    """What of a configuration `spmd` is given by name, and all that lay a model over a mesh as it does."""
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
      ValueError: for inputs that are no bytes, whose range nobody knows.
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


def _optimizers(config: Config, inputs: Inputs) -> tuple[Transform, Transform | None]:
    """The optimizer of the weights, and that of feedback that learns; None where it has none of its own."""
    epoch = max(1, inputs.epoch_steps // (config.double_buffered or 1))  # updates
    shared: dict[str, Any] = {
        "steps": (config.greedy_epochs or config.epochs) * epoch,
        "epoch": epoch,
        "decay_times_rate": config.decay_times_rate,
        "decayed": _decayed(config),
        "clip_norm": config.clip_norm,
        "warmup": config.warmup_epochs * epoch,
    }
    own = _falling(config, config.schedule)
    weights = make_optimizer(config.optimizer, config.learning_rate, weight_decay=config.weight_decay, **own, **shared)
    return weights, _feedback_optimizer(config, shared)


def _feedback_optimizer(config: Config, shared: dict[str, Any]) -> Transform | None:
    """The optimizer of what learns beside the weights: as theirs, but for what has a flag; None if nothing has one."""
    names = ("optimizer", "learning_rate", "schedule", "weight_decay")
    given = {name: getattr(config, f"feedback_{name}") for name in names}
    own = {name: value for name, value in given.items() if value is not None}
    if own and not METHODS[config.method].beside:
        flag = f"--feedback_{next(iter(own))}"
        known = ", ".join(name for name, method in METHODS.items() if method.beside)
        raise ValueError(
            f"{flag} is for methods in which feedback, a critic or the like learns ({known}); "
            f"{config.method!r} has none."
        )
    if not own:
        return None
    chosen = {name: own.get(name, getattr(config, name)) for name in names}
    falling = _falling(config, chosen.pop("schedule"))
    return make_optimizer(chosen.pop("optimizer"), chosen.pop("learning_rate"), **chosen, **falling, **shared)


def _falling(config: Config, schedule: str) -> dict[str, Any]:
    """A schedule, and the numbers that it has flags for."""
    steps = {"step_epochs": config.step_epochs, "step_factor": config.step_factor}
    return {"schedule": schedule, **(steps if schedule == "step" else {})}


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
