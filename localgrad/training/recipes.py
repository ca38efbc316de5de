"""From a configuration to its optimizers: rates, schedules and what decays."""

from collections.abc import Callable
from typing import Any

import optax

from localgrad.base import Model
from localgrad.methods import METHODS, kernels
from localgrad.pipeline import specs
from localgrad.training.config import Config
from localgrad.training.inputs import Inputs
from localgrad.training.optimizers import make_optimizer

Transform = Callable[[float], optax.GradientTransformation]  # of the scale of its rate


def build_optimizers(config: Config, inputs: Inputs) -> tuple[Transform, Transform | None]:
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
