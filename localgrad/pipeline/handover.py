"""From the pipeline to the sequential engine, while updates are late: batches in flight change hands.

After batch k - 1 has been fed, stage s of the pipeline has run forward up to batch k - 1 - s, while a block of the
sequential engine has run forward up to k - 1 and learnt up to k - 1 - delay.  A stage comes to that point s ticks
later, when its last message has come up to it and the errors of those batches have come down: these ticks are run here,
stage by stage on one device, with nothing new at the bottom.

    stages s = 0, 1, 2; the pipeline after batch 9; f: forward on, l: learns from

    tick   s = 0    s = 1         s = 2
    10     l 7      l 7, f 9      l 7, f 8
    11     at its   l 8           l 8, f 9
    12     point    at its point  l 9
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from localgrad.base import Model, PyTree, Spec
from localgrad.pipeline import ring, step
from localgrad.pipeline.broadcast import BroadcastState
from localgrad.pipeline.halves import Halves
from localgrad.pipeline.mesh import Layout
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.partition import make_plan
from localgrad.pipeline.sequential import Pending, SequentialState, delays_of, rings_of
from localgrad.pipeline.spmd import layout_of


def pipeline_state(model: Model, cuts: Sequence[int]) -> BroadcastState:
    """Shapes and dtypes of the state of a delayed pipeline with one data shard, which needs no mesh to be told."""
    layout, halves, errors = _parts(model, cuts)
    stages, ints, bools = layout.stages, jnp.int32, jnp.bool_
    rows = lambda specs, *lead: [jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype) for x in specs]
    specs: dict[str, Spec] = {
        "slots": rows(halves.states.specs, stages),
        "inbox": rows(layout.messages.specs, 1, stages),
        "batch_id": jax.ShapeDtypeStruct((1, stages), ints),
        "ring": rows(halves.stashes.specs, 1, stages, stages),
        "error": rows(errors.specs, 1, stages),
        "error_id": jax.ShapeDtypeStruct((1, stages), ints),
        "ok": jax.ShapeDtypeStruct((1, stages), bools),
        "next_id": jax.ShapeDtypeStruct((), ints),
        "key": step.key_spec(model),
    }
    return BroadcastState(**specs)


def hand_over(model: Model, cuts: Sequence[int], state: BroadcastState, fed: int) -> SequentialState:
    """The state of `sequential(model, delays_of(cuts))` that goes on where a delayed pipeline was left.

    Args:
      model: the model of both.
      cuts: block indices at which the pipeline's stages begin and end.
      state: of the pipeline, with one data shard.
      fed: batches that it has been fed since the start; their numbers are 0 .. fed - 1.

    Returns:
      The same batches in flight.
    """
    layout, halves, errors = _parts(model, cuts)
    stages, top = layout.stages, len(model.blocks) - 1
    own = lambda tree, s: [x[0, s] for x in tree]
    slots = [[x[s] for x in state.slots] for s in range(stages)]
    kept = [own(state.ring, s) for s in range(stages)]
    inbox = [own(state.inbox, s) for s in range(stages)]
    arrived = [int(state.batch_id[0, s]) for s in range(stages)]
    ok = [state.ok[0, s] for s in range(stages)]
    error, error_id = own(state.error, 0), int(state.error_id[0, 0])
    seen: dict[int, PyTree] = {}

    @partial(jax.jit, static_argnums=0)
    def learn(s: int, slots, entry, error, ok):
        signal, found = errors.unpack(0, error), []
        for i, block in zip(layout.blocks[s], halves.states.unpack(s, slots), strict=True):
            there = halves.stashes.unpack(s, entry)
            found.append(halves.answer(s, i, block, there, None if i == top else signal))
        grads, metrics, _ = zip(*found, strict=True)
        learnt, ok, _ = halves.take(s, slots, halves.effects.pack(s, grads), halves.values.pack(s, metrics), ok)
        return [*learnt, *halves.states.halves(slots)[1]], ok

    @partial(jax.jit, static_argnums=0)
    def forward(s: int, slots, inbox, batch_id, ok):
        keys = layout.keys(s, layout.blocks[s][0], state.key, batch_id)
        message = layout.messages.unpack(s, inbox)
        moved, outbox, entry, last = halves.forward(s, slots, message, keys, ok)
        made = errors.pack(0, step.downward(model.blocks[top], *last)) if s == stages - 1 else []
        return [*halves.states.halves(slots)[0], *moved], outbox, entry, made

    for turn in range(stages):
        if error_id >= 0:
            seen[error_id] = error
        outbox, gone, made, made_id = [inbox[0]] * stages, [-1] * stages, error, -1
        for s in range(turn, stages):  # those below are at their point
            places = stages - s
            if error_id >= 0:
                entry = ring.read(kept[s], jnp.int32(error_id % places))
                slots[s], ok[s] = learn(s, slots[s], entry, error, ok[s])
            if s > 0 and arrived[s] >= 0:
                batch_id = jnp.int32(arrived[s])
                slots[s], outbox[s], entry, found = forward(s, slots[s], inbox[s], batch_id, ok[s])
                kept[s] = ring.write(kept[s], batch_id % places, entry)
                gone[s] = arrived[s]
                made, made_id = (found, arrived[s]) if s == stages - 1 else (made, made_id)
        inbox, arrived = [inbox[0], *outbox[:-1]], [-1, *gone[:-1]]
        error, error_id = made, made_id

    blocks = [halves.states.unpack(s, slots[s]) for s in range(stages)]
    flying = range(max(0, fed - stages), fed)
    stash, (ids, stashes, signals) = rings_of(model, delays_of(cuts))
    numbers, signal_ring = ids.empty(), signals.empty()
    rings = [one.empty() for one in stashes]
    for batch in flying:
        numbers = ids.write(numbers, jnp.int32(batch), jnp.int32(batch))
        if batch in seen:
            signal_ring = signals.write(signal_ring, jnp.int32(batch), errors.unpack(0, seen[batch]))
    for s, span in enumerate(layout.blocks):
        for batch in flying[-(stages - s) :]:
            entry = halves.stashes.unpack(s, ring.read(kept[s], jnp.int32(batch % (stages - s))))
            for i, block in zip(span, blocks[s], strict=True):
                whole = halves.kept[s].whole(i, entry, block)
                rings[i] = stashes[i].write(rings[i], jnp.int32(batch), stash[i].keep([whole]))
    pending = Pending(jnp.int32(fed), numbers, rings, signal_ring)
    by_block = jnp.stack([ok[s] for s, span in enumerate(layout.blocks) for _ in span])
    states = tuple(block for stage in blocks for block in stage)
    own_key, own_id = (jnp.array(x, copy=True) for x in (state.key, state.next_id))  # running donates them
    return SequentialState(states, own_key, own_id, by_block, pending)


def _parts(model: Model, cuts: Sequence[int]) -> tuple[Layout, Halves, Slots]:
    layout = layout_of(model, make_plan(model, len(cuts) - 1, cuts))
    halves = Halves(layout, borrow=False)
    return layout, halves, Slots([halves.signals[0]])
