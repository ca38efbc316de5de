"""Growing a network: a trained one is the start of a longer one, its blocks frozen or not."""

from collections.abc import Sequence

import jax

from localgrad.base import BlockState, Forward, Key, LocalBlock, Message, Model, PyTree


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


def _same(ours: PyTree, theirs: PyTree) -> bool:
    return _shapes(ours) == _shapes(theirs)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(tree)}
