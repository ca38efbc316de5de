"""The last few of something: rings of arrays, written and read at a place."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from localgrad.base import PyTree, Spec


def full(arrays: Sequence[jax.Array], places: int) -> list[jax.Array]:
    """Rings of so many places, each place as given."""
    return [jnp.broadcast_to(x, (places, *x.shape)) for x in arrays]


def read(rings: Sequence[jax.Array], place: jax.Array) -> list[jax.Array]:
    """What lies at a place."""
    return [jax.lax.dynamic_index_in_dim(ring, place, 0, keepdims=False) for ring in rings]


def write(rings: Sequence[jax.Array], place: jax.Array, new: Sequence[jax.Array]) -> list[jax.Array]:
    """The rings with something new at a place."""
    return [jax.lax.dynamic_update_index_in_dim(ring, x, place, 0) for ring, x in zip(rings, new, strict=True)]


class Ring:
    """A ring of `length` trees of one structure; tree n lies at place `n mod length`.

    It keeps leaves alone; the structure comes from the spec.

    Args:
      spec: of one tree.
      length: number of places.
    """

    def __init__(self, spec: Spec, length: int):
        self._leaves, self._structure = jax.tree.flatten(spec)
        self._length = length

    def empty(self) -> list[jax.Array]:
        return full([jnp.zeros(x.shape, x.dtype) for x in self._leaves], self._length)

    def write(self, kept: list[jax.Array], n: jax.Array, tree: PyTree) -> list[jax.Array]:
        return write(kept, n % self._length, jax.tree.leaves(tree))

    def read(self, kept: list[jax.Array], n: jax.Array) -> PyTree:
        return jax.tree.unflatten(self._structure, read(kept, n % self._length))
