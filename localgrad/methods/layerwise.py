"""Sequential greedy learning: one block after another, each frozen before the next begins.

    block i learns from the batches  i n, ..., (i + 1) n - 1  alone;  the last one goes on from there

Before its turn a block does nothing, not even its pass; after it the block is frozen, parameters and running averages,
and hands its features on.  So block i learns what it would learn of a network that ends with it, above frozen blocks.

References:
  Belilovsky, Eickenberg and Oyallon, Greedy Layerwise Learning Can Scale to ImageNet,
    https://arxiv.org/abs/1812.11446, section 3.1 and Algorithm 1.  The paper's ensemble of all exits, weighted by 2^i,
    is `localgrad.ensemble(model, heads, [2**i for i in range(len(heads))])`.
  Hinton, Osindero and Teh, A Fast Learning Algorithm for Deep Belief Nets (2006), for one layer after another
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from localgrad.base import BlockState, Forward, Key, LocalBlock, Message, Model
from localgrad.descent import Around, descending


def layerwise(model: Model, batches: int) -> Model:
    """Lets the blocks of a local rule learn one after another, each from so many batches.

    A block counts the batches itself, in the states of its optimizers (`optax.conditionally_mask`), so that engines,
    checkpoints and pipelines need not know.  Rates that follow a schedule begin with the block's own turn.

    Args:
      model: of a rule whose blocks wait for nothing; blocks that do not learn, frozen ones, have no turn.
      batches: of each turn.  What comes after the last turn is the last block's as well.

    Returns:
      The model.  Of a block that has not begun, loss and features are zeros.

    Raises:
      ValueError: for a turn of no batches, a rule whose blocks wait for a signal, or a model of several trials: make
        trials of what this returns.
    """
    if batches < 1:
        raise ValueError(f"a block's turn is at least one batch; got {batches}.")
    if model.trials is not None or any(block.signal != "none" for block in model.blocks):
        raise ValueError(
            "layerwise is for rules whose blocks wait for nothing, before they are run in several trials; method "
            f"{model.method!r} is not so here."
        )
    learning = [i for i, block in enumerate(model.blocks) if block.tx]
    blocks = list(model.blocks)
    for turn, i in enumerate(learning):
        end = (turn + 1) * batches if i != learning[-1] else None
        blocks[i] = _in_turn(model.blocks[i], turn * batches, end)
    complete = None if model.complete is None else partial(_completed, model.complete)
    return model._replace(blocks=tuple(blocks), complete=complete, turn=batches)


def _completed(complete: Callable, key: Key, states: tuple[BlockState, ...]) -> tuple[BlockState, ...]:
    """`Model.complete` of the model as it was."""
    return tuple(map(_counting, complete(key, tuple(map(_plain, states)))))


def _counting(state: BlockState) -> BlockState:
    """A first state with a count of batches in the state of each optimizer."""
    first = {key: optax.ConditionallyMaskState(jnp.int32(0), inner) for key, inner in state.opt_state.items()}
    return state._replace(opt_state=first)


def _plain(state: BlockState) -> BlockState:
    """A state without the counts; of a block that has none as it is."""
    inner = lambda one: one.inner_state if isinstance(one, optax.ConditionallyMaskState) else one
    return state._replace(opt_state={key: inner(one) for key, one in state.opt_state.items()})


def _in_turn(block: LocalBlock, begin: int, end: int | None) -> LocalBlock:
    """A block that learns from the batches `begin .. end - 1` of those that it is given."""

    def learns(count: jax.Array) -> jax.Array:
        begun = count >= begin
        return begun if end is None else begun & (count < end)

    tx = {key: Around(*optax.conditionally_mask(descending(one), learns)) for key, one in block.tx.items()}

    def init(key: Key, message: Message) -> BlockState:
        return _counting(block.init(key, message))

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        if not state.opt_state:  # who tries the pass alone sees that of its turn
            return block.forward(state, message, key)
        count = next(iter(state.opt_state.values())).step

        def now(state: BlockState) -> Forward:
            return block.forward(state, message, key)

        def before(state: BlockState) -> Forward:
            nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(now, state))
            return nothing._replace(model_state=state.model_state)

        def after(state: BlockState) -> Forward:
            found = now(state)
            still = jax.tree.map(jnp.zeros_like, found.grads)
            return found._replace(model_state=state.model_state, grads=still)

        ends = jnp.bool_(False) if end is None else count >= end
        return jax.lax.switch(jnp.where(count < begin, 0, jnp.where(ends, 2, 1)), [before, now, after], _plain(state))

    return block._replace(init=init, forward=forward, tx=tx, made_of=None)
