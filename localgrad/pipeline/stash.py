"""What blocks keep from their forward half for their backward half, as arrays that a scan can carry."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import jax
import jax.numpy as jnp

from localgrad.base import BlockState, Forward, Model, PyTree, Spec
from localgrad.pipeline.specs import key_spec
from localgrad.pipeline.values import Argument, Fill, values_of


class Stash:
    """The stashes of blocks that follow each other, as a list of those of their leaves that must be kept.

    A `vjp` cannot be carried by a scan, its leaves can; the structure is that of an earlier trace.  Of leaves that are
    equal one is kept, and none that is a constant: a relu's vjp holds its mask twice, and an array of zeros, and what a
    block hands on is what the next one is given.  The vjp along a block's input keeps the weights themselves; where
    they cannot have changed by the time of the backward half they are taken from the state again.

    Attributes:
      spec: shapes and dtypes of what is kept.

    Args:
      structures: block -> its stash's tree, of specs.
      names: block -> a name for the value of each of its leaves; equal names are equal arrays, a `Fill` is no array,
        and an `Argument` is that of the block's parameters.
    """

    def __init__(self, structures: Mapping[int, Spec], names: Mapping[int, Sequence[Hashable]]):
        self._structures, self._names = structures, names
        self._kept: dict[Hashable, int] = {}  # name -> the first leaf that has it, of those of all blocks
        for leaf, name in enumerate(name for own in names.values() for name in own):
            if not isinstance(name, Fill | Argument):
                self._kept.setdefault(name, leaf)
        leaves = jax.tree.leaves(list(structures.values()))
        self.spec: list[Spec] = [leaves[leaf] for leaf in self._kept.values()]

    def keep(self, stashes: Sequence[PyTree]) -> list[jax.Array]:
        """The leaves that are kept, of the stashes of all blocks."""
        leaves = jax.tree.leaves(list(stashes))
        return [leaves[leaf] for leaf in self._kept.values()]

    def whole(self, block: int, kept: Sequence[jax.Array], state: BlockState) -> PyTree:
        """A block's stash again; `state` holds the parameters that ran forward, where any are taken from it."""
        known: dict[Hashable, jax.Array] = {Argument(i): leaf for i, leaf in enumerate(jax.tree.leaves(state.params))}
        known |= zip(self._kept, kept, strict=True)
        leaves, structure = jax.tree.flatten(self._structures[block])
        found = [
            jnp.full(spec.shape, name.value, spec.dtype) if isinstance(name, Fill) else known[name]
            for name, spec in zip(self._names[block], leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, found)


def stashes(
    model: Model,
    states: Sequence[Spec],
    messages: Sequence[Spec],
    spans: Sequence[Sequence[int]] | None = None,
    *,
    borrow: bool = False,
) -> list[Stash]:
    """What is kept of each span of blocks.

    Args:
      model: any model.
      states, messages: its `specs`.
      spans: ascending blocks that keep together; by default each keeps for itself.
      borrow: parameters that the backward half uses are those of its own time: no block has learnt from a signal since
        its pass, or they are meant to be. Those of blocks that learn at once are kept nevertheless.
    """
    found = []
    for span in [[i] for i in range(len(model.blocks))] if spans is None else spans:
        structures, names = {}, {}
        arriving: list[Hashable] | None = None  # names of the message's leaves, where a block of the span made it
        for place, i in enumerate(span):
            if place and span[place - 1] != i - 1:
                arriving = None
            run = lambda *args, block=model.blocks[i]: _handed_and_kept(block.forward(*args))
            program, specs = jax.make_jaxpr(run, return_shape=True)(states[i], messages[i], key_spec(model))
            values = values_of(program)
            handed = len(jax.tree.leaves(specs[0]))
            name = _namer(i, states[i], arriving)
            lends = borrow and not specs[2]
            params = len(jax.tree.leaves(states[i].params)) if lends else 0  # the first arguments
            kept = values[handed : handed + len(jax.tree.leaves(specs[1]))]
            structures[i] = specs[1]
            names[i] = [
                value if isinstance(value, Argument) and value.index < params else name(value) for value in kept
            ]
            arriving = [name(value) for value in values[:handed]]
        found.append(Stash(structures, names))
    return found


def _handed_and_kept(passed: Forward) -> tuple[PyTree, PyTree, PyTree]:
    return passed.message, passed.stash, passed.grads


def _namer(block: int, state: Spec, arriving: Sequence[Hashable] | None) -> Callable[[Hashable], Hashable]:
    """Names for values of a block's program, which is given `(state, message, key)`."""
    first = len(jax.tree.leaves(state))

    def name(value: Hashable) -> Hashable:
        if isinstance(value, Argument) and arriving is not None and 0 <= value.index - first < len(arriving):
            return arriving[value.index - first]
        return value if isinstance(value, Fill) else (block, value)

    return name
