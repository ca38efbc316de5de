"""A batch a tick through stages whose blocks wait for signals: the schedules `relay`, `broadcast` and streamed `chain`.

On a tick a stage first learns from the signal that has just arrived, with what it kept of that batch, and then takes a
batch of its own forward: stage s batch t - s.  What its blocks learn at once, or from each other, they learn then.  The
message goes up to the next stage, and what is waited for goes where it is waited for: the error that the last stage
makes to all stages (`broadcast`), what a stage's lowest block hands down to the stage below (`relay`, `chain`).  A
stage keeps the batches in between in a ring; how many, and how late it learns, the schedule says.

`locked` lets in the next batch only when nothing of it would come late.

References:
  Webster et al., Learning the connections in direct feedback alignment (DKP): backward unlocking; nothing about
  pipelines
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import LEARNT, BlockState, Key, Message, Plan, PyTree, Schedule
from localgrad.pipeline import feeding, ring, step
from localgrad.pipeline.mesh import BOTH, SAME, STAGE, Examples, Layout, Report, StateSlots, mean_over_data
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.partition import state_bytes
from localgrad.pipeline.phases import Phases, Values
from localgrad.pipeline.specs import asks


class StreamState(NamedTuple):
    """The state of a pipeline of S stages over D data shards, of at most N blocks each.

    Attributes:
      slots: the stages' block states, `(S, size)` each, one row on each device.
      inbox: the messages that the next tick works on, `(D, S, size)` each.
      batch_id: which batch each message is of, int32 `(D, S)`; -1 is a bubble.
      ring: what each stage keeps of its last batches, `(D, S, places, size)` each.
      signal: what the next tick learns from, `(D, S, size)` each; of the batch `signal_id`, int32 `(D, S)`.
      ok: of each block, whether every number was finite so far, bool `(D, S, N)`; it learns no more once one is not.
      next_id: the number of the next batch, for batches that bring none, the same everywhere.
      key: the key of dropout and the like, the same everywhere.
    """

    slots: list[jax.Array]
    inbox: list[jax.Array]
    batch_id: jax.Array
    ring: list[jax.Array]
    signal: list[jax.Array]
    signal_id: jax.Array
    ok: jax.Array
    next_id: jax.Array
    key: Key


class Learnt(NamedTuple):
    """What one of the two halves of a tick leaves: slots of what updates move and of metrics, and flags by block."""

    slots: list[jax.Array]
    values: list[jax.Array]
    ok: jax.Array
    stopped: jax.Array


class Went(NamedTuple):
    """What the second half leaves besides: see `Stream`.

    Attributes:
      moved: slots of batch statistics.
      sent: slots of the message, and its batch.
      ring: with the batch's entry.
      handed: slots of the signal that was made, and its batch.
    """

    moved: list[jax.Array]
    sent: tuple[list[jax.Array], jax.Array]
    ring: list[jax.Array]
    handed: tuple[list[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Stream:
    """The schedule on a mesh.

    Attributes:
      layout: of a model whose blocks wait for signals of one kind, or for none.
      schedule: which says when.
      signal: what blocks wait for.
      bubble: what fills messages and rings where nothing is; a NaN is also put over what has been used.
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
        top, blocks = self.layout.stages - 1, self.layout.model.blocks
        late, prompt = [], []
        for stage, span in enumerate(self.layout.blocks):
            waiting = [i for i in span if blocks[i].signal != "none"]
            if self.signal == "top":
                late.append(waiting)
            elif self.signal == "next":
                late.append([i for i in waiting if i == span[-1]])
            else:
                late.append(waiting if stage < top else [])
            prompt.append([i for i in waiting if i not in late[-1]])
        borrow = self.current or not any(self.schedule.delays)
        return Phases(self.layout, late, prompt, borrow=borrow)

    @cached_property
    def signals(self) -> Slots:
        """Slots of the signal that each stage is sent."""
        if self.signal == "top":
            return Slots([self.phases.passed[-1].down])
        given = self.phases.given
        return Slots([given[own[-1]] if own else None for own in self.phases.late])

    def initial(self, key: Key, first: np.int32) -> tuple:
        """The parts of the state but the slots, as one device sees them."""
        kept = ring.full(self.phases.entries.fill(self.bubble), max(1, *self.schedule.places))
        ok = np.ones((self._most,), np.bool_)
        inbox, none = self.layout.messages.fill(self.bubble), np.int32(-1)
        return inbox, none, kept, self.signals.fill(self.bubble), none, ok, first, key

    def tick(self, state: StreamState, fresh_id: jax.Array, examples: Examples | None) -> tuple[StreamState, Report]:
        """All stages on one tick; `examples` makes those of batch `fresh_id`, None being a bubble."""
        stage = jax.lax.axis_index("stage")
        own, rest, moved = self.phases.states.thirds(state.slots)
        late = Learnt(self.first(own, rest), self.values.late.fill(), state.ok, self.layout.idle())
        kept, handed = state.ring, self._nothing_handed()
        if any(self.phases.late):
            late, kept, handed = self._learn_late(state, late, rest, moved)
        batch_id = jnp.where(stage == 0, fresh_id, state.batch_id)
        own, rest, moved = self.phases.states.thirds(self.whole(late.slots, rest, moved))
        before = Learnt(rest, self.values.rest.fill(), late.ok, self.layout.idle())
        went = Went(moved, self.layout.silence(self.bubble), kept, handed)
        now, went = self._work(state, own, before, went, batch_id, examples)

        (inbox, arrived), (signal, signal_id) = self._send(stage, went)
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
        states = self.phases.states.unpack(stage, self.whole(before.slots, rest, moved))
        given = self.given(stage, signal)
        states, ok, reports, down = self.phases.learn_late(stage, states, entry, given, before.ok)
        return self._learnt(stage, states, reports, ok), self._handed_late(stage, down, signal_id)

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
        passed = phases.forward(stage, states, message, keys, before.ok)
        states = [each.state for each in passed]
        stashes, reports, downs = self._by_block(stage, passed)
        ok = self.layout.by_block([each.ok for each in passed], True)
        made = phases.answer_prompt(stage, states, stashes, downs)
        after, ok, merged = phases.update(stage, states, made, reports, ok)
        sent = self.layout.messages.pack(stage + 1, passed[-1].message), batch_id
        handed = self._handed(stage, downs, made, batch_id, went.handed)
        new = Went(phases.states.pack_moved(stage, after), sent, went.ring, handed)
        return self._learnt(stage, after, merged, ok, late=False), new, phases.keep(stage, stashes, reports)

    # --- the first half: what has arrived ---------------------------------------------------------------------------

    def _learn_late(self, state: StreamState, nothing: Learnt, rest: list[jax.Array], moved: list[jax.Array]):
        """Learns from the signal that has arrived, if one has: `(Learnt, ring, what is handed down)`."""
        phases, due = self.phases, state.signal_id >= 0
        place = state.signal_id % self._places()
        none = self._nothing_handed()

        def unpacked(stage: int, slots: list[jax.Array]):
            entry = ring.read(state.ring, place)
            whole = self.whole(slots, rest, moved)
            return phases.states.unpack(stage, whole), entry, self.given(stage, state.signal)

        if not self.layout.split:

            def whole(stage: int):
                def run(carry: tuple[Learnt, tuple]):
                    entry = ring.read(state.ring, place)
                    return self.meet(stage, carry[0], rest, moved, entry, state.signal, state.signal_id)

                return run

            late, handed = self.layout.choose(due, whole, (nothing, none))
        else:
            made = Slots([{i: phases.made[i]._replace(down=None) for i in own} for own in phases.late])

            def answer(stage: int):
                def run(_):
                    states, entry, signal = unpacked(stage, nothing.slots)
                    found, down = phases.answer_late(stage, states, entry, signal)
                    bare = {i: back._replace(down=None) for i, back in found.items()}
                    return made.pack(stage, bare), self._handed_late(stage, down, state.signal_id)

                return run

            def update(stage: int):
                def run(carry: Learnt):
                    states, entry, _ = unpacked(stage, carry.slots)
                    states, ok, reports = phases.update_late(stage, states, entry, made.unpack(stage, mean), carry.ok)
                    return self._learnt(stage, states, reports, ok)

                return run

            found, handed = self.layout.choose(due, answer, (made.fill(), none))
            mean = mean_over_data(found)
            late = self.layout.choose(due, update, nothing)
        return late, self._poisoned(state.ring, place, due), handed

    def _poisoned(self, kept: list[jax.Array], place: jax.Array, due: jax.Array) -> list[jax.Array]:
        """The ring with bubbles over what has been used, where those are to be seen."""
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
        valid = batch_id >= 0
        place = batch_id % self._places()
        keys = lambda stage: self.layout.keys(stage, self.layout.blocks[stage][0], state.key, batch_id)

        def message_of(stage: int) -> Message:
            if examples and stage == 0:
                return feeding.enter(self.layout.model, examples())
            return self.layout.messages.unpack(stage, state.inbox)

        def whole(stage: int):
            def run(carry: tuple[Learnt, Went]):
                now, went = carry
                now, new, entry = self.advance(stage, own, now, went, message_of(stage), keys(stage), batch_id)
                return now, new._replace(ring=ring.write(went.ring, place, entry))

            return run

        if self.layout.split:
            return self._work_of_shards(own, now, went, valid, place, batch_id, message_of, keys)
        return self.layout.choose(valid, whole, (now, went))

    def _work_of_shards(
        self,
        own: list[jax.Array],
        now: Learnt,
        went: Went,
        valid: jax.Array,
        place: jax.Array,
        batch_id: jax.Array,
        message_of: Callable[[int], Message],
        keys: Callable[[int], list[Key]],
    ) -> tuple[Learnt, Went]:
        """The same over data shards: what each of them makes is averaged before anything learns from it."""
        phases, blocks = self.phases, self.layout.blocks
        bare = lambda each: (each.model_state, dict(each.grads), dict(each.metrics))
        effects = Slots([[bare(phases.passed[i]) for i in span] for span in blocks])
        downs_of = lambda each, asked: each.down if asked else None
        asked = [asks(self.layout.model, i) for i in range(len(self.layout.model.blocks))]
        downs = Slots([[downs_of(phases.passed[i], asked[i]) for i in span] for span in blocks])
        made = Slots([{i: phases.made[i]._replace(down=None) for i in own} for own in phases.prompt])
        states_of = lambda stage, slots, moved: list(phases.states.unpack(stage, [*own, *slots, *moved]))

        def run_pass(stage: int):
            def run(carry):
                states, message, found = states_of(stage, now.slots, went.moved), message_of(stage), []
                for j, i in enumerate(blocks[stage]):
                    found.append(step.work(phases.blocks[i], states[j], message, keys(stage)[j]))
                    message = found[-1].message
                stashes = dict(zip(blocks[stage], [each.stash for each in found], strict=True))
                entry = phases.keep_late(stage, stashes)
                prompt = phases.keep_prompt(stage, stashes)
                given = [downs_of(each, asked[i]) for i, each in zip(blocks[stage], found, strict=True)]
                sent = self.layout.messages.pack(stage + 1, message), batch_id
                return (
                    effects.pack(stage, list(map(bare, found))), entry, prompt, downs.pack(stage, given), sent
                )  # fmt: skip

            return run

        silent = self.layout.silence(self.bubble)
        idle = (
            effects.fill(), phases.late_stashes.fill(self.bubble), phases.prompt_entries.fill(), downs.fill(), silent
        )  # fmt: skip
        effect, stash, prompt, given, sent = self.layout.choose(valid, run_pass, idle)
        effect = mean_over_data(effect)

        def learn_at_once(stage: int):
            def run(carry):
                now, moved, kept, _ = carry
                states, ok, found = states_of(stage, now.slots, moved), now.ok, {}
                for j, (i, each) in enumerate(zip(blocks[stage], effects.unpack(stage, effect), strict=True)):
                    states[j], sound, stopped = step.settle(phases.blocks[i], states[j], *each, ok[j])
                    ok = ok.at[j].set(sound)
                    found[i] = each[2], stopped
                kept = ring.write(kept, place, phases.with_reports(stage, stash, found))
                learnt = self._learnt(stage, states, found, ok, late=False, prompt=False)
                return learnt, phases.states.pack_moved(stage, states), kept, learnt.stopped

            return run

        idle = now, went.moved, went.ring, self.layout.idle()
        now, moved, kept, first = self.layout.choose(valid, learn_at_once, idle)
        handed = went.handed
        if any(phases.prompt):

            def answer(stage: int):
                def run(_):
                    states = states_of(stage, now.slots, moved)
                    stashes = phases.whole_prompt(stage, prompt, states)
                    own = dict(zip(blocks[stage], downs.unpack(stage, given), strict=True))
                    found = phases.answer_prompt(stage, states, stashes, own)
                    bare = {i: back._replace(down=None) for i, back in found.items()}
                    return made.pack(stage, bare), self._handed(stage, own, found, batch_id, went.handed)

                return run

            def update(stage: int):
                def run(now: Learnt):
                    states = states_of(stage, now.slots, moved)
                    told = zip(blocks[stage], effects.unpack(stage, effect), strict=True)
                    reports = {i: (each[2], first[j]) for j, (i, each) in enumerate(told)}
                    found = made.unpack(stage, back)
                    states, ok, merged = phases.update(stage, states, found, reports, now.ok)
                    return self._learnt(stage, states, merged, ok, late=False)

                return run

            back, handed = self.layout.choose(valid, answer, (made.fill(), went.handed))
            back = mean_over_data(back)
            now = self.layout.choose(valid, update, now)
        else:

            def hand(stage: int):
                def run(before):
                    own = dict(zip(blocks[stage], downs.unpack(stage, given), strict=True))
                    return self._handed(stage, own, {}, batch_id, before)

                return run

            handed = self.layout.choose(valid, hand, went.handed)
        return now, Went(moved, sent, kept, handed)

    # --- what goes where --------------------------------------------------------------------------------------------

    def _nothing_handed(self) -> tuple[list[jax.Array], jax.Array]:
        """What a stage hands down that has nothing to say: of an error that is summed over stages, zeros."""
        return self.signals.fill(0.0 if self.signal == "top" else self.bubble), jnp.int32(-1)

    def _handed_late(self, stage: int, down: PyTree, batch_id: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        """What a stage hands down once it has learnt from its signal: of backpropagation alone."""
        if self.signal == "above" and stage > 0:
            return self.signals.pack(stage - 1, down), batch_id
        return self._nothing_handed()

    def _handed(self, stage: int, downs: dict, made: dict, batch_id: jax.Array, before: tuple) -> tuple:
        """What a stage hands down of its pass, or what it did of an earlier one."""
        last, lowest = stage == self.layout.stages - 1, self.layout.blocks[stage][0]
        if self.signal == "top" and last:
            return self.signals.pack(0, downs[self.layout.blocks[stage][-1]]), batch_id
        if self.signal == "next" and stage > 0 and self.phases.late[stage - 1]:
            return self.signals.pack(stage - 1, downs[lowest]), batch_id
        if self.signal == "above" and last and stage > 0:
            return self.signals.pack(stage - 1, made[lowest].down), batch_id
        return before

    def _send(self, stage: jax.Array, went: Went) -> tuple[tuple, tuple]:
        """Messages to the stage above, signals to where they are waited for: `((inbox, id), (signal, id))`."""
        stages = self.layout.stages
        inbox, arrived = jax.lax.ppermute(went.sent, "stage", [(s, s + 1) for s in range(stages - 1)])
        arrived = jnp.where(stage == 0, -1, arrived)  # nothing arrives there, and ppermute says 0, which is a batch
        handed, made = went.handed
        if self.signal == "top":
            signal, signal_id = jax.lax.psum((handed, made + 1), "stage")  # zeros from all others
            return (inbox, arrived), (signal, signal_id - 1)
        signal, signal_id = jax.lax.ppermute((handed, made), "stage", [(s, s - 1) for s in range(1, stages)])
        return (inbox, arrived), (signal, jnp.where(stage == stages - 1, -1, signal_id))

    def given(self, stage: int, slots: list[jax.Array]) -> PyTree:
        """The signal of a stage from its slots."""
        return self.signals.unpack(0 if self.signal == "top" else stage, slots)

    # --- small things -----------------------------------------------------------------------------------------------

    @property
    def _most(self) -> int:
        return max(map(len, self.layout.blocks))

    def _places(self) -> jax.Array:
        """How many batches this device's stage keeps."""
        return jnp.array([max(1, n) for n in self.schedule.places], jnp.int32)[jax.lax.axis_index("stage")]

    def _is_late(self, stage: jax.Array) -> jax.Array:
        """Of this device's stage, which of its blocks learn from signals that arrive."""
        rows = [[i in late for i in span] for span, late in zip(self.layout.blocks, self.phases.late, strict=True)]
        table = np.array([row + [False] * (self._most - len(row)) for row in rows])
        return jnp.asarray(table)[stage]

    def _by_block(self, stage: int, passed: Sequence[step.Passed]) -> tuple[dict, dict, dict]:
        """Stashes, reports and what is handed down, by block."""
        span = self.layout.blocks[stage]
        each = list(zip(span, passed, strict=True))
        reports = {i: (dict(one.metrics), one.stopped) for i, one in each}
        return {i: one.stash for i, one in each}, reports, {i: one.down for i, one in each}

    def _learnt(
        self,
        stage: int,
        states: Sequence[BlockState],
        reports: dict,
        ok: jax.Array,
        *,
        late: bool = True,
        prompt: bool = True,
    ) -> Learnt:
        """Packed: of the reports, those that belong to this half of the tick."""
        phases, span = self.phases, self.layout.blocks[stage]
        own = [i for i in span if (i in phases.late[stage]) == late]
        slots, ready = self.values.late if late else self.values.rest, prompt or not phases.prompt[stage]
        values = slots.pack(stage, {i: reports[i][0] for i in own}) if ready else slots.fill()
        nothing = ({}, jnp.int32(LEARNT))
        stopped = self.layout.by_block([reports.get(i, nothing)[1] for i in span], LEARNT)
        learnt = phases.states.pack_rest(stage, states)
        if late:
            learnt = self.first(phases.states.pack_late(stage, states), learnt)
        return Learnt(learnt, values, ok, stopped)

    @cached_property
    def _late_learn_at_once(self) -> bool:
        return any(self.phases.passed[i].grads for own in self.phases.late for i in own)

    def first(self, own: list[jax.Array], rest: list[jax.Array]) -> list[jax.Array]:
        """Slots of what the first half of a tick moves: what late signals alone do, or that and the rest."""
        return [*own, *rest] if self._late_learn_at_once else own

    def whole(self, first: list[jax.Array], rest: list[jax.Array], moved: list[jax.Array]) -> list[jax.Array]:
        """All slots again; see `first`."""
        return [*first, *([] if self._late_learn_at_once else rest), *moved]
