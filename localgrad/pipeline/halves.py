"""What the schedules share whose blocks learn later than they run: a forward half, a stash, and a backward half."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from localgrad.base import BlockState, Key, PyTree, Spec
from localgrad.pipeline import step
from localgrad.pipeline.mesh import Layout
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.partition import state_bytes
from localgrad.pipeline.stash import stashes as stashes_of


class TwoSlots:
    """Block states in slots, what an update moves apart from what a forward pass moves: neither copies the other."""

    def __init__(self, layout: Layout):
        specs: list[BlockState] = layout.state_specs
        self.learnt = Slots([[(specs[i].params, specs[i].opt_state) for i in span] for span in layout.blocks])
        self.moved = Slots([[specs[i].model_state for i in span] for span in layout.blocks])
        self.specs: list[jax.ShapeDtypeStruct] = [*self.learnt.specs, *self.moved.specs]

    def halves(self, slots: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
        """What an update moves, and what a forward pass moves."""
        count = len(self.learnt.specs)
        return list(slots[:count]), list(slots[count:])

    def pack(self, which: int, tree: tuple[BlockState, ...], xp: Any = jnp) -> list[jax.Array]:
        learnt = self.learnt.pack(which, [(state.params, state.opt_state) for state in tree], xp)
        return [*learnt, *self.moved.pack(which, [state.model_state for state in tree], xp)]

    def unpack(self, which: int, slots: Sequence[jax.Array]) -> tuple[BlockState, ...]:
        learnt, moved = self.halves(slots)
        pairs = zip(self.learnt.unpack(which, learnt), self.moved.unpack(which, moved), strict=True)
        return tuple(BlockState(params, model_state, opt_state) for (params, opt_state), model_state in pairs)


class Halves:
    """The two halves of a stage's step, in slots.

    Attributes:
      states: the stages' block states.
      kept: the stash of each stage.
      signals: shapes and dtypes of the signal that each block is given.
      stashes, effects, values: slots of what a stage keeps of a batch, of its gradients, and of its metrics.
      stash_bytes: bytes that each stage keeps of one batch.

    Args:
      layout: how the model lies on the mesh.
      borrow: no block learns between its forward and its backward half.
    """

    def __init__(self, layout: Layout, *, borrow: bool):
        model = layout.model
        specs = layout.state_specs, layout.message_specs
        self._layout = layout
        self.states = TwoSlots(layout)
        self.kept = stashes_of(model, *specs, layout.blocks, borrow=borrow)
        self.signals: list[Spec] = step.signals(model, *specs)
        self.stashes = Slots([stash.spec for stash in self.kept])
        answered = [
            jax.eval_shape(lambda *args, at=(s, i): self.answer(*at, *args), specs[0][i], stash.spec, self.signals[i])
            for s, (span, stash) in enumerate(zip(layout.blocks, self.kept, strict=True))
            for i in span
        ]
        self.effects = layout.stage_slots([grads for grads, _, _ in answered])
        self.values = layout.stage_slots([metrics for _, metrics, _ in answered])
        self.stash_bytes = [state_bytes(stash.spec) for stash in self.kept]

    def forward(self, stage: int, slots, message: PyTree, keys: Sequence[Key], ok):
        """`(batch statistics, outbox, what is kept, (state, stash) of the stage's last block)`."""
        own = self.states.unpack(stage, slots)
        done, kept = [], []
        for i, state, key in zip(self._layout.blocks[stage], own, keys, strict=True):
            message, state, stash = step.forward(self._layout.model.blocks[i], state, message, key, ok)
            done.append(state.model_state)
            kept.append(stash)
        outbox = self._layout.messages.pack(stage + 1, message)
        entry = self.stashes.pack(stage, self.kept[stage].keep(kept))
        return self.states.moved.pack(stage, done), outbox, entry, (state, stash)

    def answer(
        self, stage: int, i: int, state: BlockState, kept: Sequence[jax.Array], signal: PyTree, down: bool = False
    ):
        """What block i makes of a signal, with what its stage kept: `(grads, metrics, downward)`."""
        stash = self.kept[stage].whole(i, kept, state)
        return step.answer(self._layout.model.blocks[i], state, stash, signal, down)

    def take(self, stage: int, slots, grads, metrics, ok):
        """The update: `(slots of params and optimizers, ok, stopped)`."""
        done, why = [], []
        for i, state, grad, value in zip(
            self._layout.blocks[stage],
            self.states.unpack(stage, slots),
            self.effects.unpack(stage, grads),
            self.values.unpack(stage, metrics),
            strict=True,
        ):
            state, ok, stopped = step.take(self._layout.model.blocks[i], state, grad, value, ok)
            done.append((state.params, state.opt_state))
            why.append(stopped)
        return self.states.learnt.pack(stage, done), ok, self._layout.by_block(why)

    def update(self, due: jax.Array, slots, grads, metrics, ok):
        """`take` on this device's stage, if there is something to learn from."""
        learnt, moved = self.states.halves(slots)
        own = lambda stage: lambda carry: self.take(stage, [*carry[0], *moved], grads, metrics, carry[1])
        return self._layout.choose(due, own, (learnt, ok, self._layout.idle()))
