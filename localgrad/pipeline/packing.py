"""One layout for trees of different shapes, so that devices with different stages hold arrays of the same shape."""

import math
from collections import Counter
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import PyTree, Spec
from localgrad.keys import is_key

_TILE = 128  # numbers that a TPU keeps side by side


class Slots:
    """Lays each of several trees into one common list of arrays.

    Within a dtype the leaves of each tree are ranked by size; slot j is as large as the largest j-th leaf over the
    trees.  Accelerators lay a matrix out in tiles, and copy it to make it a vector; so a slot has that leaf's shape,
    and nothing is reshaped where trees are alike, but where tiles would be filled badly: there it is 1-D.  A leaf of
    another shape fills the slot's corner if it fits there and fills tiles itself, else its first rows, and is found
    again by slice and reshape: nothing is raveled together.  Keys are kept as their data.

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
                shape = _shape_of([raw[which][leaf].shape for which, leaf in holders])
                self.specs.append(jax.ShapeDtypeStruct(shape, dtype))

    def pack(self, which: int, tree: PyTree, xp: ModuleType = jnp) -> list[jax.Array]:
        """Lays tree `which` into slots; unused room is zero.  `xp` is `jnp` in traced code, `numpy` on the host."""
        slots: list[Any] = [None] * len(self.specs)
        for leaf, value in enumerate(jax.tree.leaves(tree)):
            slot = self._places[which][leaf]
            slots[slot] = _laid(to_data(value), self.specs[slot].shape, xp)
        return [
            xp.zeros(spec.shape, spec.dtype) if slot is None else slot
            for slot, spec in zip(slots, self.specs, strict=True)
        ]

    def unpack(self, which: int, slots: Sequence[jax.Array]) -> PyTree:
        """Gives tree `which` back from its slots, whose last axes are the slot's; leading axes are kept."""
        leaves, treedef = self._trees[which]
        places = [self._places[which][i] for i in range(len(leaves))]
        found = [_like(leaf, slots[j], self.specs[j].shape) for leaf, j in zip(leaves, places, strict=True)]
        return jax.tree.unflatten(treedef, found)

    def fill(self, value: float = 0.0) -> list[jax.Array]:
        """Slots that hold no tree: `value` in floating slots, zero in the others."""
        return [
            jnp.full(spec.shape, value if jnp.issubdtype(spec.dtype, jnp.floating) else 0, spec.dtype)
            for spec in self.specs
        ]


def to_data(leaf: jax.Array) -> jax.Array:
    """A leaf as numbers: of a key, its data."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _shape_of(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of a slot for leaves of these shapes: the most frequent one of the largest, or a vector."""
    largest = max(map(math.prod, shapes))
    frequent = Counter(sorted(shape for shape in shapes if math.prod(shape) == largest)).most_common(1)[0][0]
    return frequent if _fills_tiles(frequent) else (largest,)


def _fills_tiles(shape: tuple[int, ...]) -> bool:
    """Whether a TPU's tiles, which are 128 wide along the last axis, hold a quarter more than the array at most."""
    return len(shape) > 1 and -(-shape[-1] // _TILE) * _TILE <= 1.25 * shape[-1]


def _in_corner(shape: tuple[int, ...], slot: tuple[int, ...]) -> bool:
    """Whether an array of this shape lies in the slot's corner, no longer than the slot along any of its axes."""
    fits = len(shape) == len(slot) and all(a <= b for a, b in zip(shape, slot, strict=True))
    return fits and _fills_tiles(shape)


def _rows(size: int, width: int) -> int:
    """How many rows so many numbers fill."""
    return -(-size // max(1, width))


def _laid(array: jax.Array, slot: tuple[int, ...], xp: ModuleType) -> jax.Array:
    """An array in a slot of this shape; what is left over is zero."""
    if _in_corner(array.shape, slot):
        return xp.pad(array, [(0, b - a) for a, b in zip(array.shape, slot, strict=True)])
    width, flat = slot[-1], xp.reshape(array, (-1,))
    rows = _rows(flat.shape[0], width)
    filled = xp.reshape(xp.pad(flat, (0, rows * width - flat.shape[0])), (rows, width))
    return xp.reshape(xp.pad(filled, [(0, math.prod(slot[:-1]) - rows), (0, 0)]), slot)


def _like(leaf: Spec, laid: jax.Array, slot: tuple[int, ...]) -> jax.Array:
    """The array like `leaf` that was laid in a slot of this shape, behind the slot's own leading axes."""
    data, lead, width = jax.eval_shape(to_data, leaf), laid.shape[: laid.ndim - len(slot)], slot[-1]
    if _in_corner(data.shape, slot):
        array = laid[(..., *map(slice, data.shape))]
    else:
        size = math.prod(data.shape)
        rows = laid.reshape((*lead, math.prod(slot[:-1]), width))[..., : _rows(size, width), :]
        array = rows.reshape((*lead, _rows(size, width) * width))[..., :size].reshape((*lead, *data.shape))
    return jax.random.wrap_key_data(array, impl=_impl(leaf)) if is_key(leaf) else array


def _impl(leaf: Spec) -> Any:
    """Which generator a key is of; jax tells it of arrays only, so one is traced."""
    told: list[Any] = []
    jax.eval_shape(lambda key: told.append(jax.random.key_impl(key)), leaf)
    return told[0]


def _by_size(leaves: Sequence[Spec], dtype: np.dtype) -> list[int]:
    """The leaves of this dtype, largest first; those of one size in the order of their shapes, so that shapes meet."""
    rank = lambda i: (-math.prod(leaves[i].shape), leaves[i].shape)
    return sorted((i for i, x in enumerate(leaves) if x.dtype == dtype), key=rank)
