"""What a block keeps from its forward half for its backward half, as arrays that a scan can carry."""

from collections.abc import Sequence

import jax

from localgrad.base import BlockState, Model, PyTree, Spec
from localgrad.pipeline.step import key_spec


class Stash:
    """The stash of one block, as a list of its leaves.

    A `vjp` cannot be carried by a scan, its leaves can; the structure is that of an earlier trace.  The vjp along a
    block's input keeps the weights themselves.  Where they cannot have changed by the time of the backward half they
    are left out, and taken from the state again.

    Attributes:
      spec: shapes and dtypes of what is kept.

    Args:
      structure: the stash's tree, of specs.
      borrowed: for each leaf, the index of the leaf of the parameters that it is, or None.
    """

    def __init__(self, structure: Spec, borrowed: Sequence[int | None]):
        leaves, self._structure = jax.tree.flatten(structure)
        self._borrowed = borrowed
        self.spec: list[Spec] = [leaf for leaf, index in zip(leaves, borrowed, strict=True) if index is None]

    def keep(self, stash: PyTree) -> list[jax.Array]:
        """The leaves that are kept."""
        pairs = zip(jax.tree.leaves(stash), self._borrowed, strict=True)
        return [leaf for leaf, index in pairs if index is None]

    def whole(self, kept: Sequence[jax.Array], state: BlockState) -> PyTree:
        """The stash again; `state` holds the parameters that ran forward, where any are borrowed."""
        own, params = iter(kept), jax.tree.leaves(state.params)
        leaves = [next(own) if index is None else params[index] for index in self._borrowed]
        return jax.tree.unflatten(self._structure, leaves)


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
        count = len(jax.tree.leaves(spec))
        borrowed: list[int | None] = [None] * count
        if borrow:
            flat = lambda *args, block=block: jax.tree.leaves(block.forward(*args)[2])
            jaxpr = jax.make_jaxpr(flat)(state, message, key_spec(model)).jaxpr
            params = jaxpr.invars[: len(jax.tree.leaves(state.params))]  # the first field of the first argument
            places = {id(var): index for index, var in enumerate(params)}
            borrowed = [places.get(id(var)) for var in jaxpr.outvars]
        found.append(Stash(spec, borrowed))
    return found
