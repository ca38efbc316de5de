"""What a block keeps from its forward half for its backward half, as arrays that a scan can carry."""

from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp

from localgrad.base import BlockState, Model, PyTree, Spec
from localgrad.pipeline.step import key_spec
from localgrad.pipeline.values import Argument, Fill, values_of


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
      values: the value of each of its leaves, see `values_of`.
      params: how many of the first arguments are parameters, to be taken from the state.
    """

    def __init__(self, structure: Spec, values: Sequence[Hashable], params: int):
        self._leaves, self._structure = jax.tree.flatten(structure)
        self._values = values
        self._kept: dict[Hashable, int] = {}  # value -> the first leaf that has it
        for leaf, value in enumerate(values):
            if not isinstance(value, Fill) and not (isinstance(value, Argument) and value.index < params):
                self._kept.setdefault(value, leaf)
        self.spec: list[Spec] = [self._leaves[leaf] for leaf in self._kept.values()]

    def keep(self, stash: PyTree) -> list[jax.Array]:
        """The leaves that are kept."""
        leaves = jax.tree.leaves(stash)
        return [leaves[leaf] for leaf in self._kept.values()]

    def whole(self, kept: Sequence[jax.Array], state: BlockState) -> PyTree:
        """The stash again; `state` holds the parameters that ran forward, where any are taken from it."""
        known: dict[Hashable, jax.Array] = {Argument(i): leaf for i, leaf in enumerate(jax.tree.leaves(state.params))}
        known |= zip(self._kept, kept, strict=True)
        leaves = [
            jnp.full(spec.shape, value.value, spec.dtype) if isinstance(value, Fill) else known[value]
            for value, spec in zip(self._values, self._leaves, strict=True)
        ]
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
        kept = lambda *args, block=block: block.forward(*args)[2]
        program, structure = jax.make_jaxpr(kept, return_shape=True)(state, message, key_spec(model))
        params = len(jax.tree.leaves(state.params)) if borrow else 0  # the first field of the first argument
        found.append(Stash(structure, values_of(program), params))
    return found
