"""What a block keeps from its forward half for its backward half, as arrays that a scan can carry."""

import dataclasses
from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp

from localgrad.base import BlockState, Model, PyTree, Spec
from localgrad.pipeline.step import key_spec
from localgrad.pipeline.values import Argument, Fill, values_of


@dataclasses.dataclass(frozen=True)
class Kept:
    """A leaf of a stash that is found again in what is kept, at a place."""

    place: int


class Stash:
    """The stash of one block, as a list of those of its leaves that must be kept.

    A `vjp` cannot be carried by a scan, its leaves can; the structure is that of an earlier trace.  Of leaves that are
    equal one is kept, and none that is a constant: a relu's vjp holds its mask twice, and an array of zeros.  The vjp
    along a block's input keeps the weights themselves; where they cannot have changed by the time of the backward half
    they are taken from the state again.

    Attributes:
      spec: shapes and dtypes of what is kept.

    Args:
      structure: the stash's tree, of specs.
      sources: where each of its leaves comes from; an `Argument` is a leaf of the parameters.
    """

    def __init__(self, structure: Spec, sources: Sequence[Kept | Fill | Argument]):
        self._leaves, self._structure = jax.tree.flatten(structure)
        self._sources = sources
        self._first = [sources.index(Kept(place)) for place in range(len({s for s in sources if isinstance(s, Kept)}))]
        self.spec: list[Spec] = [self._leaves[leaf] for leaf in self._first]

    def keep(self, stash: PyTree) -> list[jax.Array]:
        """The leaves that are kept."""
        leaves = jax.tree.leaves(stash)
        return [leaves[leaf] for leaf in self._first]

    def whole(self, kept: Sequence[jax.Array], state: BlockState) -> PyTree:
        """The stash again; `state` holds the parameters that ran forward, where any are taken from it."""
        params = jax.tree.leaves(state.params)

        def found(source: Kept | Fill | Argument, spec: jax.ShapeDtypeStruct) -> jax.Array:
            if isinstance(source, Kept):
                return kept[source.place]
            return (
                params[source.index] if isinstance(source, Argument) else jnp.full(spec.shape, source.value, spec.dtype)
            )

        return jax.tree.unflatten(self._structure, list(map(found, self._sources, self._leaves)))


def stashes(model: Model, states: list[Spec], messages: list[Spec], *, borrow: bool = False) -> list[Stash]:
    """The stash of each block.

    Args:
      model: any model.
      states, messages: its `specs`.
      borrow: no block learns between its forward and its backward half.
    """
    found = []
    for block, state, message in zip(model.blocks, states, messages, strict=False):  # one message more: what leaves
        spec = jax.eval_shape(lambda *args, block=block: block.forward(*args)[2], state, message, key_spec(model))
        flat = lambda *args, block=block: jax.tree.leaves(block.forward(*args)[2])
        values = values_of(jax.make_jaxpr(flat)(state, message, key_spec(model)))
        params = len(jax.tree.leaves(state.params)) if borrow else 0  # the first field of the first argument
        sources: list[Kept | Fill | Argument] = []
        places: dict[Hashable, int] = {}
        for value in values:
            if isinstance(value, Fill) or (isinstance(value, Argument) and value.index < params):
                sources.append(value)
            else:
                sources.append(Kept(places.setdefault(value, len(places))))
        found.append(Stash(spec, sources))
    return found
