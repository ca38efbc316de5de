"""Random keys of any of jax's generators, each of which draws the same alone and in an array of keys.

Under the generators `rbg` and `unsafe_rbg` a `vmap` over keys draws with the first of them alone, so that what an
example or a trial gets depends on what stands beside it.  Whatever maps over keys in this library goes through one of
these functions.
"""

from collections.abc import Callable
from typing import Any

import jax

GENERATOR = "threefry2x32"  # jax's default, whose draws under `vmap` are those of each key by itself


def is_key(x: Any) -> bool:
    """Whether an array, or its shape, is of typed random keys, which no cast of numbers is for."""
    return hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def threefry(keys: jax.Array) -> jax.Array:
    """Threefry's keys as they are, and those of another generator made threefry's, of the first two words of each.

    The key of a seed becomes threefry's key of that seed.

    Examples:
      >>> threefry(jax.random.key(3, impl="rbg")) == jax.random.key(3)
      Array(True, dtype=bool)
    """
    if not is_key(keys):
        keys = jax.random.wrap_key_data(keys)
    if jax.random.key_impl(keys) == GENERATOR:
        return keys
    return jax.random.wrap_key_data(jax.random.key_data(keys)[..., :2], impl=GENERATOR)


def over_keys(function: Callable[..., Any], *trees: Any) -> Any:
    """`vmap` of a function that may draw from keys, and whose draws for each key are those that it gives alone.

    Args:
      function: of one row of each of the trees.
      trees: of arrays, keys among them, with a first axis R.  Where any keys are of another generator than threefry,
        rows are taken one after another.
    """
    keys = [x for x in jax.tree.leaves(trees) if is_key(x)]
    if all(jax.random.key_impl(each) == GENERATOR for each in keys):
        return jax.vmap(function)(*trees)
    return jax.lax.map(lambda row: function(*row), trees)


def fold_in(key: jax.Array, data: jax.Array | int) -> jax.Array:
    """`jax.random.fold_in` for one key, or for each of an array of keys (one a trial)."""
    return jax.random.fold_in(key, data) if key.ndim == 0 else over_keys(lambda one: fold_in(one, data), key)


def block_key(key: jax.Array, batch_id: jax.Array, index: jax.Array | int, shard: jax.Array | None = None) -> jax.Array:
    """The key of block `index` for a batch; `shard` is the place on the data axis, None where batches are whole."""
    key = fold_in(fold_in(key, batch_id), index)
    return key if shard is None else fold_in(key, shard)
