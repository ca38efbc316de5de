"""Whose turn it is: an order of blocks that is drawn, as a value that follows from a key."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Key
from localgrad.keys import fold_in, threefry

Order = Callable[[Key, jax.Array], jax.Array]  # of the run's key and the number of a draw: the block whose turn it is

_AT_ONCE = 4096  # draws that are made together
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


def turns_of(shares: Sequence[float], key: Key, batches: Sequence[int]) -> list[tuple[int, ...]]:
    """How many batches each block has learnt from once so many have entered, in the order that is drawn from a key.

    Args:
      shares: see `drawn_order`.
      key: of the run, as its engine is given it.
      batches: ascending numbers of batches.

    Returns:
      A tuple a block, with a number for each of `batches`.

    Examples:
      >>> turns_of((1, 1, 2), jax.random.key(0), (0, 1, 2))
      [(0, 1, 2), (0, 3, 3), (0, 2, 2)]
    """
    count = len(shares)
    if count == 1:  # there is nothing to draw
        return [tuple(batches)]
    draws, entered = np.zeros(0, np.int32), np.zeros(0, np.int64)  # a batch enters wherever block 0 is drawn
    draw = jax.jit(jax.vmap(functools.partial(drawn_order(shares), key)))
    while len(entered) < batches[-1]:
        draws = np.concatenate([draws, np.asarray(draw(jnp.arange(len(draws), len(draws) + _AT_ONCE)))])
        entered = np.flatnonzero(draws == 0)
    before = np.array([0 if not number else entered[number - 1] for number in batches])
    found, filled = [tuple(batches)], -1
    for block in range(1, count):
        own = np.flatnonzero(draws == block)
        own = own[own > filled]  # a turn with an empty buffer is passed on
        found.append(tuple(np.searchsorted(own, before).tolist()))
        filled = own[0] if len(own) else len(draws)
    return found
