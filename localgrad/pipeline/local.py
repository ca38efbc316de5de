"""The `local` schedule: blocks with losses of their own, every stage on a batch of its own at the same time.

On tick t stage s trains its blocks on batch t - s; then one `ppermute` hands every message to the next stage.  Messages
in flight are part of the state, so nothing drains between calls: the bubble is S - 1 ticks once a run.  Stage s sees
batch k through the same parameters of stage s - 1 as in sequential training, hence the same numbers.
"""

import dataclasses
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Key, Message, Plan
from localgrad.pipeline import feeding, schedules, step
from localgrad.pipeline.mesh import BOTH, SAME, STAGE, Examples, Layout, Report, StateSlots, mean_over_data
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.shards import kept
from localgrad.pipeline.specs import passes


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


class Trained(NamedTuple):
    """What a tick makes of a stage.

    Attributes:
      slots: the block states.
      sent: slots of the message, and its batch.
      values: slots of metrics.
      ok: whether every number was finite.
      stopped: see `Metrics.stopped`, by block.
    """

    slots: list[jax.Array]
    sent: tuple[list[jax.Array], jax.Array]
    values: list[jax.Array]
    ok: jax.Array
    stopped: jax.Array


class Tick(NamedTuple):
    """What a stage is given on a tick: its state, whether it may learn, and its batch, a bubble unless `valid`."""

    state: LocalState
    ok: jax.Array
    batch_id: jax.Array
    valid: jax.Array
    examples: Examples | None


@dataclasses.dataclass(frozen=True)
class Local:
    """The schedule on a mesh.

    Attributes:
      layout: of a model whose blocks wait for nothing.
      bubble: what fills the messages of stages that have nothing to do.
    """

    layout: Layout
    bubble: float = 0.0

    specs = LocalState(STAGE, BOTH, BOTH, BOTH, BOTH, SAME, SAME)  # type: ignore[arg-type]
    turns = 1

    @property
    def plan(self) -> Plan:
        return self.layout.plan._replace(schedule=schedules.local(self.layout.stages))

    @property
    def drain(self) -> int:
        """Ticks that empty the pipeline."""
        return self.plan.schedule.drain

    @property
    def states(self) -> StateSlots:
        return self.layout.states

    @cached_property
    def values(self) -> Slots:
        return self.layout.stage_slots([dict(each.metrics) for each in self._passes])

    @cached_property
    def _effects(self) -> Slots:
        """Slots of what a pass makes for the update: batch statistics and gradients."""
        return self.layout.stage_slots([(each.model_state, dict(each.grads)) for each in self._passes])

    @cached_property
    def _passes(self) -> list:
        return passes(self.layout.model, self.layout.state_specs, self.layout.message_specs)

    def initial(self, key: Key, first: np.int32) -> tuple:
        """The parts of the state but the slots, as one device sees them."""
        return self.layout.messages.fill(self.bubble), np.int32(-1), np.True_, np.True_, first, key

    def tick(self, state: LocalState, fresh_id: jax.Array, examples: Examples | None) -> tuple[LocalState, Report]:
        """All stages on one tick; `examples` makes those of batch `fresh_id`, None being a bubble."""
        stage = jax.lax.axis_index("stage")
        batch_id = jnp.where(stage == 0, fresh_id, state.batch_id)
        valid = batch_id >= 0
        ok = state.ok & (state.sound | (stage == 0) | ~valid)
        given = Tick(state, ok, batch_id, valid, examples)
        if self.layout.plan.uniform:
            found = self._uniform(given)
        else:
            found = self._by_shards(given) if self.layout.split else self._by_choice(given)
        up = [(s, s + 1) for s in range(self.layout.stages - 1)]
        (inbox, arrived), sound = jax.lax.ppermute((found.sent, found.ok), "stage", up)
        arrived = jnp.where(stage == 0, -1, arrived)  # nothing arrives there, and ppermute says 0, which is a batch
        new = LocalState(found.slots, inbox, arrived, sound, found.ok, state.next_id, state.key)
        return new, Report(found.values, found.stopped, batch_id)

    # --- all stages on one tick -------------------------------------------------------------------------------------

    def _by_choice(self, given: Tick) -> Trained:
        def whole(stage: int):
            def run(carry: Trained) -> Trained:
                message = self._receive(stage, given)
                return self._train(stage, self.layout.blocks[stage][0], carry.slots, message, given, carry.ok)

            return run

        return self.layout.choose(given.valid, whole, self._idle(given))

    def _by_shards(self, given: Tick) -> Trained:
        def first_half(stage: int):
            def run(_):
                message = self._receive(stage, given)
                return self._work(stage, self.layout.blocks[stage][0], message, given)

            return run

        idle = self._idle(given)
        found = self.layout.choose(given.valid, first_half, (self._effects.fill(), idle.sent, idle.values))
        effects, values = mean_over_data((found[0], found[2]))
        second_half = lambda stage: lambda carry: self._learn(stage, carry[0], effects, values, carry[1])
        slots, ok, stopped = self.layout.choose(given.valid, second_half, (idle.slots, idle.ok, idle.stopped))
        return Trained(slots, found[1], values, ok, stopped)

    def _uniform(self, given: Tick) -> Trained:
        """All stages are one program, and none needs to be chosen; a bubble learns nothing, as one that has stopped."""
        stage, state = jax.lax.axis_index("stage"), given.state
        message = self.layout.messages.unpack(0, state.inbox)
        if given.examples:
            fresh = self._receive(0, given)
            message = jax.tree.map(lambda new, old: jnp.where(stage == 0, new, old), fresh, message)
        first, may = stage * len(self.layout.blocks[0]), given.ok & given.valid
        if self.layout.split:
            effects, sent, values = self._work(0, first, message, given)
            effects, values = mean_over_data((effects, values))
            slots, ok, stopped = self._learn(0, state.slots, effects, values, may)
            found = Trained(slots, sent, values, ok, stopped)
        else:
            found = self._train(0, first, state.slots, message, given, may)
        return found._replace(ok=jnp.where(given.valid, found.ok, given.ok))

    # --- one stage on one batch; `first` is the index of its first block --------------------------------------------

    def _train(
        self, stage: int, first: jax.Array | int, slots: list[jax.Array], message: Message, given: Tick, ok: jax.Array
    ) -> Trained:
        """The whole step."""
        passed: list[step.Passed] = []
        for block, state, key in self._own(stage, first, slots, given):
            passed.append(step.forward(block, state, message, key, ok))
            message, ok = passed[-1].message, passed[-1].ok
        slots = self.states.pack(stage, tuple(each.state for each in passed))
        sent = self.layout.messages.pack(stage + 1, message), given.batch_id
        values = self.values.pack(stage, tuple(dict(each.metrics) for each in passed))
        return Trained(slots, sent, values, ok, self.layout.by_block([each.stopped for each in passed]))

    def _work(self, stage: int, first: jax.Array | int, message: Message, given: Tick):
        """The first half, before gradients are averaged: `(effects, sent, values)`."""
        passed = []
        for block, state, key in self._own(stage, first, given.state.slots, given):
            passed.append(step.work(block, state, message, key))
            message = passed[-1].message
        effects = self._effects.pack(stage, tuple((each.model_state, dict(each.grads)) for each in passed))
        values = self.values.pack(stage, tuple(dict(each.metrics) for each in passed))
        return effects, (self.layout.messages.pack(stage + 1, message), given.batch_id), values

    def _learn(self, stage: int, slots: list[jax.Array], effects: list[jax.Array], values: list[jax.Array], ok):
        """The second half, after it: `(slots, ok, stopped)`."""
        done, why = [], []
        for i, state, (model_state, grads), metrics in zip(
            self.layout.blocks[stage],
            self.states.unpack(stage, slots),
            self._effects.unpack(stage, effects),
            self.values.unpack(stage, values),
            strict=True,
        ):
            moved = kept(self.layout.constant[i], model_state, state)
            state, ok, stopped = step.settle(self.layout.model.blocks[i], state, moved, grads, metrics, ok)
            done.append(state)
            why.append(stopped)
        return self.states.pack(stage, tuple(done)), ok, self.layout.by_block(why)

    def _own(self, stage: int, first: jax.Array | int, slots: list[jax.Array], given: Tick):
        """`(block, state, key)` of each of a stage's blocks."""
        blocks = [self.layout.model.blocks[i] for i in self.layout.blocks[stage]]
        keys = self.layout.keys(stage, first, given.state.key, given.batch_id)
        return zip(blocks, self.states.unpack(stage, slots), keys, strict=True)

    def _receive(self, stage: int, given: Tick) -> Message:
        if given.examples and stage == 0:
            return feeding.enter(self.layout.model, given.examples())
        return self.layout.messages.unpack(stage, given.state.inbox)

    def _idle(self, given: Tick) -> Trained:
        """A stage that has nothing to do."""
        silence = self.layout.silence(self.bubble)
        return Trained(given.state.slots, silence, self.values.fill(), given.ok, self.layout.idle())
