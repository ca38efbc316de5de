"""Batches from arrays that the caller holds."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp

from localgrad.base import NEXT, Batches


def batches(xs: jax.Array, ys: jax.Array, *, first: int | None = None) -> Batches:
    """Batches for one call of an engine, from arrays.

    Args:
      xs: inputs `(K, B, ...)`: K batches of B examples; `(K, R, B, ...)` for a model with R trials.
      ys: integer labels `(K, B)`, or `(K, R, B)`.
      first: number of the first batch since the start of training; it seeds dropout and the like.  By default the
        engine counts the batches that it is given.

    Returns:
      `Batches`, numbered from `first` or by the engine.

    Raises:
      ValueError: if the two do not hold as many batches of as many examples.

    Examples:
      >>> batches(jnp.zeros((3, 8, 2)), jnp.zeros((3, 8), jnp.int32), first=6).batch_id
      Array([6, 7, 8], dtype=int32)
    """
    if ys.ndim not in (2, 3) or xs.shape[: ys.ndim] != ys.shape:
        raise ValueError(
            f"inputs {xs.shape} and labels {ys.shape} do not belong together: labels are (batches, examples) or "
            "(batches, trials, examples), and inputs begin with the same axes."
        )
    count, examples = len(xs), ys.shape[-1]
    numbers = range(first, first + count) if first is not None else [NEXT] * count
    return Batches(jnp.array(numbers, jnp.int32), (xs, ys), jax.tree_util.Partial(_fetch(ys.ndim - 2, examples)))


@cache  # one function object for equal arguments, so that an engine compiles once
def _fetch(axis: int, batch_size: int) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The fetch of batches whose examples lie along an axis."""

    def fetch(item: tuple[jax.Array, jax.Array], start: jax.Array | int, count: int) -> tuple[jax.Array, jax.Array]:
        x, y = (jax.lax.dynamic_slice_in_dim(array, start, count, axis) for array in item)
        return x, y

    fetch.batch_size = batch_size  # type: ignore[attr-defined]
    return fetch
