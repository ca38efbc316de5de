"""What the stages of a streamed pipeline send each other besides messages: the signals that blocks wait for."""

from collections.abc import Mapping
from functools import cached_property

import jax
import jax.numpy as jnp

from localgrad.base import Backward, PyTree
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.phases import Phases
from localgrad.pipeline.stage import handed_down

Handed = tuple[list[jax.Array], jax.Array]  # slots of a signal, and its batch, -1 being none


class Signals:
    """The signals of one kind.

    Args:
      kind: what blocks wait for: `next`, `top` or `above`.
      phases: of the stages.
      bubble: what fills signals where nothing is.
    """

    def __init__(self, kind: str, phases: Phases, bubble: float):
        self.kind, self._phases, self._bubble = kind, phases, bubble

    @cached_property
    def slots(self) -> Slots:
        """Slots of the signal that each stage is sent; of an error the same for all."""
        if self.kind == "top":
            return Slots([self._phases.passed[-1].down])
        given = self._phases.given
        return Slots([given[own[-1]] if own else None for own in self._phases.late])

    def unpack(self, stage: int, slots: list[jax.Array]) -> PyTree:
        """The signal of a stage from its slots."""
        return self.slots.unpack(0 if self.kind == "top" else stage, slots)

    def nothing(self) -> Handed:
        """What a stage hands down that has nothing to say: of an error that is summed over stages, zeros."""
        return self.slots.fill(0.0 if self.kind == "top" else self._bubble), jnp.int32(-1)

    def of_late(self, stage: int, down: PyTree, batch_id: jax.Array) -> Handed:
        """What a stage hands down once it has learnt from its signal: of backpropagation alone."""
        if self.kind == "above" and stage > 0:
            return self.slots.pack(stage - 1, down), batch_id
        return self.nothing()

    def of_pass(
        self,
        stage: int,
        downs: Mapping[int, PyTree],
        made: Mapping[int, Backward],
        batch_id: jax.Array,
        before: Handed,
    ) -> Handed:
        """What a stage hands down of its pass, or what it did of an earlier one.

        Args:
          stage: its number.
          downs: what each of its blocks handed down in its pass.
          made: what each of its prompt blocks made of its signal.
          batch_id: of the pass.
          before: what it has handed down in this tick.
        """
        down = handed_down(self._phases, stage, downs, made)
        if down is None:
            return before
        return self.slots.pack(0 if self.kind == "top" else stage - 1, down), batch_id

    def send(self, stage: jax.Array, sent: tuple[list[jax.Array], jax.Array], handed: Handed) -> tuple[Handed, Handed]:
        """Messages to the stage above, signals to where they are waited for: `((inbox, id), (signal, id))`."""
        stages = self._phases.layout.stages
        inbox, arrived = jax.lax.ppermute(sent, "stage", [(s, s + 1) for s in range(stages - 1)])
        arrived = jnp.where(stage == 0, -1, arrived)  # nothing arrives there, and ppermute says 0, which is a batch
        slots, made = handed
        if self.kind == "top":
            signal, signal_id = jax.lax.psum((slots, made + 1), "stage")  # zeros from all others
            return (inbox, arrived), (signal, signal_id - 1)
        signal, signal_id = jax.lax.ppermute((slots, made), "stage", [(s, s - 1) for s in range(1, stages)])
        return (inbox, arrived), (signal, jnp.where(stage == stages - 1, -1, signal_id))
