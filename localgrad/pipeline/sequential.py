"""The sequential engine: one block after another.  It is the specification of every other engine."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from localgrad.base import Batches, BlockState, Engine, Key, Metrics, Model, PyTree
from localgrad.pipeline import step
from localgrad.pipeline.partition import make_plan


class SequentialState(NamedTuple):
    """Blocks' states, the key of dropout and the like, and whether every loss so far was finite."""

    blocks: tuple[BlockState, ...]
    key: Key
    ok: jax.Array


def sequential(model: Model) -> Engine:
    """Trains a model one block after another, on one device.

    A scan over batches around a Python loop over blocks.  Blocks with `signal='none'` learn as the batch passes them.
    With `error`, all blocks learn after the forward pass, from what the last block hands down; with `cotangent`, from
    what the block above hands down.

    Args:
      model: any model.

    Returns:
      An `Engine`.
    """
    signals = {block.signal for block in model.blocks}
    local = signals == {"none"}

    def load(states: tuple[BlockState, ...], key: Key) -> SequentialState:
        # run donates its argument: the caller keeps theirs
        blocks, own_key = jax.tree.map(lambda x: jnp.array(x, copy=True), (tuple(states), key))
        return SequentialState(blocks, own_key, jnp.array(True))

    def train_local(state: SequentialState, message: PyTree, batch_id: jax.Array):
        blocks, metrics, ok = [], [], state.ok
        for i, (block, old) in enumerate(zip(model.blocks, state.blocks, strict=True)):
            key = step.block_key(state.key, batch_id, i)
            new, message, values, ok = step.train(block, old, message, key, ok)
            blocks.append(new)
            metrics.append(values)
        return state._replace(blocks=tuple(blocks), ok=ok), tuple(metrics)

    def train_global(state: SequentialState, message: PyTree, batch_id: jax.Array):
        keys = [step.block_key(state.key, batch_id, i) for i in range(len(model.blocks))]
        blocks, metrics, ok = [], [], state.ok
        moved = step.gradients(model, state.blocks, message, keys)
        for block, old, (model_state, grads, values) in reversed(
            list(zip(model.blocks, state.blocks, moved, strict=True))
        ):
            new, ok = step.learn(block, old, model_state, grads, values, ok)
            blocks.append(new)
            metrics.append(values)
        return state._replace(blocks=tuple(blocks[::-1]), ok=ok), tuple(metrics[::-1])

    def run(state: SequentialState, batches: Batches) -> tuple[SequentialState, Metrics]:
        def one(state: SequentialState, xs: tuple[jax.Array, PyTree]):
            batch_id, item = xs
            message = step.enter(model, batches.fetch(item, 0, model.batch_size))
            return (train_local if local else train_global)(state, message, batch_id)

        state, values = jax.lax.scan(one, state, (batches.batch_id, batches.items))
        return state, Metrics(values, (batches.batch_id,) * len(values))

    def drain(state: SequentialState, compiled_for: Batches | None = None) -> tuple[tuple[BlockState, ...], Metrics]:
        return jax.tree.map(jnp.copy, state.blocks), step.no_metrics(model)

    return Engine(
        load=load,
        run=jax.jit(run, donate_argnums=0),
        states=lambda state, compiled_for=None: drain(state, compiled_for)[0],
        drain=drain,
        put=lambda tree: jax.tree.map(jnp.asarray, tree),
        plan=make_plan(model),
    )
