"""What a Task promises: its targets, loss, check and scores belong together."""

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Spec
from localgrad.tasks import Task, as_task
from localgrad.testing.compare import assert_finite, kind_of
from localgrad.testing.examples import random_targets


def check_task(
    task: Task | int, x_spec: Spec | None = None, *, y: jax.Array | None = None, wrong: jax.Array | None = None
) -> None:
    """The parts of a task fit each other: shapes, a loss that can be learnt from, and NaN where a target is invalid.

    Args:
      task: any task.
      x_spec: of the inputs `(B, ...)`; by default `(4, 6)`, of whole numbers where there is a target a token.
      y: targets of a batch; random ones by default.
      wrong: targets of which some are invalid; by default `y` with a NaN, or a -1, in place of the first.

    Raises:
      AssertionError: naming the task, the part of it and what is wrong.

    Examples:
      >>> import localgrad as lg
      >>> check_task(lg.multilabel(3))
    """
    task = as_task(task)
    name = f"task {task.name!r}"
    spec = x_spec or jax.ShapeDtypeStruct((4, 6), jnp.int32 if task.per_token else jnp.float32)
    y_spec = task.y_spec(spec)
    given = jnp.asarray(random_targets(np.random.default_rng(0), task, y_spec, 1)[0]) if y is None else y
    assert kind_of(given) == kind_of(y_spec), (
        f"{name}: `y_spec` says {kind_of(y_spec)}, and targets are {kind_of(given)}."
    )
    assert y_spec.shape[0] == spec.shape[0], f"{name}: `y_spec` gives {kind_of(y_spec)} for {spec.shape[0]} examples."
    dtype = jnp.zeros(0).dtype
    encoded = task.encode(given, dtype)
    rows = spec.shape[0] * (spec.shape[1] if task.per_token else 1)
    assert encoded.shape == (rows, task.outputs) and encoded.dtype == dtype, (
        f"{name}: `encode` gives {kind_of(encoded)}, where scores are {dtype}[{rows}, {task.outputs}]: give a row for "
        "each, as wide as the scores, in the dtype that it is asked for."
    )
    scores = jnp.asarray(np.random.default_rng(1).normal(size=encoded.shape), dtype)
    _check_loss(name, task, scores, given)
    _check_wrong(name, task, scores, given if wrong is None else wrong, wrong is None)
    _check_scores(name, task, task.shaped(scores, jnp.zeros(spec.shape)), given)


def _check_loss(name: str, task: Task, scores: jax.Array, y: jax.Array) -> None:
    loss, slope = jax.jit(jax.value_and_grad(task.loss))(scores, y)
    assert loss.shape == () and loss.dtype == scores.dtype, (
        f"{name}: `loss` gives {kind_of(loss)}: it must be a scalar."
    )
    assert_finite({"loss": loss, "gradient": slope}, f"{name}, `loss` of random scores", "Bound what is divided by.")
    assert float(jnp.max(jnp.abs(slope))) > 0, f"{name}: `loss` has no gradient along the scores: nothing is learnt."
    twice = jnp.concatenate([scores, scores]), jnp.concatenate([y, y])
    assert bool(jnp.allclose(task.loss(*twice), loss, rtol=1e-4)), (
        f"{name}: `loss` of every example twice is {float(task.loss(*twice)):.6g} and of each once {float(loss):.6g}: "
        "make it a mean over examples, so that shards and micro-batches can be averaged."
    )
    fine = task.check(y, scores.dtype)
    assert float(fine) == 0, f"{name}: `check` of targets that are fine gives {float(fine)}, and must give 0."


def _check_wrong(name: str, task: Task, scores: jax.Array, y: jax.Array, spoil: bool) -> None:
    """A target that is none makes the loss NaN, so that training stops and says so."""
    if spoil:
        bad = -1 if jnp.issubdtype(y.dtype, jnp.integer) else jnp.nan
        y = y.at[(0,) * y.ndim].set(bad)
    for part, value in (("loss", task.loss(scores, y)), ("check", task.check(y, scores.dtype))):
        assert bool(jnp.isnan(value)), (
            f"{name}: `{part}` is {float(value):.3g} for a target that is none: it must be NaN, so that training stops "
            "and names the batch."
        )


def _check_scores(name: str, task: Task, scores: jax.Array, y: jax.Array) -> None:
    assert task.scores, f"{name} has no scores: the first chooses the best epoch."
    for metric, score in task.scores.items():
        with jax.numpy_dtype_promotion("standard"):
            found = jax.eval_shape(score.of, scores, y)
        assert found.shape == (len(y),), (
            f"{name}: the score {metric!r} gives {kind_of(found)}: it must give a number for each of {len(y)} examples."
        )
        assert score.best in ("max", "min"), f"{name}: the score {metric!r} has best={score.best!r}: say max or min."
