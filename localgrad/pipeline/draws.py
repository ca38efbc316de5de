"""Whose turn it is: an order of blocks that is drawn, as a value that follows from a key."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Key
from localgrad.keys import fold_in, threefry

Order = Callable[[Key, jax.Array], jax.Array]  # of the run's key and the number of a draw: the block whose turn it is

_DRAWS = 0x64726177  # sets the keys of draws apart from those of batches


def drawn_order(shares: Sequence[float]) -> Order:
    """Each turn is drawn by itself, block i's with a chance of `shares[i] / sum(shares)`.

    The draw compares whole numbers, so that it is the same on every device.

    Args:
      shares: positive numbers, one a block.  The paper slows one block down by 1 / (1 - p): its share is 1 - p where
        those of the others are 1.

    Raises:
      ValueError: for shares that are not positive and finite.

    Examples:
      >>> order = drawn_order((1, 1, 2))
      >>> [int(order(jax.random.key(0), n)) for n in range(10)]
      [2, 1, 1, 2, 1, 2, 0, 0, 0, 1]
    """
    if not shares or not all(0 < share < float("inf") for share in shares):
        raise ValueError(f"shares are positive numbers, one a block; got {tuple(shares)}.")
    ends = np.cumsum(np.asarray(shares, np.float64))
    limits = np.minimum(np.round(ends[:-1] / ends[-1] * 2.0**32), 2.0**32 - 1).astype(np.uint32)

    def order(key: Key, n: jax.Array) -> jax.Array:
        own = fold_in(fold_in(threefry(key), _DRAWS), n)
        return jnp.sum(jax.random.bits(own, (), jnp.uint32) >= jnp.asarray(limits), dtype=jnp.int32)

    return order
