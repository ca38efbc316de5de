"""The last few of something: a ring of trees, kept as arrays."""

import jax
import jax.numpy as jnp

from localgrad.base import PyTree, Spec


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
        return [jnp.zeros((self._length, *x.shape), x.dtype) for x in self._leaves]

    def write(self, kept: list[jax.Array], n: jax.Array, tree: PyTree) -> list[jax.Array]:
        new = zip(kept, jax.tree.leaves(tree), strict=True)
        return [jax.lax.dynamic_update_index_in_dim(ring, x, n % self._length, 0) for ring, x in new]

    def read(self, kept: list[jax.Array], n: jax.Array) -> PyTree:
        found = [jax.lax.dynamic_index_in_dim(ring, n % self._length, 0, keepdims=False) for ring in kept]
        return jax.tree.unflatten(self._structure, found)
