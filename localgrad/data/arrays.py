"""Batches from arrays that the caller holds."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from localgrad.base import Batches


def batches(xs: jax.Array, ys: jax.Array, *, first: int = 0) -> Batches:
    """Batches for one call of an engine, from arrays.

    Args:
      xs: inputs `(K, B, ...)`: K batches of B examples; `(K, R, B, ...)` for a model with R trials.
      ys: integer labels `(K, B)`, or `(K, R, B)`.
      first: number of the first batch since the start of training; it seeds dropout and the like.

    Returns:
      `Batches` numbered from `first`.

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
    batch_id = jnp.arange(first, first + len(xs), dtype=jnp.int32)
    return Batches(batch_id, (xs, ys), jax.tree_util.Partial(_FETCH[ys.ndim - 2]))


def _fetch(axis: int) -> Callable[..., tuple[jax.Array, jax.Array]]:
    def fetch(item: tuple[jax.Array, jax.Array], start: jax.Array | int, count: int) -> tuple[jax.Array, jax.Array]:
        x, y = (jax.lax.dynamic_slice_in_dim(array, start, count, axis) for array in item)
        return x, y

    return fetch


_FETCH = [_fetch(0), _fetch(1)]  # by the axis of the examples; made once, so that an engine compiles once
