"""Batches from arrays that the caller holds."""

import jax
import jax.numpy as jnp

from localgrad.base import Batches


def batches(xs: jax.Array, ys: jax.Array, *, first: int = 0, batch_axis: int = 0) -> Batches:
    """Batches for one call of an engine, from arrays.

    Args:
      xs: inputs `(K, B, ...)`: K batches of B examples.
      ys: integer labels `(K, B)`.
      first: number of the first batch since the start of training; it seeds dropout and the like.
      batch_axis: axis of the examples within a batch; 1 for a model with trials, whose arrays are `(K, R, B, ...)`.

    Returns:
      `Batches` numbered from `first`.

    Raises:
      ValueError: if the two do not hold as many batches of as many examples.

    Examples:
      >>> batches(jnp.zeros((3, 8, 2)), jnp.zeros((3, 8), jnp.int32), first=6).batch_id
      Array([6, 7, 8], dtype=int32)
    """
    axes = batch_axis + 2
    if xs.shape[:axes] != ys.shape[:axes]:
        raise ValueError(
            f"inputs {xs.shape} and labels {ys.shape} do not belong together: their first {axes} axes are the batches "
            "and their examples, and must be the same."
        )
    batch_id = jnp.arange(first, first + len(xs), dtype=jnp.int32)
    return Batches(batch_id, (xs, ys), jax.tree_util.Partial(_FETCH[batch_axis]))


def _fetch(axis: int):
    def fetch(item: tuple[jax.Array, jax.Array], start: jax.Array | int, count: int) -> tuple[jax.Array, jax.Array]:
        x, y = (jax.lax.dynamic_slice_in_dim(array, start, count, axis) for array in item)
        return x, y

    return fetch


_FETCH = [_fetch(0), _fetch(1)]  # made once, so that an engine compiles once
