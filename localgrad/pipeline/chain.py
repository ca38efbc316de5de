"""The `chain` schedule: backpropagation over stages, with micro-batches that follow each other (GPipe).

A batch is cut into M parts.  Forward, stage s works on part t - s on tick t and keeps what the way back needs; then the
gradients come down in the same manner.  Every block learns once a batch, from the mean over the parts: the gradient of
the whole batch where its loss is a mean over examples.  Batch norm and losses that couple examples see one part at a
time, running statistics move once a part, and dropout draws for each part.  The next batch enters when all stages
have learnt from this one, so each batch pays a bubble of S - 1 ticks on the way up and S - 1 on the way down.

References:
  Huang et al., GPipe, https://arxiv.org/abs/1811.06965
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import BlockState, Key, Message, Plan
from localgrad.keys import fold_in
from localgrad.pipeline import feeding, ring, schedules
from localgrad.pipeline.block_slots import BlockSlots
from localgrad.pipeline.mesh import BOTH, SAME, STAGE, Examples, Layout, Report, mean_over_data
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.partition import state_bytes
from localgrad.pipeline.phases import Phases
from localgrad.pipeline.stage import answer_part, effects_of, learn_at_once, learn_then, pass_part


class ChainState(NamedTuple):
    """The state of a pipeline of S stages over D data shards, of at most N blocks each; nothing is in flight.

    Attributes:
      slots: the stages' block states, `(S, size)` each, one row on each device.
      ok: of each block, whether every number was finite so far, bool `(D, S, N)`; it learns no more once one is not.
      next_id: the number of the next batch, for batches that bring none, the same everywhere.
      key: the key of dropout and the like, the same everywhere.
    """

    slots: list[jax.Array]
    ok: jax.Array
    next_id: jax.Array
    key: Key


class Up(NamedTuple):
    """What a stage carries from part to part on the way up.

    Attributes:
      moved: slots of batch statistics.
      inbox: slots of the message.
      kept: rings of what the way back needs.
      effects: slots of the gradients of what learns at once, and of what the pass measures, summed over parts.
    """

    moved: list[jax.Array]
    inbox: list[jax.Array]
    kept: list[jax.Array]
    effects: list[jax.Array]


class Down(NamedTuple):
    """What a stage carries on the way down: slots of the signal, and of gradients and metrics summed over parts."""

    inbox: list[jax.Array]
    effects: list[jax.Array]


@dataclasses.dataclass(frozen=True)
class Chain:
    """The schedule on a mesh; a tick of the engine is a whole batch.

    Attributes:
      layout: of a model whose blocks wait for the one above (`above`), with the message specs of one part of a shard.
      parts: micro-batches M of a shard's batch.
      bubble: what fills messages where nothing is.
    """

    layout: Layout
    parts: int
    bubble: float = 0.0

    specs = ChainState(STAGE, BOTH, SAME, SAME)  # type: ignore[arg-type]
    turns, drain = 1, 0

    @cached_property
    def plan(self) -> Plan:
        """The layout's, with what this schedule keeps."""
        return self.layout.plan._replace(
            schedule=schedules.chain(self.layout.stages, self.parts),
            uniform=False,
            slot_bytes=state_bytes(self.states.specs),
            stash_bytes=tuple(self.parts * size for size in self._phases.stash_bytes),
            stash_slot_bytes=self.parts * state_bytes(self._phases.late_stashes.specs),
        )

    @property
    def states(self) -> BlockSlots:
        return self._phases.states

    @cached_property
    def values(self) -> Slots:
        return self.layout.stage_slots(self._phases.metrics)

    @cached_property
    def _phases(self) -> Phases:
        blocks = self.layout.model.blocks
        late = [[i for i in span if blocks[i].signal != "none"] for span in self.layout.blocks]
        return Phases(self.layout, late, borrow=True)

    @cached_property
    def _signals(self) -> Slots:
        """Slots of what each stage is given from above."""
        return Slots([self._phases.given[span[-1]] for span in self.layout.blocks])

    @cached_property
    def _first(self) -> Slots:
        """Slots of the gradients of what learns at once, and of what is measured then, of each stage."""
        return self.layout.stage_slots([effects_of(each) for each in self._phases.passed])

    @cached_property
    def _then(self) -> Slots:
        """Slots of the gradients of what learns on the way back, and of what is measured then."""
        made = self._phases.made
        return Slots([{i: (dict(made[i].grads), dict(made[i].metrics)) for i in late} for late in self._phases.late])

    def initial(self, key: Key, first: np.int32) -> tuple:
        """All of the state but its slots, as one device sees it; `first` numbers the next batch."""
        return np.ones((max(map(len, self.layout.blocks)),), np.bool_), first, key

    def tick(self, state: ChainState, batch_id: jax.Array, examples: Examples | None) -> tuple[ChainState, Report]:
        """A whole batch: up, what learns at once, down, and what learns then."""
        real = batch_id >= 0
        learnt, before = self.states.halves(state.slots)
        up = self._go_up(state, learnt, before, batch_id, real, examples)
        effects, moved = jax.tree.map(lambda x: x / self.parts, up.effects), up.moved
        if self.layout.split:
            effects, moved = mean_over_data((effects, moved))
        learnt, ok, stopped = self._learn_at_once(real, learnt, moved, effects, state.ok)
        then = jax.tree.map(lambda x: x / self.parts, self._go_down(learnt, moved, up.kept, real).effects)
        if self.layout.split:
            then = mean_over_data(then)
        learnt, values, ok, stopped = self._learn(real, learnt, moved, effects, then, ok, stopped)
        return state._replace(slots=[*learnt, *moved], ok=ok), Report(values, stopped, batch_id)

    def _go_up(self, state: ChainState, learnt, before, batch_id: jax.Array, real: jax.Array, examples) -> Up:
        """All parts through the forward passes of all stages."""
        stage, layout, phases = jax.lax.axis_index("stage"), self.layout, self._phases

        def one(given: Up, tick: jax.Array):
            part, place, valid = self._part(tick, stage, real)

            def run(stage: int):
                def branch(carry: Up) -> Up:
                    states: Sequence[BlockState] = self.states.unpack(stage, [*learnt, *carry.moved])
                    message = self._receive(stage, given.inbox, part, examples)
                    keys = layout.keys(stage, layout.blocks[stage][0], state.key, batch_id)
                    if self.parts > 1:
                        keys = [fold_in(key, part) for key in keys]
                    states, message, stash, effects = pass_part(phases, stage, states, message, keys, state.ok)
                    return Up(
                        self.states.pack_moved(stage, states),
                        layout.messages.pack(stage + 1, message),
                        ring.write(carry.kept, place, phases.late_stashes.pack(stage, stash)),
                        _add(carry.effects, self._first.pack(stage, effects)),
                    )

                return branch

            found = layout.choose(valid, run, given._replace(inbox=layout.messages.fill(self.bubble)))
            inbox = jax.lax.ppermute(found.inbox, "stage", [(s, s + 1) for s in range(layout.stages - 1)])
            return found._replace(inbox=inbox), None

        kept = ring.full(phases.late_stashes.fill(self.bubble), self.parts)
        start = Up(before, layout.messages.fill(self.bubble), kept, self._first.fill())
        return jax.lax.scan(one, start, self._ticks())[0]

    def _go_down(self, learnt: list[jax.Array], moved: list[jax.Array], kept: list[jax.Array], real: jax.Array) -> Down:
        """The gradients of all parts down all stages."""
        stage, layout, phases = jax.lax.axis_index("stage"), self.layout, self._phases

        def one(given: Down, tick: jax.Array):
            _, place, valid = self._part(tick, layout.stages - 1 - stage, real)

            def run(stage: int):
                def branch(carry: Down) -> Down:
                    states = self.states.unpack(stage, [*learnt, *moved])
                    signal = self._signals.unpack(stage, given.inbox)
                    stash = phases.late_stashes.unpack(stage, ring.read(kept, place))
                    own, down = answer_part(phases, stage, states, stash, signal)
                    below = self._signals.pack(stage - 1, down) if stage else self._signals.fill(self.bubble)
                    return Down(below, _add(carry.effects, self._then.pack(stage, own)))

                return branch

            found = layout.choose(valid, run, given._replace(inbox=self._signals.fill(self.bubble)))
            inbox = jax.lax.ppermute(found.inbox, "stage", [(s, s - 1) for s in range(1, layout.stages)])
            return found._replace(inbox=inbox), None

        start = Down(self._signals.fill(self.bubble), self._then.fill())
        return jax.lax.scan(one, start, self._ticks())[0]

    def _learn_at_once(self, real: jax.Array, learnt, moved, effects, ok: jax.Array):
        """The update of the groups that wait for nothing: `(learnt, ok, stopped)`."""
        layout = self.layout
        if not any(each.grads for each in self._phases.passed):
            return learnt, ok, layout.idle()

        def own(stage: int):
            def run(carry):
                learnt, ok, _ = carry
                states: Sequence[BlockState] = self.states.unpack(stage, [*learnt, *moved])
                told = self._first.unpack(stage, effects)
                states, ok, reports = learn_at_once(self._phases, stage, states, told, ok)
                return self._pack_learnt(stage, states), ok, layout.by_block([why for _, why in reports.values()])

            return run

        return layout.choose(real, own, (learnt, ok, layout.idle()))

    def _learn(self, real: jax.Array, learnt, moved, effects, then, ok: jax.Array, stopped: jax.Array):
        """The update of the groups that have waited for the way back: `(learnt, values, ok, stopped)`."""
        layout = self.layout

        def own(stage: int):
            def run(carry):
                learnt, _, ok, why = carry
                states: Sequence[BlockState] = self.states.unpack(stage, [*learnt, *moved])
                span, told = layout.blocks[stage], self._first.unpack(stage, effects)
                reports = {i: (metrics, why[j]) for j, (i, (_, metrics)) in enumerate(zip(span, told, strict=True))}
                made = self._then.unpack(stage, then)
                states, ok, reports = learn_then(self._phases, stage, states, made, reports, ok)
                values = self.values.pack(stage, tuple(reports[i][0] for i in span))
                return (
                    self._pack_learnt(stage, states),
                    values,
                    ok,
                    layout.by_block([reports[i][1] for i in span]),
                )

            return run

        return layout.choose(real, own, (learnt, self.values.fill(), ok, stopped))

    def _pack_learnt(self, stage: int, states: Sequence[BlockState]) -> list[jax.Array]:
        return [*self.states.pack_late(stage, states), *self.states.pack_rest(stage, states)]

    def _receive(self, stage: int, inbox: list[jax.Array], part: jax.Array, examples: Examples | None) -> Message:
        """The message of a part to a stage's first block."""
        if stage == 0 and examples:
            return feeding.enter(self.layout.model, examples(part, self.parts))
        return self.layout.messages.unpack(stage, inbox)

    def _part(self, tick: jax.Array, wait: jax.Array, real: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The part that a stage works on, its place, and whether there is one."""
        part = tick - wait
        return part, jnp.clip(part, 0, self.parts - 1), (part >= 0) & (part < self.parts) & real

    def _ticks(self) -> jax.Array:
        return jnp.arange(self.parts + self.layout.stages - 1, dtype=jnp.int32)


def _add(total: list[jax.Array], one: list[jax.Array]) -> list[jax.Array]:
    return [x + y for x, y in zip(total, one, strict=True)]
