"""Optimizers by name, for command lines; a program passes any optax transform instead."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from localgrad.methods import groups
from localgrad.registry import check_known

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "sgd": optax.sgd,
    "momentum": lambda rate, **options: optax.sgd(rate, momentum=0.9, nesterov=True, **options),  # Nesterov's
    "heavy_ball": lambda rate, **options: optax.sgd(rate, momentum=0.9, **options),  # Polyak's, as `dgl` is published
    "rmsprop": optax.rmsprop,  # as `dtp` is published
}


Epoch = int | Sequence[int]  # updates in each epoch; or, where they differ, how many there have been by the end of each


def step_decay(rate: float, steps: int, epoch: Epoch, at: Sequence[int] = (), factor: float = 0.1) -> optax.Schedule:
    """A rate that is multiplied by a factor after some epochs, as PyTorch's StepLR and MultiStepLR.

    Args:
      rate: at the beginning.
      steps: updates in the whole run; not used, and here because all of `SCHEDULES` are given it.
      epoch: updates in an epoch; or how many there have been by the end of each, from 0 on: `(0, 2, 5, 7)`.
      at: one number is the epochs between two changes; several are the epochs of each; () keeps the rate.
      factor: what the rate is multiplied by at each change.
    """
    if not isinstance(epoch, int):
        numbers = range(at[0], len(epoch), at[0]) if len(at) == 1 else [number for number in at if number < len(epoch)]
        ends = np.array([epoch[number] for number in numbers], np.int32)
        return lambda count: rate * factor ** jnp.sum(count >= ends)
    if len(at) == 1:
        return optax.exponential_decay(rate, epoch * at[0], factor, staircase=True)
    return optax.piecewise_constant_schedule(rate, {epoch * number: factor for number in at})


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {  # of rate, updates in the run and `Epoch`
    "constant": lambda rate, steps, epoch: optax.constant_schedule(rate),
    "cosine": lambda rate, steps, epoch: optax.cosine_decay_schedule(rate, steps),
    # NECO: a tenth at 40, 60 and 80 % of the steps, a half at 90 %
    "neco": lambda rate, steps, epoch: optax.piecewise_constant_schedule(
        rate, {int(0.4 * steps): 0.1, int(0.6 * steps): 0.1, int(0.8 * steps): 0.1, int(0.9 * steps): 0.5}
    ),
    # DKP: 0.85 of it after each epoch
    "stairs": lambda rate, steps, epoch: step_decay(rate, steps, epoch, (1,), 0.85),
    "step": step_decay,
}
OF_WHOLE_RUN = {"cosine", "neco"}  # those whose rate at a step depends on how many steps there are in all


def make_optimizer(
    name: str,
    rate: float,
    *,
    schedule: str,
    steps: int,
    epoch: Epoch | None = None,
    weight_decay: float = 0.0,
    decay_times_rate: bool = True,
    decayed: Callable[[Any], Any] | None = None,
    clip_norm: float | None = None,
    warmup: int = 0,
    step_epochs: Sequence[int] | None = None,
    step_factor: float | None = None,
) -> Callable[[float], optax.GradientTransformation]:
    """Returns `scale -> transform` of an optimizer at `scale * rate`.

    Args:
      name: a key of `OPTIMIZERS`.
      rate: peak learning rate.
      schedule: a key of `SCHEDULES`.
      steps: updates in the whole run: its batches, where one is learnt from at once.
      epoch: updates in an epoch, the whole run by default; or how many there have been by the end of each, from 0 where
        the schedule begins.
      weight_decay: decay; decoupled for adamw, L2 for the others.
      decay_times_rate: the decay is multiplied by the rate, as PyTorch's is; otherwise each step takes `weight_decay`
        of the parameters away, whatever the rate and the optimizer, as the Kolen-Pollack papers write it.
      decayed: `params -> mask` of the arrays that decay, as `localgrad.kernels` makes it; None is all of them.
      clip_norm: largest global norm of a gradient, or None.
      warmup: updates in which the rate grows from 0 to its peak, linearly; the schedule begins after them.
      step_epochs, step_factor: `at` and `factor` of `step_decay`, for the schedule `step` alone.

    Raises:
      ValueError: for an unknown optimizer or schedule, or a rate, decay, norm, warm-up or step out of range.
    """
    check_known("optimizer", name, OPTIMIZERS)
    check_known("schedule", schedule, SCHEDULES)
    if (
        not 0 < rate < math.inf
        or not 0 <= weight_decay < math.inf
        or not (clip_norm is None or 0 < clip_norm < math.inf)
    ):
        raise ValueError(
            f"learning_rate and clip_norm must be positive and weight_decay not negative, all of them finite; got "
            f"{rate}, {clip_norm} and {weight_decay}."
        )

    more = _checked_steps(schedule, steps, warmup, step_epochs, step_factor)

    def make(scale: float) -> optax.GradientTransformation:
        options: dict[str, Any] = {}
        before = [optax.clip_by_global_norm(clip_norm)] if clip_norm is not None else []
        if not decay_times_rate:
            options = {"weight_decay": 0.0} if name == "adamw" else {}
        elif name == "adamw":
            options |= {"weight_decay": weight_decay, "mask": decayed}
        elif weight_decay:
            before.append(optax.add_decayed_weights(weight_decay, decayed))
        rates = SCHEDULES[schedule](scale * rate, steps - warmup, epoch or steps, **more)
        if warmup:
            rates = optax.join_schedules([optax.linear_schedule(0.0, scale * rate, warmup), rates], [warmup])
        made = (*before, OPTIMIZERS[name](rates, **options))
        if decay_times_rate:
            return optax.chain(*made)
        return groups.decayed(made, optax.add_decayed_weights(-weight_decay, decayed))

    return make


def _checked_steps(
    schedule: str, steps: int, warmup: int, step_epochs: Sequence[int] | None, step_factor: float | None
) -> dict[str, Any]:
    """What the schedule `step` is given; refuses numbers of it, or of the warm-up, that cannot be.

    Raises:
      ValueError: see `make_optimizer`.
    """
    if not 0 <= warmup < steps:
        raise ValueError(f"the warm-up is shorter than the run of {steps} batches; got {warmup} batches.")
    if schedule != "step":
        if step_epochs is not None or step_factor is not None:
            raise ValueError(f"step_epochs and step_factor are of schedule=step; the schedule is {schedule!r}.")
        return {}
    at = tuple(step_epochs or ())
    if not at or min(at) < 1 or list(at) != sorted(set(at)):
        raise ValueError(
            "step_epochs of schedule=step is every how many epochs the rate falls, or several epochs in ascending "
            f"order; got {step_epochs}."
        )
    factor = 0.1 if step_factor is None else step_factor
    if not 0 < factor < math.inf:
        raise ValueError(f"step_factor is positive and finite; got {step_factor}.")
    return {"at": at, "factor": factor}
