"""The `broadcast` schedule: blocks that learn from the error at the network's output, every stage at the same time.

On a tick a stage first learns from the error that has just arrived, with what it kept of that batch, and then runs
forward on a batch of its own: stage s on batch t - s.  The last stage makes the error of its batch, and one sum over
the stages carries it to all of them for the next tick.  So stage s keeps S - s batches in a ring, and what it learns is
S - 1 - s batches late: nothing on the last stage.

`locked` lets in the next batch only when the one before has gone through; then nothing is late, and a ring of one is
enough.

References:
  Webster et al., Learning the connections in direct feedback alignment (DKP): backward unlocking; nothing about
  pipelines
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Batches, Engine, Key, PyTree
from localgrad.pipeline import ring, step
from localgrad.pipeline.halves import Halves
from localgrad.pipeline.mesh import BOTH, SAME, STAGE, Layout, Program, Report, engine, mean_over_data
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.partition import state_bytes

STALENESS = ("delayed", "locked")


class BroadcastState(NamedTuple):
    """The state of a pipeline of S stages over D data shards.

    Attributes:
      slots: the stages' block states, `(S, size)` each, one row on each device.
      inbox: the messages that the next tick works on, `(D, S, size)` each.
      batch_id: which batch each message is of, int32 `(D, S)`; -1 is a bubble.
      ring: what each stage keeps of its last batches, `(D, S, places, size)` each.
      error: the error that the next tick learns from, on every device; of the batch `error_id`.
      ok: whether every number of the stage was finite so far, bool `(D, S)`; it learns no more once one is not.
      next_id: the number of the next batch, for batches that bring none, the same everywhere.
      key: the key of dropout and the like, the same everywhere.
    """

    slots: list[jax.Array]
    inbox: list[jax.Array]
    batch_id: jax.Array
    ring: list[jax.Array]
    error: list[jax.Array]
    error_id: jax.Array
    ok: jax.Array
    next_id: jax.Array
    key: Key


def broadcast(layout: Layout, bubble: float, staleness: str) -> Engine:
    """Lays the `broadcast` schedule over a mesh.

    Args:
      layout: of a model whose blocks have `signal='error'` or none.
      bubble: what fills messages and rings where nothing is; a NaN is also put over what has been used.
      staleness: `delayed` or `locked`.
    """
    model, messages, stages = layout.model, layout.messages, layout.stages
    top = len(model.blocks) - 1
    locked = staleness == "locked"
    places = 1 if locked else stages
    poisoned = bubble != 0

    halves = Halves(layout, borrow=locked)
    states, stashes, effects, values = halves.states, halves.stashes, halves.effects, halves.values
    errors = Slots([halves.signals[0]])
    plan = layout.plan._replace(
        schedule=staleness,
        uniform=False,
        slot_bytes=state_bytes(states.specs),
        stash_bytes=tuple(size * (1 if locked else stages - s) for s, size in enumerate(halves.stash_bytes)),
        stash_slot_bytes=places * state_bytes(stashes.specs),
    )

    # --- one stage -------------------------------------------------------------------------------------------------

    def answer(stage: int, slots, entry, error):
        """What the blocks learn from an error: `(effects, values)`."""
        signal = errors.unpack(0, error)
        own = zip(layout.blocks[stage], states.unpack(stage, slots), strict=True)
        there = stashes.unpack(stage, entry)
        found = [halves.answer(stage, i, state, there, None if i == top else signal) for i, state in own]
        grads, metrics, _ = zip(*found, strict=True)
        return effects.pack(stage, grads), values.pack(stage, metrics)

    def forward(stage: int, slots, message, key, batch_id, ok):
        """`(slots of batch statistics, outbox, what is kept, error)`; the error is the last stage's."""
        keys = layout.keys(stage, layout.blocks[stage][0], key, batch_id)
        moved, outbox, entry, last = halves.forward(stage, slots, message, keys, ok)
        error = errors.fill()
        if stage == stages - 1 and top > 0:  # a block alone has nobody to tell
            error = errors.pack(0, step.downward(model.blocks[top], *last))
        return moved, outbox, entry, error

    # --- all stages on one tick ------------------------------------------------------------------------------------

    def learn(slots, due, kept, place, error, ok):
        """Learns from the error that has arrived, if one has, and what was kept of its batch.

        Returns `(slots, values, ok, stopped)`.
        """
        learnt, moved = states.halves(slots)
        if layout.split:
            own = lambda stage: lambda _: answer(stage, slots, ring.read(kept, place), error)
            grads, metrics = mean_over_data(layout.choose(due, own, (effects.fill(), values.fill())))
            learnt, ok, stopped = halves.update(due, slots, grads, metrics, ok)
            return [*learnt, *moved], metrics, ok, stopped

        def whole(stage: int):
            def run(carry):
                learnt, _, ok, _ = carry
                own = [*learnt, *moved]
                grads, metrics = answer(stage, own, ring.read(kept, place), error)
                learnt, ok, stopped = halves.take(stage, own, grads, metrics, ok)
                return learnt, metrics, ok, stopped

            return run

        learnt, metrics, ok, stopped = layout.choose(due, whole, (learnt, values.fill(), ok, layout.idle()))
        return [*learnt, *moved], metrics, ok, stopped

    def advance(state: BroadcastState, fresh_id: jax.Array, examples: Callable | None):
        stage, none = jax.lax.axis_index("stage"), jnp.int32(-1)
        own_places = 1 if locked else stages - stage

        due = state.error_id >= 0
        place = state.error_id % own_places
        slots, metrics, ok, stopped = learn(state.slots, due, state.ring, place, state.error, state.ok)
        kept = state.ring
        if poisoned:
            there = ring.read(kept, place)
            used = [jnp.where(due, gone, now) for gone, now in zip(stashes.fill(bubble), there, strict=True)]
            kept = ring.write(kept, place, used)

        batch_id = jnp.where(stage == 0, fresh_id, state.batch_id)
        valid = batch_id >= 0
        place = batch_id % own_places
        learnt, before = states.halves(slots)

        def run(stage: int):
            def branch(carry):
                moved, _, kept, _ = carry
                own = step.enter(model, examples()) if examples and stage == 0 else messages.unpack(stage, state.inbox)
                moved, outbox, entry, error = forward(stage, [*learnt, *moved], own, state.key, batch_id, ok)
                made = batch_id if stage == stages - 1 else none
                return moved, (outbox, batch_id), ring.write(kept, place, entry), (error, made)

            return branch

        nothing = before, layout.silence(bubble), kept, (errors.fill(), none)
        moved, outbox, kept, (error, made) = layout.choose(valid, run, nothing)
        if layout.split:
            mean = mean_over_data(moved)
            moved = [jnp.where(valid, new, old) for new, old in zip(mean, before, strict=True)]

        error, error_id = jax.lax.psum((error, made + 1), "stage")  # zeros from all others
        up = [(s, s + 1) for s in range(stages - 1)]
        inbox, arrived = jax.lax.ppermute(outbox, "stage", up)
        arrived = jnp.where(stage == 0, -1, arrived)  # nothing arrives there, and ppermute says 0, which is a batch
        slots = [*learnt, *moved]
        new = BroadcastState(slots, inbox, arrived, kept, error, error_id - 1, ok, state.next_id, state.key)
        return new, Report(metrics, stopped, state.error_id)

    def bubbles(state: BroadcastState, count: int):
        nothing = jnp.full((count,), -1, jnp.int32)
        return jax.lax.scan(lambda state, batch_id: advance(state, batch_id, None), state, nothing)

    def feed(state: BroadcastState, batches: Batches):
        def one(state: BroadcastState, xs: tuple[jax.Array, PyTree]):
            batch_id, item = xs
            batch_id, next_id = step.number(batch_id, state.next_id)
            state = state._replace(next_id=next_id)
            state, report = advance(state, batch_id, lambda: batches.fetch(item, layout.start(), layout.shard_size))
            if not locked:
                return state, report
            state, rest = bubbles(state, stages - 1)
            return state, jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), report, rest)

        state, report = jax.lax.scan(one, state, (batches.batch_id, batches.items))
        return state, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), report) if locked else report

    def initial(key: Key, first: np.int32) -> tuple:
        kept = ring.full(stashes.fill(bubble), places)
        return messages.fill(bubble), np.int32(-1), kept, errors.fill(bubble), np.int32(-1), np.True_, first, key

    program = Program(
        specs=BroadcastState(STAGE, BOTH, BOTH, BOTH, BOTH, BOTH, BOTH, SAME, SAME),  # type: ignore[arg-type]
        initial=initial,
        feed=feed,
        flush=lambda state: bubbles(state, stages),
        bubbles=1 if locked else stages,
        values=values,
    )
    return engine(layout._replace(states=states, plan=plan), program)
