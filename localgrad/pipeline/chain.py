"""The `chain` schedule: backpropagation over stages, with micro-batches that follow each other (GPipe).

A batch is cut into M parts.  Forward, stage s works on part t - s on tick t and keeps what the way back needs; then the
gradients come down in the same manner.  Every block learns once a batch, from the mean over the parts: the gradient of
the whole batch where its loss is a mean over examples.  Batch norm and losses that couple examples see one part at a
time, running statistics move once a part, and dropout draws for each part anew.  A batch leaves no stage before all
have learnt from it, so each pays a bubble of S - 1 ticks on the way up and S - 1 on the way down.

References:
  Huang et al., GPipe, https://arxiv.org/abs/1811.06965
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


class ChainState(NamedTuple):
    """The state of a pipeline of S stages over D data shards; nothing is in flight between batches.

    Attributes:
      slots: the stages' block states, `(S, size)` each, one row on each device.
      ok: whether every number so far was finite, bool `(D, S)`; a stage learns no more once one is not.
      next_id: the number of the next batch, for batches that bring none, the same everywhere.
      key: the key of dropout and the like, the same everywhere.
    """

    slots: list[jax.Array]
    ok: jax.Array
    next_id: jax.Array
    key: Key


def chain(layout: Layout, bubble: float, micro_batches: int) -> Engine:
    """Lays the `chain` schedule over a mesh.

    Args:
      layout: of any model, its message specs of one part of a shard.
      bubble: what fills messages where nothing is.
      micro_batches: parts M of a shard's batch.
    """
    model, blocks, messages, stages = layout.model, layout.blocks, layout.messages, layout.stages
    micro_size = layout.shard_size // micro_batches
    ticks = micro_batches + stages - 1

    halves = Halves(layout, borrow=True)
    states, stashes, effects, values = halves.states, halves.stashes, halves.effects, halves.values
    signals = Slots([halves.signals[span[-1]] for span in blocks])  # what each stage is given from above
    plan = layout.plan._replace(
        schedule="chain",
        micro_batches=micro_batches,
        uniform=False,
        slot_bytes=state_bytes(states.specs),
        stash_bytes=tuple(micro_batches * size for size in halves.stash_bytes),
        stash_slot_bytes=micro_batches * state_bytes(stashes.specs),
    )

    # --- one stage on one part -------------------------------------------------------------------------------------

    def backward(stage: int, slots, entry, signal_slots):
        """`(effects, values, signal for the stage below)`."""
        signal = signals.unpack(stage, signal_slots)
        own = zip(blocks[stage], states.unpack(stage, slots), strict=True)
        there, found = stashes.unpack(stage, entry), []
        for i, state in reversed(list(own)):
            down = step.hands_down(model, i)
            grads, metrics, downward = halves.answer(stage, i, state, there, signal, down)
            signal = downward if down else signal
            found.append((grads, metrics))
        grads, metrics = zip(*found[::-1], strict=True)
        below = signals.pack(stage - 1, signal) if stage else signals.fill(bubble)
        return effects.pack(stage, grads), values.pack(stage, metrics), below

    # --- all stages on one batch -----------------------------------------------------------------------------------

    def train(state: ChainState, batch_id: jax.Array, examples: Callable):
        stage = jax.lax.axis_index("stage")
        real = batch_id >= 0
        learnt, before = states.halves(state.slots)

        def go_up(carry, tick):
            moved, inbox, kept = carry
            part = tick - stage
            valid = (part >= 0) & (part < micro_batches) & real
            place = jnp.clip(part, 0, micro_batches - 1)

            def run(stage: int):
                def branch(carry):
                    moved, _, kept = carry
                    message = step.enter(model, examples(part)) if stage == 0 else messages.unpack(stage, inbox)
                    keys = layout.keys(stage, blocks[stage][0], state.key, batch_id)
                    if micro_batches > 1:
                        keys = [step.fold_in(key, part) for key in keys]
                    moved, outbox, entry, _ = halves.forward(stage, [*learnt, *moved], message, keys, state.ok)
                    return moved, outbox, ring.write(kept, place, entry)

                return branch

            moved, outbox, kept = layout.choose(valid, run, (moved, messages.fill(bubble), kept))
            inbox = jax.lax.ppermute(outbox, "stage", [(s, s + 1) for s in range(stages - 1)])
            return (moved, inbox, kept), None

        each_tick = jnp.arange(ticks, dtype=jnp.int32)
        start = (before, messages.fill(bubble), ring.full(stashes.fill(bubble), micro_batches))
        (moved, _, kept), _ = jax.lax.scan(go_up, start, each_tick)

        def go_down(carry, tick):
            inbox, grads, metrics = carry
            part = tick - (stages - 1 - stage)
            valid = (part >= 0) & (part < micro_batches) & real
            place = jnp.clip(part, 0, micro_batches - 1)
            add = lambda total, one: [x + y for x, y in zip(total, one, strict=True)]

            def run(stage: int):
                def branch(carry):
                    grads, metrics, _ = carry
                    grad, metric, below = backward(stage, [*learnt, *moved], ring.read(kept, place), inbox)
                    return add(grads, grad), add(metrics, metric), below

                return branch

            grads, metrics, outbox = layout.choose(valid, run, (grads, metrics, signals.fill(bubble)))
            inbox = jax.lax.ppermute(outbox, "stage", [(s, s - 1) for s in range(1, stages)])
            return (inbox, grads, metrics), None

        start = (signals.fill(bubble), effects.fill(), values.fill())
        (_, grads, metrics), _ = jax.lax.scan(go_down, start, each_tick)
        grads, metrics = jax.tree.map(lambda x: x / micro_batches, (grads, metrics))
        if layout.split:
            grads, metrics, moved = mean_over_data((grads, metrics, moved))
        learnt, ok, stopped = halves.update(real, [*learnt, *moved], grads, metrics, state.ok)
        return state._replace(slots=[*learnt, *moved], ok=ok), Report(metrics, stopped, batch_id)

    def feed(state: ChainState, batches: Batches):
        def one(state: ChainState, xs: tuple[jax.Array, PyTree]):
            batch_id, item = xs
            batch_id, next_id = step.number(batch_id, state.next_id)
            state = state._replace(next_id=next_id)
            part_of = lambda part: batches.fetch(item, layout.start() + part * micro_size, micro_size)
            return train(state, batch_id, part_of)

        return jax.lax.scan(one, state, (batches.batch_id, batches.items))

    program = Program(
        specs=ChainState(STAGE, BOTH, SAME, SAME),  # type: ignore[arg-type]
        initial=lambda key, first: (np.True_, first, key),
        feed=feed,
        values=values,
    )
    return engine(layout._replace(states=states, plan=plan), program)


def parts_of(examples: int, stages: int, micro_batches: int | None, least: int = 1) -> int:
    """The number of micro-batches of a shard: the one asked for, or as many as divide it, at most 4 S.

    Args:
      examples: of the shard.
      stages: number of stages S.
      micro_batches: the number asked for, or None.
      least: the fewest examples of a part that is not asked for.

    Raises:
      ValueError: if they do not divide the examples.
    """
    if micro_batches is None:
        most = 1 if stages == 1 else 4 * stages
        return max(m for m in range(1, most + 1) if examples % m == 0 and (m == 1 or examples // m >= least))
    if micro_batches < 1 or examples % micro_batches:
        raise ValueError(
            f"--micro_batches={micro_batches} do not divide the {examples} examples that a data shard has of a batch."
        )
    return micro_batches
