"""Prediction at every exit: accuracy, cost and time of each, and leaving at the first one that is sure enough."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax, softmax

from localgrad.base import BlockState, Model
from localgrad.evaluation.accuracy import EvalBatches
from localgrad.pipeline.loops import flops_of_repeats

_REPETITIONS = 15


class ExitRow(NamedTuple):
    """One exit: the task's first score, FLOPs of one example, median seconds of one batch."""

    exit: int
    score: float
    flops: float
    seconds: float


class AnytimeRow(NamedTuple):
    """One threshold: accuracy in percent, mean FLOPs of an example, and the share of examples that each exit takes."""

    threshold: float
    accuracy: float
    flops: float
    shares: tuple[float, ...]


def collect(model: Model, states: Sequence[BlockState], batches: EvalBatches) -> tuple[np.ndarray, np.ndarray]:
    """Scores `(exits, N, ..., C)` and labels `(N, ...)` of all examples but masked ones; of a model without trials."""
    predict = jax.jit(lambda states, x: jnp.stack([model.predict(states, x, exit) for exit in model.exits]))
    scores, labels = [], []
    for x, y, mask in batches:
        keep = np.asarray(mask)
        scores.append(np.asarray(predict(tuple(states), x))[:, keep])
        labels.append(np.asarray(y)[keep])
    return np.concatenate(scores, axis=1), np.concatenate(labels)


def measure_exits(
    model: Model, states: Sequence[BlockState], scores: np.ndarray, labels: np.ndarray, x: jax.Array
) -> list[ExitRow]:
    """What each exit costs and gives.

    Args:
      model, states: a trained model without trials.
      scores, labels: of the split that the task's score is of, see `collect`.
      x: a batch `(B, ...)`, for FLOPs and time; exits are timed in turns.
    """
    programs = [_compiled(model, states, x, (exit,)) for exit in model.exits]
    seconds: list[list[float]] = [[] for _ in programs]
    for _ in range(_REPETITIONS):
        for (program, _), times in zip(programs, seconds, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(program(tuple(states), x))
            times.append(time.perf_counter() - began)
    return [
        ExitRow(exit, _score(model, found, labels), flops / len(x), float(np.median(times)))
        for exit, found, (_, flops), times in zip(model.exits, scores, programs, seconds, strict=True)
    ]


def temperatures(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each exit the temperature T that makes softmax(scores / T) likeliest for the labels; fit it on validation.

    Args:
      scores: `(exits, N, C)`.
      labels: `(N,)`.

    Returns:
      `(exits,)`, positive.

    References:
      Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599, section 4.2
    """
    from scipy.optimize import minimize_scalar  # here: training alone needs none of it

    def one(scores: np.ndarray) -> float:
        def loss(log_t: float) -> float:
            return -float(np.mean(log_softmax(scores / np.exp(log_t), axis=1)[np.arange(len(labels)), labels]))

        return float(np.exp(minimize_scalar(loss, bounds=(-7.0, 7.0), method="bounded").x))

    return np.array([one(each) for each in scores.astype(np.float64)])


def anytime(
    scores: np.ndarray, labels: np.ndarray, at: np.ndarray, flops: Sequence[float], thresholds: Sequence[float]
) -> list[AnytimeRow]:
    """Leaves at the first exit whose confidence, the largest calibrated probability, reaches a threshold.

    Args:
      scores, labels: `(exits, N, C)` and `(N,)` of the split that accuracy is of.
      at: `(exits,)` temperatures.
      flops: FLOPs of one example that has tried all exits up to each, see `anytime_flops`.
      thresholds: confidences; above 1 all examples go to the last exit, at 0 to the first.

    Returns:
      A row for each threshold.
    """
    confidence = softmax(scores / at[:, None, None], axis=2).max(axis=2)
    right = scores.argmax(axis=2) == labels
    rows = []
    for threshold in thresholds:
        sure = confidence >= threshold
        sure[-1] = True
        left = sure.argmax(axis=0)
        shares = np.bincount(left, minlength=len(scores)) / len(labels)
        accuracy = 100.0 * float(np.mean(right[left, np.arange(len(labels))]))
        rows.append(AnytimeRow(float(threshold), accuracy, float(shares @ np.asarray(flops)), tuple(shares.tolist())))
    return rows


def anytime_flops(model: Model, states: Sequence[BlockState], x: jax.Array) -> list[float]:
    """FLOPs of one example that tries every exit up to each: what they share is computed once."""
    return [_compiled(model, states, x, model.exits[: k + 1])[1] / len(x) for k in range(len(model.exits))]


def _compiled(
    model: Model, states: Sequence[BlockState], x: jax.Array, exits: Sequence[int]
) -> tuple[Callable[..., list[jax.Array]], float]:
    """Prediction at some exits, and its FLOPs; loops are those of the last, which runs through the others' blocks."""

    def traced(exits: Sequence[int]):
        run = lambda states, x: [model.predict(states, x, exit) for exit in exits]
        return jax.jit(run).trace(tuple(states), x)

    program = traced(exits).lower().compile()
    flops = float((program.cost_analysis() or {}).get("flops", 0.0))
    return program, flops + flops_of_repeats(traced(exits[-1:]))


def _score(model: Model, scores: np.ndarray, labels: np.ndarray) -> float:
    score = next(iter(model.task.scores.values()))
    return float(score.shown(np.mean(np.asarray(score.of(jnp.asarray(scores), jnp.asarray(labels)), np.float64))))
