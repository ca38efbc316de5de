"""One layout for trees of different shapes, so that devices with different stages hold arrays of the same shape."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import PyTree, Spec


class Slots:
    """Lays each of several trees into one common list of 1-D arrays.

    Within a dtype the leaves of each tree are ranked by size; slot j is as large as the largest j-th leaf over the
    trees.  A leaf is found again by slice and reshape, so nothing is raveled together.  Keys are kept as their data.

    Attributes:
      specs: shape and dtype of each slot.

    Args:
      trees: one tree a stage, of arrays or specs; only shapes and dtypes are used.
    """

    def __init__(self, trees: Sequence[Spec]):
        self._trees = [jax.tree.flatten(tree) for tree in trees]
        self._places: list[dict[int, int]] = [{} for _ in trees]
        self.specs: list[jax.ShapeDtypeStruct] = []
        raw = [[jax.eval_shape(to_data, leaf) for leaf in leaves] for leaves, _ in self._trees]
        for dtype in sorted({x.dtype for leaves in raw for x in leaves}, key=str):
            ranked = [_by_size(leaves, dtype) for leaves in raw]
            for rank in range(max(map(len, ranked))):
                holders = [(which, order[rank]) for which, order in enumerate(ranked) if rank < len(order)]
                for which, leaf in holders:
                    self._places[which][leaf] = len(self.specs)
                size = max(_size(raw[which][leaf]) for which, leaf in holders)
                self.specs.append(jax.ShapeDtypeStruct((size,), dtype))

    def pack(self, which: int, tree: PyTree, xp: ModuleType = jnp) -> list[jax.Array]:
        """Lays tree `which` into slots; unused room is zero.  `xp` is `jnp` in traced code, `numpy` on the host."""
        slots: list[Any] = [None] * len(self.specs)
        for leaf, value in enumerate(jax.tree.leaves(tree)):
            slot, flat = self._places[which][leaf], xp.reshape(to_data(value), (-1,))
            slots[slot] = xp.pad(flat, (0, self.specs[slot].shape[0] - flat.shape[0]))
        return [
            xp.zeros(spec.shape, spec.dtype) if slot is None else slot
            for slot, spec in zip(slots, self.specs, strict=True)
        ]

    def unpack(self, which: int, slots: Sequence[jax.Array]) -> PyTree:
        """Gives tree `which` back from its slots, whose last axis is the slot's; leading axes are kept."""
        leaves, treedef = self._trees[which]
        found = [_like(leaf, slots[self._places[which][i]]) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(treedef, found)

    def fill(self, value: float = 0.0) -> list[jax.Array]:
        """Slots that hold no tree: `value` in floating slots, zero in the others."""
        return [
            jnp.full(spec.shape, value if jnp.issubdtype(spec.dtype, jnp.floating) else 0, spec.dtype)
            for spec in self.specs
        ]


def is_key(leaf: Spec) -> bool:
    """Whether a leaf is a typed random key."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_data(leaf: jax.Array) -> jax.Array:
    """A leaf as numbers: of a key, its data."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _like(leaf: Spec, slot: jax.Array) -> jax.Array:
    """The leading part of a slot, as an array like `leaf` behind the slot's own leading axes."""
    data = jax.eval_shape(to_data, leaf)
    array = slot[..., : _size(data)].reshape((*slot.shape[:-1], *data.shape))
    return jax.random.wrap_key_data(array, impl=_impl(leaf)) if is_key(leaf) else array


def _impl(leaf: Spec) -> Any:
    """Which generator a key is of; jax tells it of arrays only, so one is traced."""
    told: list[Any] = []
    jax.eval_shape(lambda key: told.append(jax.random.key_impl(key)), leaf)
    return told[0]


def _size(leaf: Spec) -> int:
    return int(np.prod(leaf.shape))


def _by_size(leaves: Sequence[Spec], dtype: np.dtype) -> list[int]:
    return sorted((i for i, x in enumerate(leaves) if x.dtype == dtype), key=lambda i: -_size(leaves[i]))
