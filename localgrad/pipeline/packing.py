"""One layout for trees of different shapes, so that devices with different stages hold arrays of the same shape."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import PyTree, Spec


class Slots:
    """Lays each of several trees into one common list of 1-D arrays.

    Within a dtype the leaves of each tree are ranked by size; slot j is as large as the largest j-th leaf over the
    trees.  A leaf is found again by slice and reshape, so nothing is raveled together.

    Attributes:
      specs: shape and dtype of each slot.

    Args:
      trees: one tree a stage, of arrays or specs; only shapes and dtypes are used.
    """

    def __init__(self, trees: Sequence[Spec]):
        self._trees = [jax.tree.flatten(tree) for tree in trees]
        self._places: list[dict[int, int]] = [{} for _ in trees]
        self.specs: list[jax.ShapeDtypeStruct] = []
        for dtype in sorted({x.dtype for leaves, _ in self._trees for x in leaves}, key=str):
            ranked = [_by_size(leaves, dtype) for leaves, _ in self._trees]
            for rank in range(max(map(len, ranked))):
                holders = [(which, order[rank]) for which, order in enumerate(ranked) if rank < len(order)]
                for which, leaf in holders:
                    self._places[which][leaf] = len(self.specs)
                size = max(_size(self._trees[which][0][leaf]) for which, leaf in holders)
                self.specs.append(jax.ShapeDtypeStruct((size,), dtype))

    def pack(self, which: int, tree: PyTree, xp=jnp) -> list[jax.Array]:
        """Lays tree `which` into slots; unused room is zero.  `xp` is `jnp` in traced code, `numpy` on the host."""
        slots: list = [None] * len(self.specs)
        for leaf, value in enumerate(jax.tree.leaves(tree)):
            slot = self._places[which][leaf]
            slots[slot] = xp.pad(xp.reshape(value, (-1,)), (0, self.specs[slot].shape[0] - _size(value)))
        return [
            xp.zeros(spec.shape, spec.dtype) if slot is None else slot
            for slot, spec in zip(slots, self.specs, strict=True)
        ]

    def unpack(self, which: int, slots: Sequence[jax.Array]) -> PyTree:
        """Gives tree `which` back from its slots, whose last axis is the slot's; leading axes are kept."""
        leaves, treedef = self._trees[which]
        found = [slots[self._places[which][leaf]] for leaf in range(len(leaves))]
        return jax.tree.unflatten(
            treedef,
            [
                slot[..., : _size(leaf)].reshape(*slot.shape[:-1], *leaf.shape)
                for slot, leaf in zip(found, leaves, strict=True)
            ],
        )

    def fill(self, value: float = 0.0) -> list[jax.Array]:
        """Slots that hold no tree: `value` in floating slots, zero in the others."""
        return [
            jnp.full(spec.shape, value if jnp.issubdtype(spec.dtype, jnp.floating) else 0, spec.dtype)
            for spec in self.specs
        ]


def _size(leaf: Spec) -> int:
    return int(np.prod(leaf.shape))


def _by_size(leaves: Sequence[Spec], dtype: np.dtype) -> list[int]:
    return sorted((i for i, x in enumerate(leaves) if x.dtype == dtype), key=lambda i: -_size(leaves[i]))
