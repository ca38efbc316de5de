"""A trained network as the start of another: of a longer one, of one for other data, or of new heads alone."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from localgrad.base import Backward, BlockState, Forward, Key, LocalBlock, Message, Model, PyTree
from localgrad.methods.groups import first_states


def graft(states: Sequence[BlockState], shorter: Sequence[BlockState]) -> tuple[BlockState, ...]:
    """Puts the blocks of a trained network in place of the first blocks of a longer one.

    A group of parameters is taken over where it has the same shapes in both; what a method gives to a top block alone
    (the classifier of an output block, the last auxiliary network) starts anew with the blocks above.  So do
    optimizers: their counts and schedules belong to the new run.

    Args:
      states: of the longer network, as `init` makes them.
      shorter: of the trained one.

    Returns:
      One `BlockState` a block of the longer network.

    Raises:
      ValueError: if the network is not longer, or its lower blocks are others than those that were trained.
    """
    trained = [old for old in shorter if "f" in old.params]
    if sum("f" in new.params for new in states) <= len(trained):
        raise ValueError(f"a network of {len(trained)} blocks can only start one of more blocks.")
    grown = list(states)
    for i, old in enumerate(trained):
        new = states[i]
        if not _same(new.params["f"], old.params["f"]) or not _same(new.model_state["f"], old.model_state["f"]):
            raise ValueError(
                f"block {i + 1} is another one in the trained network: {_shapes(old.params['f'])} there and "
                f"{_shapes(new.params['f'])} here. The longer network must begin with the blocks of the shorter."
            )
        kept = [group for group in new.params if group in old.params and _same(new.params[group], old.params[group])]
        take = lambda ours, theirs, kept=kept: {**ours, **{group: theirs[group] for group in kept}}
        grown[i] = new._replace(params=take(new.params, old.params), model_state=take(new.model_state, old.model_state))
    return tuple(grown)


def transfer(
    states: Sequence[BlockState], trained: Sequence[BlockState], groups: Sequence[str] | None = ("f",)
) -> tuple[BlockState, ...]:
    """Puts a trained network's layers in place of those of a new one, to learn other data or other classes.

    Args:
      states: of the new network, as `init` makes them.
      trained: of the trained one.
      groups: of parameters that are taken over where they have the same shapes in both, with their running averages:
        the layers alone by default, so that heads begin anew; None is all of them.

    Returns:
      One `BlockState` a block of the new network; its optimizers begin anew.

    Raises:
      ValueError: nothing of it fits.
    """
    found, fits = list(states), fitting(states, trained, groups)
    for i, (new, old) in enumerate(zip(states, trained, strict=False)):
        take = lambda ours, theirs, i=i: {**ours, **{g: _in_place(ours[g], theirs.get(g)) for g in fits[i]}}
        found[i] = new._replace(params=take(new.params, old.params), model_state=take(new.model_state, old.model_state))
    if not any(jax.tree.leaves(new.params[group]) for new, those in zip(states, fits, strict=True) for group in those):
        raise ValueError(
            "nothing of the trained network fits into this one: no block has the shapes that it has there, "
            f"{_shapes(trained[0].params)} there and {_shapes(states[0].params)} here in the first."
        )
    return tuple(found)


def fitting(
    states: Sequence[BlockState], trained: Sequence[BlockState], groups: Sequence[str] | None = ("f",)
) -> list[list[str]]:
    """Of each block the groups of parameters that `transfer` takes over; none of blocks above the trained ones.

    Args:
      states, trained, groups: see `transfer`; shapes are enough.
    """
    found = [
        [
            group
            for group in new.params
            if (groups is None or group in groups)
            and group in old.params
            and _same(new.params[group], old.params[group])
            and _same(new.model_state[group], old.model_state.get(group))
        ]
        for new, old in zip(states, trained, strict=False)
    ]
    return found + [[] for _ in states[len(found) :]]


def heads_alone(model: Model, layers: Sequence[str] = ("f",)) -> Model:
    """Stops the layers of a model from learning, in every block: what reads them learns alone.

    Dropout stays; running averages stand still.

    Args:
      model: any model.
      layers: the groups of parameters that are fixed.

    Raises:
      ValueError: where nothing is left to learn.
    """
    fixed = tuple(_without(block, frozenset(layers)) for block in model.blocks)
    if not any(block.tx for block in fixed):
        raise ValueError(f"method {model.method!r} has nothing that learns besides the layers {', '.join(layers)}.")
    return model._replace(blocks=fixed)


def freeze(model: Model, count: int) -> Model:
    """Stops the first `count` blocks of a model from learning: neither parameters nor batch statistics move.

    Raises:
      ValueError: unless `count` is at least 0 and below the number of blocks.
    """
    if not 0 <= count < len(model.blocks):
        raise ValueError(f"frozen={count} of {len(model.blocks)} blocks: at least one block must learn.")
    return model._replace(blocks=(*map(_frozen, model.blocks[:count]), *model.blocks[count:]))


def _frozen(block: LocalBlock) -> LocalBlock:
    def init(key: Key, message: PyTree) -> BlockState:
        return block.init(key, message)._replace(opt_state={})

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        return block.forward(state, message, key)._replace(model_state=state.model_state)

    return block._replace(init=init, forward=forward, tx={}, made_of=None)


def _without(block: LocalBlock, fixed: frozenset[str]) -> LocalBlock:
    tx = {}
    for key, transform in block.tx.items():
        if left := "+".join(group for group in key.split("+") if group not in fixed):
            tx[left] = transform

    def init(key: Key, message: PyTree) -> BlockState:
        state = block.init(key, message)
        return state._replace(opt_state=first_states(tx, state.params, key))

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        found = block.forward(state, message, key)
        still = {group: state.model_state[group] for group in fixed if group in state.model_state}
        grads = {group: grad for group, grad in found.grads.items() if group not in fixed}
        return found._replace(model_state={**found.model_state, **still}, grads=grads)

    def backward(state: BlockState, stash: PyTree, signal: PyTree) -> Backward:
        assert block.backward is not None
        found = block.backward(state, stash, signal)
        return found._replace(grads={group: grad for group, grad in found.grads.items() if group not in fixed})

    return block._replace(init=init, forward=forward, tx=tx, backward=None if block.backward is None else backward)


def _in_place(ours: PyTree, theirs: PyTree) -> PyTree:
    """The arrays of one tree in the form of another of the same paths."""
    arrays = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(theirs)}
    put = lambda path, old: jnp.asarray(arrays[jax.tree_util.keystr(path)], old.dtype)
    return jax.tree_util.tree_map_with_path(put, ours)


def _same(ours: PyTree, theirs: PyTree) -> bool:
    return _shapes(ours) == _shapes(theirs)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(tree)}
