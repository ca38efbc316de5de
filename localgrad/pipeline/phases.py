"""What a stage does whose blocks wait for signals: the pass, the way back, and what is kept in between, in slots.

A stage's blocks learn from their signals at one of two times: when the signal arrives from another stage, ticks after
the pass (`late`), or in the tick of the pass itself, because the signal is made on the same stage (`prompt`).  Of the
late ones the stage keeps an entry of each batch until then.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from localgrad.base import LEARNT, Backward, BlockState, Forward, Key, Message, PyTree, Spec
from localgrad.pipeline import step
from localgrad.pipeline.block_slots import BlockSlots, Values
from localgrad.pipeline.mesh import Layout
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.partition import state_bytes
from localgrad.pipeline.specs import asked_in_pass, asked_on_way_back, passes, signals
from localgrad.pipeline.stash import stashes

Report = tuple[Mapping[str, jax.Array], jax.Array]  # a block's metrics, and what stopped it


class Entry(NamedTuple):
    """What a stage keeps of a batch for its late blocks.

    Attributes:
      stash: leaves of their stashes.
      reports: of those that learn at once or measure something in their pass, what they reported of it.
    """

    stash: list[jax.Array]
    reports: Mapping[int, Report | Spec]


class Phases:
    """The moments of a tick, on one stage.

    Attributes:
      states: the stages' block states.
      entries: slots of what each stage keeps of a batch.
      late_stashes, prompt_entries: slots of the stashes alone, of late and of prompt blocks.
      passed, given: shapes of each block's pass, and of the signal that it is given.
      made: shapes of what each waiting block makes of its signal.
      metrics: shapes of what each block reports.
      values: slots of that.
      stash_bytes: bytes of each stage's entry.

    Args:
      layout: how the model lies on the mesh.
      late, prompt: of each stage, the blocks that learn when a signal arrives, and in the tick of their pass.
      borrow: see `stashes`.
    """

    def __init__(
        self, layout: Layout, late: Sequence[Sequence[int]], prompt: Sequence[Sequence[int]] = (), *, borrow: bool
    ):
        model, specs = layout.model, (layout.state_specs, layout.message_specs)
        self.layout, self.blocks = layout, model.blocks
        self.late, self.prompt = late, prompt or [[] for _ in late]
        self.passed: list[Forward] = passes(model, *specs)
        self.states = BlockSlots(layout, [[i for i in own if not self.passed[i].grads] for own in late])
        self.given: list[Spec] = signals(model, *specs)
        self.made: dict[int, Backward] = {
            i: jax.eval_shape(self.blocks[i].backward, specs[0][i], self.passed[i].stash, self.given[i])  # type: ignore[arg-type]
            for span in (*self.late, *self.prompt)
            for i in span
        }
        self._kept = stashes(model, *specs, late, borrow=borrow)
        self._handy = stashes(model, *specs, self.prompt, borrow=True)
        self.entries = Slots([self._entry_spec(s) for s in range(len(late))])
        self.late_stashes = Slots([stash.spec for stash in self._kept])
        self.prompt_entries = Slots([stash.spec for stash in self._handy])
        self.metrics = [self._merged(i) for i in range(len(self.blocks))]
        rest = [[i for i in span if i not in own] for span, own in zip(layout.blocks, late, strict=True)]
        self.values = Values(self.metrics, late, rest)
        self.stash_bytes = [state_bytes(self._entry_spec(s)) for s in range(len(late))]

    # --- the pass ---------------------------------------------------------------------------------------------------

    def forward(
        self,
        stage: int,
        states: Sequence[BlockState],
        message: Message,
        keys: Sequence[Key],
        ok: jax.Array,
        sound: jax.Array | None = None,
    ) -> list[step.Passed]:
        """The pass of a stage's blocks, and what they learn at once.

        Args:
          stage: its number.
          states, keys, ok: one a block.
          message: of its first block.
          sound: whether all below have learnt from the batch, where a block that has stopped stops those above.
        """
        found: list[step.Passed] = []
        for j, i in enumerate(self.layout.blocks[stage]):
            may, asked = ok[j] if sound is None else ok[j] & sound, asked_in_pass(self.layout.model, i)
            found.append(step.forward(self.blocks[i], states[j], message, keys[j], may, asked))
            message, sound = found[-1].message, None if sound is None else found[-1].ok
        return found

    def keep(self, stage: int, stashes: Mapping[int, PyTree], reports: Mapping[int, Report]) -> list[jax.Array]:
        """The entry of a pass; stashes and reports are those of the stage's late blocks."""
        return self._entry(stage, self.leaves(stage, stashes), reports)

    def leaves(self, stage: int, stashes: Mapping[int, PyTree]) -> list[jax.Array]:
        """What is kept of the late blocks' stashes; see `answer`."""
        return self._kept[stage].keep([stashes[i] for i in self.late[stage]])

    def keep_late(self, stage: int, stashes: Mapping[int, PyTree]) -> list[jax.Array]:
        """Slots of the late blocks' stashes, until what they learn at once is known; see `with_reports`."""
        return self.late_stashes.pack(stage, self.leaves(stage, stashes))

    def with_reports(self, stage: int, slots: Sequence[jax.Array], reports: Mapping[int, Report]) -> list[jax.Array]:
        """The entry of a pass from what `keep_late` gave."""
        return self._entry(stage, self.late_stashes.unpack(stage, slots), reports)

    def _entry(self, stage: int, kept: list[jax.Array], reports: Mapping[int, Report]) -> list[jax.Array]:
        own = {i: (dict(reports[i][0]), reports[i][1]) for i in self.late[stage] if self._reports(i)}
        return self.entries.pack(stage, Entry(kept, own))

    # --- the way back -----------------------------------------------------------------------------------------------

    def backward(self, i: int, state: BlockState, stash: PyTree, signal: PyTree) -> Backward:
        """What block i makes of its signal."""
        return step.backward(self.blocks[i], state, stash, signal, asked_on_way_back(self.layout.model, i))

    def learn_late(
        self, stage: int, states: Sequence[BlockState], entry: Sequence[jax.Array], signal: PyTree, ok: jax.Array
    ) -> tuple[list[BlockState], jax.Array, dict[int, Report], PyTree]:
        """The late blocks of a stage learn: `(states, ok, reports, what the lowest hands down)`."""
        states = list(states)
        made, down = self.answer_late(stage, states, entry, signal)
        states, ok, reports = self.update_late(stage, states, entry, made, ok)
        return states, ok, reports, down

    def answer_late(
        self, stage: int, states: Sequence[BlockState], entry: Sequence[jax.Array], signal: PyTree
    ) -> tuple[dict[int, Backward], PyTree]:
        """`answer` of an entry."""
        return self.answer(stage, states, self.entries.unpack(stage, entry).stash, signal)

    def whole_entry(
        self, stage: int, entry: Sequence[jax.Array], states: Sequence[BlockState]
    ) -> dict[int, tuple[PyTree, Report | None]]:
        """Of each late block, its stash and its report, if it has one."""
        kept, first = self.entries.unpack(stage, entry), self.layout.blocks[stage][0]
        whole = lambda i: self._kept[stage].whole(i, kept.stash, states[i - first])
        return {i: (whole(i), kept.reports.get(i)) for i in self.late[stage]}

    def answer(
        self, stage: int, states: Sequence[BlockState], kept: Sequence[jax.Array], signal: PyTree
    ) -> tuple[dict[int, Backward], PyTree]:
        """What the late blocks of a stage make of a signal, from the top down; and what the lowest hands down."""
        first, found = self.layout.blocks[stage][0], {}
        for i in reversed(self.late[stage]):
            stash = self._kept[stage].whole(i, kept, states[i - first])
            found[i] = self.backward(i, states[i - first], stash, signal)
            signal = found[i].down if self.blocks[i].signal == "above" else signal
        return found, signal

    def update_late(
        self,
        stage: int,
        states: Sequence[BlockState],
        entry: Sequence[jax.Array],
        made: Mapping[int, Backward],
        ok: jax.Array,
    ) -> tuple[list[BlockState], jax.Array, dict[int, Report]]:
        """The update that follows: `(states, ok, reports)`."""
        return self.update(stage, states, made, self.entries.unpack(stage, entry).reports, ok)

    def update(
        self,
        stage: int,
        states: Sequence[BlockState],
        made: Mapping[int, Backward],
        reports: Mapping[int, Report],
        ok: jax.Array,
    ) -> tuple[list[BlockState], jax.Array, dict[int, Report]]:
        """The update of blocks that have met their signals: `(states, ok, reports)`; `reports` are of their pass."""
        first, states, found = self.layout.blocks[stage][0], list(states), dict(reports)
        nothing: Report = ({}, jnp.int32(LEARNT))
        for i, back in made.items():
            j = i - first
            states[j], sound, stopped = step.take(self.blocks[i], states[j], back.grads, back.metrics, ok[j])
            ok = ok.at[j].set(sound)
            found[i] = step.merged(found.get(i, nothing), (back.metrics, stopped))
        return states, ok, found

    def answer_prompt(
        self, stage: int, states: Sequence[BlockState], stashes: Mapping[int, PyTree], downs: Mapping[int, PyTree]
    ) -> dict[int, Backward]:
        """What the prompt blocks of a stage make of the signals that were made on it.

        Args:
          stage: its number.
          states: of its blocks, after their pass.
          stashes: of its prompt blocks.
          downs: what each of its blocks handed down in its pass.
        """
        first, found, above = self.layout.blocks[stage][0], {}, None
        for i in reversed(self.prompt[stage]):
            chained = self.blocks[i].signal == "above"
            found[i] = self.backward(i, states[i - first], stashes[i], above if chained else downs[i + 1])
            above = found[i].down
        return found

    def keep_prompt(self, stage: int, stashes: Mapping[int, PyTree]) -> list[jax.Array]:
        """Slots of the prompt blocks' stashes, for a way back that is not in the same branch of the program."""
        return self.prompt_entries.pack(stage, self._handy[stage].keep([stashes[i] for i in self.prompt[stage]]))

    def whole_prompt(self, stage: int, slots: Sequence[jax.Array], states: Sequence[BlockState]) -> dict[int, PyTree]:
        """The prompt blocks' stashes again."""
        kept, first = self.prompt_entries.unpack(stage, slots), self.layout.blocks[stage][0]
        return {i: self._handy[stage].whole(i, kept, states[i - first]) for i in self.prompt[stage]}

    # --- shapes -----------------------------------------------------------------------------------------------------

    def _reports(self, i: int) -> bool:
        return bool(self.passed[i].grads or self.passed[i].metrics)

    def _merged(self, i: int) -> dict[str, Spec]:
        return {**self.passed[i].metrics, **(self.made[i].metrics if i in self.made else {})}

    def _entry_spec(self, stage: int) -> Entry:
        stopped = jax.ShapeDtypeStruct((), jnp.int32)
        own = {i: (dict(self.passed[i].metrics), stopped) for i in self.late[stage] if self._reports(i)}
        return Entry(self._kept[stage].spec, own)
