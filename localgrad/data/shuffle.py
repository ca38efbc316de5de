"""A keyed permutation of `range(n)`, evaluated where it is needed: no sort, no table, no state.

A Feistel network is a bijection of its bit strings whatever its round function is.  Over the smallest even or odd
number of bits that holds n it permutes fewer than 2n numbers, and a number that lands at n or above is sent through
again until it lands below ("cycle walking": Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002, section 3).
"""

import jax
import jax.numpy as jnp
from jax import lax

from localgrad.keys import threefry

ROUNDS = 12  # small domains need more of them than large ones to look random
LIMIT = 2**31 - 1


def permuted(key: jax.Array, epoch: jax.Array | int, position: jax.Array, n: int) -> jax.Array:
    """Which example stands at a position of an epoch's order.

    Costs O(B) for B positions; key, epoch and position may be traced.

    Args:
      key: the key of the order, a typed scalar key of any generator.
      epoch: integer scalar; each has an order of its own.
      position: int32 `(B,)`, each in `0 .. n - 1`; others, which a `vmap` over a branch asks for, give an example that
        means nothing.
      n: number of examples, 1 .. 2**31 - 1.

    Returns:
      int32, the shape of `position`: for all positions together a permutation of `range(n)`.

    Raises:
      ValueError: n is out of range.

    >>> order = permuted(jax.random.key(0), 0, jnp.arange(5, dtype=jnp.int32), 5)
    >>> sorted(order.tolist())
    [0, 1, 2, 3, 4]
    """
    if not 1 <= n <= LIMIT:
        raise ValueError(f"n={n} examples cannot be shuffled; expected 1 .. {LIMIT}")
    bits = max(2, (n - 1).bit_length())
    low_bits = bits // 2
    round_keys = jax.random.bits(jax.random.fold_in(threefry(key), epoch), (ROUNDS,), jnp.uint32)

    def walk(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, outside = carry
        x = jnp.where(outside, _feistel(round_keys, x, bits - low_bits, low_bits), x)
        return x, x >= jnp.uint32(n)

    inside = jnp.minimum(position.astype(jnp.uint32), jnp.uint32(n - 1))  # from outside the walk may never come in
    everywhere = jnp.ones(position.shape, bool)  # each number goes through the network once at least
    x, _ = lax.while_loop(lambda carry: jnp.any(carry[1]), walk, (inside, everywhere))
    return x.astype(jnp.int32)


def _feistel(round_keys: jax.Array, x: jax.Array, high_bits: int, low_bits: int) -> jax.Array:
    """Changes the halves of x in turn, each by a hash of the other; each step undoes itself, so all is a bijection."""
    high_mask, low_mask = jnp.uint32((1 << high_bits) - 1), jnp.uint32((1 << low_bits) - 1)
    shift = jnp.uint32(low_bits)
    high, low = x >> shift, x & low_mask
    for i in range(0, ROUNDS, 2):
        high = high ^ (_mix(low ^ round_keys[i]) & high_mask)
        low = low ^ (_mix(high ^ round_keys[i + 1]) & low_mask)
    return (high << shift) | low


def _mix(x: jax.Array) -> jax.Array:
    """Integer hash in which each input bit flips each output bit with probability about one half.

    Source: C. Wellons, lowbias32, https://nullprogram.com/blog/2018/07/31/
    """
    x = (x ^ (x >> jnp.uint32(16))) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> jnp.uint32(15))) * jnp.uint32(0x846CA68B)
    return x ^ (x >> jnp.uint32(16))
