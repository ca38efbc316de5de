"""A batch a tick through stages whose blocks wait for signals: the schedules `relay`, `broadcast` and streamed `chain`.

On a tick a stage first learns from the signal that has just arrived, with what it kept of that batch, and then takes a
batch of its own forward: stage s batch t - s.  What its blocks learn at once, or from each other, they learn then.  The
message goes up to the next stage, and signals go to whoever waits for them: the error that the last stage makes goes to
all stages (`broadcast`), what a stage's lowest block hands down goes to the stage below (`relay`, `chain`).  A stage
keeps the batches in between in a ring; how many, and how late it learns, the schedule says.

`locked` lets the next batch in only when none of its signals would come late.

References:
  Webster et al., Learning the connections in direct feedback alignment (DKP): backward unlocking, without a pipeline
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import LEARNT, BlockState, Key, Message, Plan, Schedule
from localgrad.pipeline import feeding, ring
from localgrad.pipeline.block_slots import Values
from localgrad.pipeline.mesh import BOTH, SAME, STAGE, Examples, Layout, Report, StateSlots
from localgrad.pipeline.partition import state_bytes
from localgrad.pipeline.phases import Phases
from localgrad.pipeline.phases import Report as BlockReport
from localgrad.pipeline.specs import late_and_prompt
from localgrad.pipeline.stage import advance
from localgrad.pipeline.stream_parts import Learnt, StreamState, Went, Work
from localgrad.pipeline.stream_shards import Shards, learn_late_of_shards
from localgrad.pipeline.stream_signals import Signals


@dataclasses.dataclass(frozen=True)
class Stream:
    """The schedule on a mesh.

    Attributes:
      layout: of a model whose blocks wait for signals of one kind, or for none.
      schedule: which batch a stage works on when.
      signal: what blocks wait for.
      bubble: what fills messages and rings where nothing is; where it is not 0 it also replaces what has been used.
      current: the way back uses the parameters of its own time, and not those of the pass.
    """

    layout: Layout
    schedule: Schedule
    signal: str
    bubble: float = 0.0
    current: bool = False

    specs = StreamState(STAGE, BOTH, BOTH, BOTH, BOTH, BOTH, BOTH, SAME, SAME)  # type: ignore[arg-type]

    @property
    def turns(self) -> int:
        """Ticks of a batch."""
        return self.schedule.period

    @property
    def drain(self) -> int:
        """Ticks that empty the pipeline."""
        return self.schedule.drain

    @property
    def states(self) -> StateSlots:
        return self.phases.states

    @property
    def values(self) -> Values:
        return self.phases.values

    @cached_property
    def plan(self) -> Plan:
        """The layout's, with what this schedule keeps."""
        stash, places = self.phases.stash_bytes, self.schedule.places
        return self.layout.plan._replace(
            schedule=self.schedule,
            uniform=False,
            slot_bytes=state_bytes(self.states.specs),
            stash_bytes=tuple(n * size for n, size in zip(places, stash, strict=True)),
            stash_slot_bytes=max(places) * state_bytes(self.phases.entries.specs),
        )

    @cached_property
    def phases(self) -> Phases:
        moments = late_and_prompt(self.layout.model, self.layout.blocks, self.schedule.wait)
        return Phases(self.layout, *moments, borrow=self.current or not any(self.schedule.delays))

    @cached_property
    def signals(self) -> Signals:
        """What stages send each other besides messages."""
        return Signals(self.signal, self.phases, self.bubble)

    def initial(self, key: Key, first: np.int32) -> tuple:
        """All of the state but its slots, as one device sees it; `first` numbers the next batch."""
        kept = ring.full(self.phases.entries.fill(self.bubble), max(1, *self.schedule.places))
        ok = np.ones((self._most,), np.bool_)
        inbox, none = self.layout.messages.fill(self.bubble), np.int32(-1)
        return inbox, none, kept, self.signals.slots.fill(self.bubble), none, ok, first, key

    def tick(self, state: StreamState, fresh_id: jax.Array, examples: Examples | None) -> tuple[StreamState, Report]:
        """All stages on one tick; `examples` makes those of batch `fresh_id`, None being a bubble."""
        stage = jax.lax.axis_index("stage")
        own, rest, moved = self.phases.states.thirds(state.slots)
        late = Learnt(self.first(own, rest), self.values.late.fill(), state.ok, self.layout.idle())
        kept, handed = state.ring, self.signals.nothing()
        if any(self.phases.late):
            late, kept, handed = self._learn_late(state, late, rest, moved)
        batch_id = jnp.where(stage == 0, fresh_id, state.batch_id)
        own, rest, moved = self.phases.states.thirds(self.whole(late.slots, rest, moved))
        before = Learnt(rest, self.values.rest.fill(), late.ok, self.layout.idle())
        went = Went(moved, self.layout.silence(self.bubble), kept, handed)
        now, went = self._work(state, own, before, went, batch_id, examples)

        (inbox, arrived), (signal, signal_id) = self.signals.send(stage, went.sent, went.handed)
        answered = jnp.where(self._is_late(stage), state.signal_id, batch_id)
        report = Report(
            [*late.values, *now.values], jnp.where(self._is_late(stage), late.stopped, now.stopped), answered
        )
        slots = [*own, *now.slots, *went.moved]
        new = StreamState(slots, inbox, arrived, went.ring, signal, signal_id, now.ok, state.next_id, state.key)
        return new, report

    # --- one stage --------------------------------------------------------------------------------------------------

    def meet(
        self,
        stage: int,
        before: Learnt,
        rest: list[jax.Array],
        moved: list[jax.Array],
        entry: list[jax.Array],
        signal: list[jax.Array],
        signal_id: jax.Array,
    ) -> tuple[Learnt, tuple[list[jax.Array], jax.Array]]:
        """A stage learns from a signal and the entry of its batch: `(Learnt, what it hands down and its batch)`."""
        states: Sequence[BlockState] = self.phases.states.unpack(stage, self.whole(before.slots, rest, moved))
        given = self.signals.unpack(stage, signal)
        states, ok, reports, down = self.phases.learn_late(stage, states, entry, given, before.ok)
        return self.learnt(stage, states, reports, ok), self.signals.of_late(stage, down, signal_id)

    def advance(
        self,
        stage: int,
        own: list[jax.Array],
        before: Learnt,
        went: Went,
        message: Message,
        keys: Sequence[Key],
        batch_id: jax.Array,
    ) -> tuple[Learnt, Went, list[jax.Array]]:
        """A stage takes a batch forward and learns what can be learnt at once: `(Learnt, Went, its entry)`.

        `own` are slots of what late signals alone move. The ring of what went before stays as it is.
        """
        phases = self.phases
        states: Sequence[BlockState] = phases.states.unpack(stage, [*own, *before.slots, *went.moved])
        found = advance(phases, stage, states, message, keys, before.ok)
        sent = self.layout.messages.pack(stage + 1, found.sent), batch_id
        handed = self.signals.of_pass(stage, found.downs, found.made, batch_id, went.handed)
        new = Went(phases.states.pack_moved(stage, found.states), sent, went.ring, handed)
        learnt = self.learnt(stage, found.states, found.reports, found.ok, late=False)
        return learnt, new, phases.keep(stage, found.stashes, found.reports)

    # --- the first half: what has arrived ---------------------------------------------------------------------------

    def _learn_late(self, state: StreamState, nothing: Learnt, rest: list[jax.Array], moved: list[jax.Array]):
        """Learns from the signal that has arrived, if one has: `(Learnt, ring, what is handed down)`."""
        due = state.signal_id >= 0
        place = state.signal_id % self._places()
        if not self.layout.split:

            def branch(stage: int):
                def run(carry: tuple[Learnt, tuple]):
                    entry = ring.read(state.ring, place)
                    return self.meet(stage, carry[0], rest, moved, entry, state.signal, state.signal_id)

                return run

            late, handed = self.layout.choose(due, branch, (nothing, self.signals.nothing()))
        else:
            late, handed = learn_late_of_shards(self, state, nothing, rest, moved, ring.read(state.ring, place))
        return late, self._poisoned(state.ring, place, due), handed

    def _poisoned(self, kept: list[jax.Array], place: jax.Array, due: jax.Array) -> list[jax.Array]:
        """The ring with a bubble in place of what has been used, so that a test sees it if that is used again."""
        if self.bubble == 0:
            return kept
        gone = zip(self.phases.entries.fill(self.bubble), ring.read(kept, place), strict=True)
        return ring.write(kept, place, [jnp.where(due, bubble, old) for bubble, old in gone])

    # --- the second half: the pass ----------------------------------------------------------------------------------

    def _work(
        self,
        state: StreamState,
        own: list[jax.Array],
        now: Learnt,
        went: Went,
        batch_id: jax.Array,
        examples: Examples | None,
    ) -> tuple[Learnt, Went]:
        """Takes a batch forward, if there is one, and learns what can be learnt of it at once."""

        def message_of(stage: int) -> Message:
            if examples and stage == 0:
                return feeding.enter(self.layout.model, examples())
            return self.layout.messages.unpack(stage, state.inbox)

        keys = lambda stage: self.layout.keys(stage, self.layout.blocks[stage][0], state.key, batch_id)
        work = Work(own, batch_id >= 0, batch_id % self._places(), batch_id, message_of, keys)
        if self.layout.split:
            return Shards(self, work).run(now, went)

        def branch(stage: int):
            def run(carry: tuple[Learnt, Went]):
                now, went = carry
                now, new, entry = self.advance(stage, own, now, went, message_of(stage), keys(stage), batch_id)
                return now, new._replace(ring=ring.write(went.ring, work.place, entry))

            return run

        return self.layout.choose(work.valid, branch, (now, went))

    # --- small things -----------------------------------------------------------------------------------------------

    @property
    def _most(self) -> int:
        """The most blocks of any stage."""
        return max(map(len, self.layout.blocks))

    def _places(self) -> jax.Array:
        """How many batches this device's stage keeps."""
        return jnp.array([max(1, n) for n in self.schedule.places], jnp.int32)[jax.lax.axis_index("stage")]

    def _is_late(self, stage: jax.Array) -> jax.Array:
        """For each block of this device's stage, whether it learns from a signal that arrives, bool `(N,)`."""
        rows = [[i in late for i in span] for span, late in zip(self.layout.blocks, self.phases.late, strict=True)]
        table = np.array([row + [False] * (self._most - len(row)) for row in rows])
        return jnp.asarray(table)[stage]

    def learnt(
        self,
        stage: int,
        states: Sequence[BlockState],
        reports: dict,
        ok: jax.Array,
        *,
        late: bool = True,
        prompt: bool = True,
    ) -> Learnt:
        """Packs what a half of the tick has learnt: the states that it moves, and the reports that belong to it."""
        phases, span = self.phases, self.layout.blocks[stage]
        own = [i for i in span if (i in phases.late[stage]) == late]
        slots, ready = self.values.late if late else self.values.rest, prompt or not phases.prompt[stage]
        values = slots.pack(stage, {i: reports[i][0] for i in own}) if ready else slots.fill()
        nothing: BlockReport = ({}, jnp.int32(LEARNT))
        stopped = self.layout.by_block([reports.get(i, nothing)[1] for i in span], LEARNT)
        learnt = phases.states.pack_rest(stage, states)
        if late:
            learnt = self.first(phases.states.pack_late(stage, states), learnt)
        return Learnt(learnt, values, ok, stopped)

    @cached_property
    def _late_learn_at_once(self) -> bool:
        """Whether any block that learns from a late signal also learns at once."""
        return any(self.phases.passed[i].grads for own in self.phases.late for i in own)

    def first(self, own: list[jax.Array], rest: list[jax.Array]) -> list[jax.Array]:
        """Slots of what the first half of a tick moves: what late signals alone do, or that and the rest."""
        return [*own, *rest] if self._late_learn_at_once else own

    def whole(self, first: list[jax.Array], rest: list[jax.Array], moved: list[jax.Array]) -> list[jax.Array]:
        """All slots again; see `first`."""
        return [*first, *([] if self._late_learn_at_once else rest), *moved]
