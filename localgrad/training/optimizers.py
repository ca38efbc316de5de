"""Optimizers by name, for command lines; a program passes any optax transform instead."""

import math
from collections.abc import Callable
from typing import Any

import optax

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "sgd": optax.sgd,
    "momentum": lambda rate, **options: optax.sgd(rate, momentum=0.9, nesterov=True, **options),
}

SCHEDULES: dict[str, Callable[[float, int, int], optax.Schedule]] = {
    "constant": lambda rate, steps, epoch: optax.constant_schedule(rate),
    "cosine": lambda rate, steps, epoch: optax.cosine_decay_schedule(rate, steps),
    # NECO: a tenth at 40, 60 and 80 % of the steps, a half at 90 %
    "neco": lambda rate, steps, epoch: optax.piecewise_constant_schedule(
        rate, {int(0.4 * steps): 0.1, int(0.6 * steps): 0.1, int(0.8 * steps): 0.1, int(0.9 * steps): 0.5}
    ),
    # DKP: 0.85 of it after each epoch
    "stairs": lambda rate, steps, epoch: optax.exponential_decay(rate, epoch, 0.85, staircase=True),
}
OF_WHOLE_RUN = {"cosine", "neco"}  # those whose rate at a step depends on how many steps there are in all


def make_optimizer(
    name: str,
    rate: float,
    *,
    schedule: str,
    steps: int,
    epoch: int | None = None,
    weight_decay: float = 0.0,
    decay_times_rate: bool = True,
    decayed: Callable[[Any], Any] | None = None,
    clip_norm: float | None = None,
) -> Callable[[float], optax.GradientTransformation]:
    """Returns `scale -> transform` of an optimizer at `scale * rate`.

    Args:
      name: a key of `OPTIMIZERS`.
      rate: peak learning rate.
      schedule: a key of `SCHEDULES`.
      steps: batches in the whole run.
      epoch: batches in an epoch, the whole run by default.
      weight_decay: decay; decoupled for adamw, L2 for the others.
      decay_times_rate: the decay is times the rate, as PyTorch's is; otherwise each step takes `weight_decay` of the
        parameters away, whatever the rate and the optimizer, as the Kolen-Pollack papers write it.
      decayed: `params -> mask` of the arrays that decay, as `localgrad.kernels` makes it; None is all of them.
      clip_norm: largest global norm of a gradient, or None.

    Raises:
      ValueError: for an unknown optimizer or schedule, or a rate, decay or norm out of range.
    """
    for kind, value, known in (("optimizer", name, OPTIMIZERS), ("schedule", schedule, SCHEDULES)):
        if value not in known:
            raise ValueError(f"unknown {kind} {value!r}; there are {', '.join(known)}.")
    if (
        not 0 < rate < math.inf
        or not 0 <= weight_decay < math.inf
        or not (clip_norm is None or 0 < clip_norm < math.inf)
    ):
        raise ValueError(
            f"learning_rate and clip_norm must be positive and weight_decay not negative, all of them finite; got "
            f"{rate}, {clip_norm} and {weight_decay}."
        )

    def make(scale: float) -> optax.GradientTransformation:
        options: dict[str, Any] = {}
        before = [optax.clip_by_global_norm(clip_norm)] if clip_norm is not None else []
        after = []
        if not decay_times_rate:
            after = [optax.add_decayed_weights(-weight_decay, decayed)]
            options = {"weight_decay": 0.0} if name == "adamw" else {}
        elif name == "adamw":
            options |= {"weight_decay": weight_decay, "mask": decayed}
        elif weight_decay:
            before.append(optax.add_decayed_weights(weight_decay, decayed))
        rates = SCHEDULES[schedule](scale * rate, steps, epoch or steps)
        return optax.chain(*before, OPTIMIZERS[name](rates, **options), *after)

    return make
