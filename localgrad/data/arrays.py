"""Batches from arrays that the caller holds."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from localgrad.base import NEXT, Batches
from localgrad.data.checks import checked_inputs, checked_labels, checked_targets
from localgrad.tasks import Task, as_task


def batches(
    xs: npt.ArrayLike, ys: npt.ArrayLike, *, first: int | None = None, task: Task | int | None = None
) -> Batches:
    """Batches for one call of an engine, from arrays.

    Args:
      xs: inputs `(K, B, ...)`: K batches of B examples; `(K, R, B, ...)` for a model with R trials.  Anything that
        numpy makes an array of; jax arrays stay where they are.
      ys: integer labels `(K, B)`, or `(K, R, B)`; of another task its targets, `(K, B, ...)` or `(K, R, B, ...)`.
      first: number of the first batch since the start of training; it seeds dropout and the like.  By default the
        engine counts the batches that it is given.
      task: whose targets they are, where they are no labels of classes.

    Returns:
      `Batches`, numbered from `first` or by the engine.

    Raises:
      ValueError: if the two do not hold as many batches of as many examples, or there are none; for labels that are no
        integers or negative, and inputs on the host that are no finite numbers.  Traced arrays are looked at for their
        shapes and types alone.

    Examples:
      >>> batches(jnp.zeros((3, 8, 2)), jnp.zeros((3, 8), jnp.int32), first=6).batch_id
      Array([6, 7, 8], dtype=int32)
    """
    given = None if task is None else as_task(task)
    if given is None or given.name == "classification":
        inputs, targets = _checked(xs, ys, None if given is None else given.classes)
        axis = targets.ndim - 2
    else:
        inputs, targets, axis = _checked_targets(xs, ys, given)
    numbers = [NEXT] * len(inputs) if first is None else range(first, first + len(inputs))
    fetch = jax.tree_util.Partial(_fetch(axis, targets.shape[axis + 1]))
    return Batches(jnp.array(numbers, jnp.int32), (inputs, targets), fetch)


def _checked(
    inputs: npt.ArrayLike, labels: npt.ArrayLike, classes: int | None
) -> tuple[np.ndarray | jax.Array, np.ndarray | jax.Array]:
    """Inputs and int32 labels that belong together; see `batches`."""
    xs, ys = checked_inputs(inputs, "inputs"), checked_labels(labels, "labels", classes)
    if ys.ndim not in (2, 3) or xs.shape[: ys.ndim] != ys.shape:
        one_hot = ys.ndim == 3 and xs.shape[:2] == ys.shape[:2]
        raise ValueError(
            f"inputs {xs.shape} and labels {ys.shape} do not belong together: labels are (batches, examples) or "
            "(batches, trials, examples), and inputs begin with the same axes."
            + (" Of one-hot labels give labels.argmax(-1)." if one_hot else "")
        )
    _check_some(xs)
    return xs, ys


def _checked_targets(
    inputs: npt.ArrayLike, targets: npt.ArrayLike, task: Task
) -> tuple[np.ndarray | jax.Array, np.ndarray | jax.Array, int]:
    """Inputs, targets of a task, and the axis of examples behind that of batches."""
    xs = checked_inputs(inputs, "inputs")
    ys = checked_targets(targets, f"targets of {task.name}", task, jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype))
    one = lambda lead: task.y_spec(jax.ShapeDtypeStruct(xs.shape[lead:], xs.dtype))
    for lead in (1, 2):  # batches; batches and trials
        if xs.ndim > lead and ys.shape == (*xs.shape[:lead], *one(lead).shape):
            _check_some(xs)
            return xs, ys, lead - 1
    raise ValueError(
        f"inputs {xs.shape} and targets {ys.shape} of {task.name} do not belong together: expected targets "
        f"{(xs.shape[0], *one(1).shape) if xs.ndim > 1 else 'of as many batches'}."
    )


def _check_some(xs: np.ndarray | jax.Array) -> None:
    if 0 in xs.shape:
        raise ValueError(f"inputs {xs.shape} are empty: expected (batches, examples, ...), none of them 0.")


@cache  # one function object for equal arguments, so that an engine compiles once
def _fetch(axis: int, batch_size: int) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The fetch of batches whose examples lie along an axis."""

    def fetch(item: tuple[jax.Array, jax.Array], start: jax.Array | int, count: int) -> tuple[jax.Array, jax.Array]:
        x, y = (jax.lax.dynamic_slice_in_dim(array, start, count, axis) for array in item)
        return x, y

    fetch.batch_size = batch_size  # type: ignore[attr-defined]
    return fetch
