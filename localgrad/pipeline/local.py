"""The `local` schedule: blocks with losses of their own, every stage on a batch of its own at the same time.

On tick t stage s trains its blocks on batch t - s; then one `ppermute` hands every message to the next stage.  Messages
in flight are part of the state, so nothing drains between calls: the bubble is S - 1 ticks once a run.  Stage s sees
batch k through the same parameters of stage s - 1 as in sequential training, hence the same numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Batches, Engine, Key, PyTree
from localgrad.pipeline import step
from localgrad.pipeline.mesh import BOTH, SAME, STAGE, Layout, Program, Report, engine, mean_over_data


class LocalState(NamedTuple):
    """The state of a pipeline of S stages over D data shards.

    Attributes:
      slots: the stages' block states, `(S, size)` each, one row on each device.
      inbox: the messages that the next tick works on, `(D, S, size)` each.
      batch_id: which batch each message is of, int32 `(D, S)`; -1 is a bubble.
      sound: whether every number of that batch was finite on the stages below, bool `(D, S)`.
      ok: whether every number of the stage was finite so far, bool `(D, S)`; it learns no more once one is not.
      next_id: the number of the next batch, for batches that bring none, the same everywhere.
      key: the key of dropout and the like, the same everywhere.
    """

    slots: list[jax.Array]
    inbox: list[jax.Array]
    batch_id: jax.Array
    sound: jax.Array
    ok: jax.Array
    next_id: jax.Array
    key: Key


def local(layout: Layout, bubble: float) -> Engine:
    """Lays the `local` schedule over a mesh; `bubble` fills the messages of stages that have nothing to do."""
    model, blocks, messages, states = layout.model, layout.blocks, layout.messages, layout.states
    stages, split = layout.stages, layout.split

    def halves(i: int) -> PyTree:
        run = lambda state, message, key: step.work(model.blocks[i], state, message, key)
        return jax.eval_shape(run, layout.state_specs[i], layout.message_specs[i], step.key_spec(model))

    worked = [halves(i) for i in range(len(model.blocks))]  # (message, model_state, grads, metrics) of each block
    effects = layout.stage_slots([each[1:3] for each in worked])
    values = layout.stage_slots([each[3] for each in worked])

    def receive(stage: int, inbox: list[jax.Array], examples: Callable | None) -> PyTree:
        return step.enter(model, examples()) if examples and stage == 0 else messages.unpack(stage, inbox)

    # --- one stage on one batch; `first` is the index of its first block ------------------------------------------

    def train(stage: int, first, slots, message, key, batch_id, ok):
        """The whole step: `(slots, (outbox, batch_id), values, ok, stopped)`."""
        done, metrics, why = [], [], []
        for i, state, block_key in zip(
            blocks[stage], states.unpack(stage, slots), layout.keys(stage, first, key, batch_id), strict=True
        ):
            state, message, value, ok, stopped = step.train(model.blocks[i], state, message, block_key, ok)
            done.append(state)
            metrics.append(value)
            why.append(stopped)
        outbox = messages.pack(stage + 1, message), batch_id
        return states.pack(stage, tuple(done)), outbox, values.pack(stage, tuple(metrics)), ok, layout.by_block(why)

    def work(stage: int, first, slots, message, key, batch_id):
        """The first half, before gradients are averaged: `(effects, (outbox, batch_id), values)`."""
        moved, metrics = [], []
        for i, state, block_key in zip(
            blocks[stage], states.unpack(stage, slots), layout.keys(stage, first, key, batch_id), strict=True
        ):
            message, model_state, grads, value = step.work(model.blocks[i], state, message, block_key)
            moved.append((model_state, grads))
            metrics.append(value)
        outbox = messages.pack(stage + 1, message)
        return effects.pack(stage, tuple(moved)), (outbox, batch_id), values.pack(stage, tuple(metrics))

    def learn(stage: int, slots, moved, metrics, ok):
        """The second half, after it: `(slots, ok, stopped)`."""
        done, why = [], []
        for i, state, (model_state, grads), value in zip(
            blocks[stage],
            states.unpack(stage, slots),
            effects.unpack(stage, moved),
            values.unpack(stage, metrics),
            strict=True,
        ):
            state, ok, stopped = step.learn(model.blocks[i], state, model_state, grads, value, ok)
            done.append(state)
            why.append(stopped)
        return states.pack(stage, tuple(done)), ok, layout.by_block(why)

    # --- all stages on one tick ------------------------------------------------------------------------------------

    def tick_by_choice(state: LocalState, batch_id, valid, ok, examples):
        def whole(stage):
            def run(carry):
                slots, _, _, ok, _ = carry
                message = receive(stage, state.inbox, examples)
                return train(stage, blocks[stage][0], slots, message, state.key, batch_id, ok)

            return run

        return layout.choose(valid, whole, (state.slots, layout.silence(bubble), values.fill(), ok, layout.idle()))

    def tick_of_shards(state: LocalState, batch_id, valid, ok, examples):
        def first_half(stage):
            def run(_):
                message = receive(stage, state.inbox, examples)
                return work(stage, blocks[stage][0], state.slots, message, state.key, batch_id)

            return run

        nothing = effects.fill(), layout.silence(bubble), values.fill()
        moved, outbox, metrics = layout.choose(valid, first_half, nothing)
        moved, metrics = mean_over_data((moved, metrics))
        second_half = lambda stage: lambda carry: learn(stage, carry[0], moved, metrics, carry[1])
        slots, ok, stopped = layout.choose(valid, second_half, (state.slots, ok, layout.idle()))
        return slots, outbox, metrics, ok, stopped

    def tick_uniform(state: LocalState, batch_id, valid, ok, examples):
        stage = jax.lax.axis_index("stage")
        message = messages.unpack(0, state.inbox)
        if examples:
            message = jax.tree.map(lambda new, old: jnp.where(stage == 0, new, old), receive(0, [], examples), message)
        first = stage * len(blocks[0])
        if split:
            moved, outbox, metrics = work(0, first, state.slots, message, state.key, batch_id)
            moved, metrics = mean_over_data((moved, metrics))
            slots, new_ok, stopped = learn(0, state.slots, moved, metrics, ok & valid)
        else:
            # A bubble learns nothing: `ok` is what already decides whether new state replaces old.
            slots, outbox, metrics, new_ok, stopped = train(
                0, first, state.slots, message, state.key, batch_id, ok & valid
            )
        return slots, outbox, metrics, jnp.where(valid, new_ok, ok), stopped

    tick = tick_uniform if layout.plan.uniform else tick_of_shards if split else tick_by_choice

    def advance(state: LocalState, fresh_id: jax.Array, examples: Callable | None):
        stage = jax.lax.axis_index("stage")
        batch_id = jnp.where(stage == 0, fresh_id, state.batch_id)
        valid = batch_id >= 0
        ok = state.ok & (state.sound | (stage == 0) | ~valid)
        slots, outbox, metrics, ok, stopped = tick(state, batch_id, valid, ok, examples)
        up = [(s, s + 1) for s in range(stages - 1)]
        (inbox, arrived), sound = jax.lax.ppermute((outbox, ok), "stage", up)
        arrived = jnp.where(stage == 0, -1, arrived)  # nothing arrives there, and ppermute says 0, which is a batch
        new = LocalState(slots, inbox, arrived, sound, ok, state.next_id, state.key)
        return new, Report(metrics, stopped, batch_id)

    def feed(state: LocalState, batches: Batches):
        def one(state: LocalState, xs: tuple[jax.Array, PyTree]):
            batch_id, item = xs
            batch_id, next_id = step.number(batch_id, state.next_id)
            state = state._replace(next_id=next_id)
            return advance(state, batch_id, lambda: batches.fetch(item, layout.start(), layout.shard_size))

        return jax.lax.scan(one, state, (batches.batch_id, batches.items))

    def flush(state: LocalState):
        nothing = jnp.full((stages - 1,), -1, jnp.int32)
        return jax.lax.scan(lambda state, batch_id: advance(state, batch_id, None), state, nothing)

    def initial(key: Key, first: np.int32) -> tuple:
        return messages.fill(bubble), np.int32(-1), np.True_, np.True_, first, key

    specs = LocalState(STAGE, BOTH, BOTH, BOTH, BOTH, SAME, SAME)  # type: ignore[arg-type]
    return engine(layout, Program(specs, initial, feed, values, flush, stages - 1))
