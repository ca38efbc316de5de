"""From a configuration to its optimizers: rates, schedules and what decays."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from localgrad.base import Model
from localgrad.keys import fold_in
from localgrad.methods import METHODS, kernels
from localgrad.pipeline import specs
from localgrad.pipeline.draws import turns_of
from localgrad.training.config import Config
from localgrad.training.inputs import Inputs
from localgrad.training.optimizers import make_optimizer
from localgrad.training.run_config import TRAIN_KEY

Transform = Callable[[float], optax.GradientTransformation]  # of the scale of its rate


def updates_of(config: Config, inputs: Inputs) -> tuple[int, ...]:
    """How often a block has learnt by the end of each epoch that it learns in, from 0 on.

    Raises:
      ValueError: for a run in which nothing is learnt, naming the flag.
    """
    epochs, each = config.greedy_epochs or config.epochs, config.double_buffered or 1
    found = tuple(epoch * inputs.epoch_steps // each for epoch in range(epochs + 1))
    if not found[-1]:
        raise ValueError(
            f"--double_buffered={each} learns once in so many batches, and this run has {epochs * inputs.epoch_steps}: "
            "give fewer, or more --epochs."
        )
    return found


def updates_by_turns(config: Config, inputs: Inputs, blocks: int) -> list[tuple[int, ...]]:
    """`updates_of` of each block with `--replay`, where each learns as often as its turn is drawn."""
    key = fold_in(jax.random.key(config.seed), TRAIN_KEY)
    batches = [epoch * inputs.epoch_steps for epoch in range(config.epochs + 1)]
    found = turns_of(config.replay_shares or (1,) * blocks, key, batches)
    return [(*ends[:-1], max(ends[-1], ends[-2] + 1)) for ends in found]  # a schedule has a step to be laid over


def build_optimizers(
    config: Config, inputs: Inputs, ends: Sequence[int] | None = None
) -> tuple[Transform, Transform | None]:
    """The optimizer of the weights, and that of feedback that learns; None where it has none of its own.

    Args:
      config, inputs: the run.
      ends: how often a block has learnt by the end of each epoch; `updates_of` them by default.
    """
    ends = updates_of(config, inputs) if ends is None else ends
    warmup = ends[min(config.warmup_epochs, len(ends) - 1)]
    even = all(end == number * ends[1] for number, end in enumerate(ends))
    shared: dict[str, Any] = {
        "steps": ends[-1],
        "epoch": ends[1] if even else [end - warmup for end in ends[config.warmup_epochs :]],
        "decay_times_rate": config.decay_times_rate,
        "decayed": _decayed(config),
        "clip_norm": config.clip_norm,
        "warmup": warmup,
    }
    own = _falling(config, config.schedule)
    weights = make_optimizer(config.optimizer, config.learning_rate, weight_decay=config.weight_decay, **own, **shared)
    return weights, _feedback_optimizer(config, shared)


def _feedback_optimizer(config: Config, shared: dict[str, Any]) -> Transform | None:
    """The optimizer of what learns beside the weights, if something of it has a flag; None leaves it to the method.

    What has no flag is the method's own, a plain Adam at its published rate; where it has none, the weights'.
    """
    names = ("optimizer", "learning_rate", "schedule", "weight_decay")
    given = {name: getattr(config, f"feedback_{name}") for name in names}
    own = {name: value for name, value in given.items() if value is not None}
    method = METHODS[config.method]
    if own and not method.beside:
        flag = f"--feedback_{next(iter(own))}"
        known = ", ".join(name for name, method in METHODS.items() if method.beside)
        raise ValueError(
            f"{flag} is for methods in which feedback, a critic or the like learns ({known}); "
            f"{config.method!r} has none."
        )
    if not own:
        return None
    chosen = {name: getattr(config, name) for name in names}
    if method.beside_rate is not None:
        chosen = dict(zip(names, ("adam", method.beside_rate, "constant", 0.0), strict=True))
        shared = shared | {"clip_norm": None, "warmup": 0}
    chosen |= own
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


def check_decay(config: Config, model: Model) -> None:
    """Refuses to decay groups that the method does not have."""
    if config.decay_on in ("recipe", "kernels", "all"):
        return
    groups = sorted({group for state in specs(model)[0] for group in state.params})
    if not set(config.decay_on.split("+")) <= set(groups):
        raise ValueError(
            f"--decay_on={config.decay_on}: choose recipe, kernels or all, or some of the groups of parameters that "
            f"method {config.method!r} has, joined by +: {', '.join(groups)}."
        )
