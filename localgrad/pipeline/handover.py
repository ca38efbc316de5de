"""From the pipeline to the sequential engine, while updates are late: batches in flight change hands.

After batch k - 1 has been fed, stage s of the pipeline has run forward up to batch k - 1 - s, while a block of the
sequential engine has run forward up to k - 1 and learnt up to k - 1 - delay.  A stage comes to that point s ticks
later, when its last message has come up to it and the signals of those batches have come down: these ticks are run
here, stage by stage on one device, with nothing new at the bottom.

    stages s = 0, 1, 2; the pipeline after batch 9; f: forward on, l: learns from

    tick   s = 0    s = 1         s = 2
    10     l 7      l 7, f 9      l 7, f 8
    11     at its   l 8           l 8, f 9
    12     point    at its point  l 9
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Model, PyTree
from localgrad.pipeline import ring
from localgrad.pipeline.delayed import Delayed, Entry, Pending
from localgrad.pipeline.mesh import BOTH, SAME, STAGE
from localgrad.pipeline.partition import make_plan
from localgrad.pipeline.schedules import delays_of, stream_of
from localgrad.pipeline.sequential import SequentialState
from localgrad.pipeline.specs import key_spec, signal_of
from localgrad.pipeline.spmd import layout_of
from localgrad.pipeline.stream import Stream
from localgrad.pipeline.stream_parts import Learnt, StreamState, Went


def pipeline_state(model: Model, cuts: Sequence[int], weights: str = "stashed") -> StreamState:
    """Shapes and dtypes of the state of a delayed pipeline with one data shard, which needs no mesh to be told."""
    stream = _stream(model, cuts, weights)
    rest = jax.eval_shape(lambda key: stream.initial(key, np.int32(0)), key_spec(model))
    lead = {STAGE: (len(cuts) - 1,), BOTH: (1, len(cuts) - 1), SAME: ()}
    row = lambda spec, tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct((*lead[spec], *x.shape), x.dtype), tree)
    parts = zip(stream.specs, (stream.states.specs, *rest), strict=True)
    return StreamState(*(row(spec, tree) for spec, tree in parts))


def hand_over(
    model: Model, cuts: Sequence[int], state: StreamState, fed: int, weights: str = "stashed"
) -> SequentialState:
    """The state of `sequential(model, delays_of(cuts, ...))` that goes on where a delayed pipeline was left.

    Args:
      model: the model of both.
      cuts: block indices at which the pipeline's stages begin and end.
      state: of the pipeline, with one data shard.
      fed: batches that it has been fed since the start; their numbers are 0 .. fed - 1.
      weights: of both, see `sequential`.

    Returns:
      The same batches in flight.
    """
    stages = _Stages(model, cuts, state, weights)
    for turn in range(stages.count):
        stages.tick(turn)
    stream, delays = stages.stream, delays_of(cuts, signal_of(model))
    blocks = [stream.states.unpack(s, slots) for s, slots in enumerate(stages.slots)]
    late = Delayed(model, delays, weights)
    empty, flying = late.empty(), range(max(0, fed - 1 - max(delays)), fed)
    ids, entries, signals = empty.ids, list(empty.entries), list(empty.signals)
    for batch in flying:
        ids = late.ids.write(ids, jnp.int32(batch), jnp.int32(batch))
    for s, own in enumerate(stream.phases.late):
        for batch in flying[-stream.schedule.places[s] :] if own else ():
            place = jnp.int32(batch % stream.schedule.places[s])
            for i, entry in stages.entries(s, place, blocks[s]).items():
                entries[i] = late.entries[i].write(entries[i], jnp.int32(batch), late_entry(late, i, *entry))
            if (s, batch) in stages.seen:
                for i in own if signal_of(model) == "top" else own[-1:]:
                    signals[i] = late.signals[i].write(signals[i], jnp.int32(batch), stages.seen[s, batch])
    pending = Pending(jnp.int32(fed), ids, entries, signals)
    ok = jnp.concatenate([row[: len(span)] for row, span in zip(stages.ok, stream.layout.blocks, strict=True)])
    own_key, own_id = (jnp.array(x, copy=True) for x in (state.key, state.next_id))  # running donates them
    return SequentialState(tuple(block for stage in blocks for block in stage), own_key, own_id, ok, pending)


def late_entry(late: Delayed, i: int, stash: PyTree, report: Any) -> Entry:
    """What the sequential engine keeps of a block's batch."""
    metrics, stopped = report or ({}, jnp.int32(0))
    return Entry(late.kept[i].keep([stash]), dict(metrics), stopped)


class _Stages:
    """The stages of a pipeline that was left, each on this one device.

    Attributes:
      stream: the schedule.
      slots, ok: of each stage.
      seen: stage and batch -> the signal that the stage was sent.
    """

    def __init__(self, model: Model, cuts: Sequence[int], state: StreamState, weights: str):
        self.stream, self.count, self._key = _stream(model, cuts, weights), len(cuts) - 1, state.key
        own = lambda tree, s: jax.tree.map(lambda x: x[0, s], tree)
        each = range(self.count)
        self.slots = [[x[s] for x in state.slots] for s in each]
        self.ok, self._rings = [own(state.ok, s) for s in each], [own(state.ring, s) for s in each]
        self._inboxes = [(own(state.inbox, s), int(state.batch_id[0, s])) for s in each]
        self._signals = [(own(state.signal, s), int(state.signal_id[0, s])) for s in each]
        self.seen: dict[tuple[int, int], PyTree] = {}

    def tick(self, turn: int) -> None:
        """A tick of those stages that are not at their point yet, with nothing new at the bottom."""
        nothing: tuple[list[jax.Array], int] = ([], -1)
        sent: list[Any] = [nothing] * self.count
        handed: list[Any] = [nothing] * self.count
        for s in range(self.count):
            signal, batch = self._signals[s]
            if batch >= 0:
                self.seen[s, batch] = self.stream.signals.unpack(s, signal)
        for s in range(turn, self.count):
            places = max(1, self.stream.schedule.places[s])
            signal, batch = self._signals[s]
            if batch >= 0 and self.stream.phases.late[s]:
                entry = ring.read(self._rings[s], jnp.int32(batch % places))
                self.slots[s], self.ok[s], down = self._meet(s, self.slots[s], self.ok[s], entry, signal, batch)
                handed[s] = self._told(down)
            message, batch = self._inboxes[s]
            if s > 0 and batch >= 0:
                found = self._advance(s, self.slots[s], self.ok[s], message, batch)
                self.slots[s], self.ok[s], outbox, entry, down = found
                self._rings[s] = ring.write(self._rings[s], jnp.int32(batch % places), entry)
                sent[s] = (outbox, batch)
                handed[s] = self._told(down) if int(down[1]) >= 0 else handed[s]
        self._inboxes = [nothing, *sent[:-1]]
        if self.stream.signal == "top":
            self._signals = [handed[-1]] * self.count
        else:
            self._signals = [*handed[1:], nothing]

    def entries(self, s: int, place: jax.Array, blocks: Sequence[Any]) -> dict[int, tuple[PyTree, Any]]:
        """Of each late block of a stage, the stash and the report that lie at a place."""
        phases = self.stream.phases
        return phases.whole_entry(s, ring.read(self._rings[s], place), blocks)

    @staticmethod
    def _told(down: tuple) -> tuple[list[jax.Array], int]:
        return down[0], int(down[1])

    @partial(jax.jit, static_argnums=(0, 1))
    def _meet(self, s: int, slots, ok, entry, signal, batch):
        own, rest, moved = self.stream.phases.states.thirds(slots)
        before = Learnt(self.stream.first(own, rest), self.stream.values.late.fill(), ok, self.stream.layout.idle())
        found, down = self.stream.meet(s, before, rest, moved, entry, signal, jnp.int32(batch))
        return self.stream.whole(found.slots, rest, moved), found.ok, down

    @partial(jax.jit, static_argnums=(0, 1))
    def _advance(self, s: int, slots, ok, inbox, batch):
        stream, batch_id = self.stream, jnp.int32(batch)
        own, rest, moved = stream.phases.states.thirds(slots)
        before = Learnt(rest, stream.values.rest.fill(), ok, stream.layout.idle())
        nothing = stream.signals.nothing()
        went = Went(moved, stream.layout.silence(0.0), [], nothing)
        keys = stream.layout.keys(s, stream.layout.blocks[s][0], self._key, batch_id)
        message = stream.layout.messages.unpack(s, inbox)
        found, new, entry = stream.advance(s, own, before, went, message, keys, batch_id)
        return [*own, *found.slots, *new.moved], found.ok, new.sent[0], entry, new.handed


def _stream(model: Model, cuts: Sequence[int], weights: str) -> Stream:
    stages, signal = len(cuts) - 1, signal_of(model)
    layout = layout_of(model, make_plan(model, stages, cuts))
    return Stream(layout, stream_of(signal, stages), signal, current=weights == "current")
