"""A tick of a streamed pipeline over data shards: what each shard makes is averaged before anything learns from it.

Averages are collectives, and none may stand inside a stage's loop: so each half of a tick is cut in two, and what is
carried from one to the other lies in slots.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from localgrad.base import Backward, BlockState, Forward
from localgrad.pipeline import ring, shards, step
from localgrad.pipeline.mesh import mean_over_data
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.specs import asked_in_pass
from localgrad.pipeline.stream_parts import Learnt, StreamState, Went, Work

if TYPE_CHECKING:
    from localgrad.pipeline.stream import Stream


def learn_late_of_shards(
    stream: "Stream",
    state: StreamState,
    nothing: Learnt,
    rest: list[jax.Array],
    moved: list[jax.Array],
    entry: list[jax.Array],
) -> tuple[Learnt, tuple[list[jax.Array], jax.Array]]:
    """Learns from the signal that has arrived, if one has: `(Learnt, what is handed down)`."""
    phases, due = stream.phases, state.signal_id >= 0
    made = Slots([{i: _bare_back(phases.made[i]) for i in own} for own in phases.late])
    states_of = lambda stage, slots: phases.states.unpack(stage, stream.whole(slots, rest, moved))

    def answer(stage: int):
        def run(_: Any):
            signal = stream.signals.unpack(stage, state.signal)
            found, down = phases.answer_late(stage, states_of(stage, nothing.slots), entry, signal)
            bare = {i: _bare_back(back) for i, back in found.items()}
            return made.pack(stage, bare), stream.signals.of_late(stage, down, state.signal_id)

        return run

    found, handed = stream.layout.choose(due, answer, (made.fill(), stream.signals.nothing()))
    mean = mean_over_data(found)

    def update(stage: int):
        def run(carry: Learnt) -> Learnt:
            back = made.unpack(stage, mean)
            states, ok, reports = phases.update_late(stage, states_of(stage, carry.slots), entry, back, carry.ok)
            return stream.learnt(stage, states, reports, ok)

        return run

    return stream.layout.choose(due, update, nothing), handed


class Made(NamedTuple):
    """What a pass makes, in slots: what is averaged, late and prompt blocks' stashes, what is handed down, and sent."""

    effects: list[jax.Array]
    late: list[jax.Array]
    prompt: list[jax.Array]
    downs: list[jax.Array]
    sent: tuple[list[jax.Array], jax.Array]


class Shards:
    """The second half of a tick.

    Args:
      stream: the pipeline.
      work: what this device works on.
    """

    def __init__(self, stream: "Stream", work: Work):
        self._stream, self._work, self._phases, self._blocks = stream, work, stream.phases, stream.layout.blocks
        model = stream.layout.model
        self._asked = [asked_in_pass(model, i) for i in range(len(model.blocks))]
        passed = self._phases.passed
        self._effects = Slots([[_bare(passed[i]) for i in span] for span in self._blocks])
        self._downs = Slots([[passed[i].down if self._asked[i] else None for i in span] for span in self._blocks])
        self._back = Slots([{i: _bare_back(self._phases.made[i]) for i in own} for own in self._phases.prompt])

    def run(self, now: Learnt, went: Went) -> tuple[Learnt, Went]:
        """Takes a batch forward, if there is one, and learns what can be learnt of it at once."""
        layout, work = self._stream.layout, self._work
        silent = layout.silence(self._stream.bubble)
        late = self._phases.late_stashes.fill(self._stream.bubble)
        idle = Made(self._effects.fill(), late, self._phases.prompt_entries.fill(), self._downs.fill(), silent)
        made = layout.choose(work.valid, lambda stage: lambda _: self._pass(stage, now, went), idle)
        made = made._replace(effects=mean_over_data(made.effects))
        carry = now, went.moved, went.ring, layout.idle()
        learn = lambda stage: lambda carry: self._learn_at_once(stage, made, *carry[:3])
        now, moved, kept, first = layout.choose(work.valid, learn, carry)
        if any(self._phases.prompt):
            now, handed = self._learn_promptly(made, now, moved, first, went)
        else:
            hand = lambda stage: lambda before: self._hand(stage, made, {}, before)
            handed = layout.choose(work.valid, hand, went.handed)
        return now, Went(moved, made.sent, kept, handed)

    def _states(self, stage: int, slots: list[jax.Array], moved: list[jax.Array]) -> list[BlockState]:
        return list(self._phases.states.unpack(stage, [*self._work.own, *slots, *moved]))

    def _pass(self, stage: int, now: Learnt, went: Went) -> Made:
        """The pass alone: nothing learns, and batch statistics do not move yet."""
        states, message = self._states(stage, now.slots, went.moved), self._work.message_of(stage)
        found: list[Forward] = []
        for state, key, i in zip(states, self._work.keys(stage), self._blocks[stage], strict=True):
            found.append(step.work(self._phases.blocks[i], state, message, key))
            message = found[-1].message
        each = dict(zip(self._blocks[stage], found, strict=True))
        stashes = {i: one.stash for i, one in each.items()}
        return Made(
            self._effects.pack(stage, list(map(_bare, found))),
            self._phases.keep_late(stage, stashes),
            self._phases.keep_prompt(stage, stashes),
            self._downs.pack(stage, [one.down if self._asked[i] else None for i, one in each.items()]),
            (self._stream.layout.messages.pack(stage + 1, message), self._work.batch_id),
        )

    def _learn_at_once(
        self, stage: int, made: Made, now: Learnt, moved: list[jax.Array], kept: list[jax.Array]
    ) -> tuple[Learnt, list[jax.Array], list[jax.Array], jax.Array]:
        """What waits for nothing: `(Learnt, batch statistics, ring, stopped)`."""
        states, ok, reports = self._states(stage, now.slots, moved), now.ok, {}
        effects = self._effects.unpack(stage, made.effects)
        for j, (i, (model_state, grads, metrics)) in enumerate(zip(self._blocks[stage], effects, strict=True)):
            block = self._phases.blocks[i]
            still = shards.kept(self._stream.layout.constant[i], model_state, states[j])
            states[j], sound, stopped = step.settle(block, states[j], still, grads, metrics, ok[j])
            ok = ok.at[j].set(sound)
            reports[i] = metrics, stopped
        kept = ring.write(kept, self._work.place, self._phases.with_reports(stage, made.late, reports))
        learnt = self._stream.learnt(stage, states, reports, ok, late=False, prompt=False)
        return learnt, self._phases.states.pack_moved(stage, states), kept, learnt.stopped

    def _learn_promptly(
        self, made: Made, now: Learnt, moved: list[jax.Array], first: jax.Array, went: Went
    ) -> tuple[Learnt, tuple[list[jax.Array], jax.Array]]:
        """What waits for a signal that was made on the same stage: `(Learnt, what is handed down)`."""
        layout, valid = self._stream.layout, self._work.valid

        def answer(stage: int):
            def run(_: Any):
                states = self._states(stage, now.slots, moved)
                stashes = self._phases.whole_prompt(stage, made.prompt, states)
                found = self._phases.answer_prompt(stage, states, stashes, self._given(stage, made))
                bare = {i: _bare_back(back) for i, back in found.items()}
                return self._back.pack(stage, bare), self._hand(stage, made, found, went.handed)

            return run

        back, handed = layout.choose(valid, answer, (self._back.fill(), went.handed))
        mean = mean_over_data(back)

        def update(stage: int):
            def run(now: Learnt) -> Learnt:
                told = zip(self._blocks[stage], self._effects.unpack(stage, made.effects), strict=True)
                reports = {i: (metrics, first[j]) for j, (i, (_, _, metrics)) in enumerate(told)}
                states, found = self._states(stage, now.slots, moved), self._back.unpack(stage, mean)
                states, ok, merged = self._phases.update(stage, states, found, reports, now.ok)
                return self._stream.learnt(stage, states, merged, ok, late=False)

            return run

        return layout.choose(valid, update, now), handed

    def _given(self, stage: int, made: Made) -> dict[int, Any]:
        return dict(zip(self._blocks[stage], self._downs.unpack(stage, made.downs), strict=True))

    def _hand(self, stage: int, made: Made, found: dict[int, Backward], before: Any) -> Any:
        downs = self._given(stage, made)
        return self._stream.signals.of_pass(stage, downs, found, self._work.batch_id, before)


def _bare(passed: Forward) -> tuple[Any, dict, dict]:
    """What is averaged of a pass."""
    return passed.model_state, dict(passed.grads), dict(passed.metrics)


def _bare_back(made: Backward) -> Backward:
    """What is averaged of a way back."""
    return made._replace(down=None)
