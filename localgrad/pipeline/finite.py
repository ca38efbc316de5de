"""Whether numbers are finite, looked at cheaply enough to do it on every step."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from localgrad.base import LEARNT, PARAMETERS, BlockState, Metrics, PyTree

_SHORT = 4096  # numbers of an array that are looked at one by one


def finite(tree: PyTree) -> jax.Array:
    """Whether all numbers of a tree are finite, and so are their squares where a float is as long as float32.

    A sum over a whole array is slow on a CPU, but for products with a vector: one of large numbers overflows where an
    element's square would.  All that is left then goes into one sum: each operation costs something by itself.
    """

    def shortened(x: jax.Array) -> jax.Array:
        large = 1.0 if x.dtype.itemsize < 4 else float(jnp.finfo(x.dtype).max) ** 0.5
        if x.size < _SHORT:
            return large * x.reshape(-1)
        width = 256 if x.size % 256 == 0 else x.shape[-1]
        return x.reshape(-1, width) @ jnp.full((width,), large, x.dtype)

    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    kinds = {x.dtype: [shortened(y) for y in floats if y.dtype == x.dtype] for x in floats}
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(jnp.concatenate(parts))) for parts in kinds.values()], bool))


def some_of(x: jax.Array) -> jax.Array:
    """The first elements of an array's first row: where a rate or a factor is not finite, they are not either.

    To look at all new parameters before the old ones are given up takes a copy of them, a third of the time of a
    step; what is wrong with single ones is found after each call, see `with_parameters_checked`.
    """
    if x.ndim < 2 or not x.size:
        return x.reshape(-1)[:16]
    return x[(0,) * (x.ndim - 1)][:16]  # a matrix that is reshaped is copied on a TPU


def with_parameters_checked(metrics: Metrics, sound: Sequence[jax.Array]) -> Metrics:
    """Metrics that also say, on each block's last batch, if its parameters are not finite after the call.

    Args:
      metrics: of a call.
      sound: of each block, whether they are, see `finite`.
    """

    def last(stopped: jax.Array, batch_id: jax.Array, sound: jax.Array) -> jax.Array:
        places = jnp.arange(len(batch_id), dtype=jnp.int32)
        here = places == jnp.max(jnp.where(batch_id >= 0, places, -1), initial=-1)
        return jnp.where(here & ~sound & (stopped == LEARNT), PARAMETERS, stopped)

    each = zip(metrics.stopped, metrics.batch_id, sound, strict=True)
    return metrics._replace(stopped=tuple(last(*one) for one in each))


@jax.jit
def metrics_of(blocks: Sequence[BlockState], rows: Sequence[Sequence[tuple[jax.Array, Any]]]) -> Metrics:
    """A stage's metrics after a call: what its blocks reported of each batch, `(metrics, stopped)`, as arrays."""
    ids, reports = zip(*(jax.tree.map(lambda *each: jnp.stack(each), *own) for own in rows), strict=True)
    values, stopped = zip(*reports, strict=True)
    return with_parameters_checked(Metrics(values, ids, stopped), [finite(block.params) for block in blocks])
