"""Block states of the stages and their metrics in slots, by what moves them and by when they are known."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from localgrad.base import BlockState, PyTree, Spec
from localgrad.pipeline.mesh import Layout
from localgrad.pipeline.packing import Slots


class BlockSlots:
    """Block states in slots, by what moves them, so that moving one copies none of the others.

    In this order: parameters and optimizers of blocks that learn from late signals alone, those of the other blocks,
    and batch statistics, which a pass moves.

    Args:
      layout: how the model lies on the mesh.
      late: of each stage, the blocks that learn from late signals alone.
    """

    def __init__(self, layout: Layout, late: Sequence[Sequence[int]]):
        specs: list[BlockState] = layout.state_specs
        self._spans = layout.blocks
        self._late_blocks = late
        rest = [[i for i in span if i not in own] for span, own in zip(self._spans, late, strict=True)]
        of = lambda spans: Slots([{i: (specs[i].params, specs[i].opt_state) for i in own} for own in spans])
        self._late, self._rest = of(late), of(rest)
        self.moved = Slots([[specs[i].model_state for i in span] for span in self._spans])
        self.specs: list[jax.ShapeDtypeStruct] = [*self._late.specs, *self._rest.specs, *self.moved.specs]

    def halves(self, slots: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
        """What updates move, and what a pass moves."""
        count = len(self.specs) - len(self.moved.specs)
        return list(slots[:count]), list(slots[count:])

    def thirds(self, slots: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
        """What late signals alone move, what else updates move, and what a pass moves."""
        learnt, moved = self.halves(slots)
        count = len(self._late.specs)
        return learnt[:count], learnt[count:], moved

    def pack(self, which: int, tree: Sequence[BlockState], xp: Any = jnp) -> list[jax.Array]:
        return [*self.pack_late(which, tree, xp), *self.pack_rest(which, tree, xp), *self.pack_moved(which, tree, xp)]

    def pack_late(self, which: int, tree: Sequence[BlockState], xp: Any = jnp) -> list[jax.Array]:
        """What late signals alone move."""
        late = self._late_blocks[which]
        return self._late.pack(which, {i: value for i, value in self._learnt(which, tree).items() if i in late}, xp)

    def pack_rest(self, which: int, tree: Sequence[BlockState], xp: Any = jnp) -> list[jax.Array]:
        """What else updates move."""
        late = self._late_blocks[which]
        return self._rest.pack(which, {i: value for i, value in self._learnt(which, tree).items() if i not in late}, xp)

    def pack_moved(self, which: int, tree: Sequence[BlockState], xp: Any = jnp) -> list[jax.Array]:
        """What a pass moves."""
        return self.moved.pack(which, [state.model_state for state in tree], xp)

    def unpack(self, which: int, slots: Sequence[jax.Array]) -> tuple[BlockState, ...]:
        late, rest, moved = self.thirds(slots)
        learnt = self._late.unpack(which, late) | self._rest.unpack(which, rest)
        statistics = zip(self._spans[which], self.moved.unpack(which, moved), strict=True)
        return tuple(BlockState(learnt[i][0], model_state, learnt[i][1]) for i, model_state in statistics)

    def _learnt(self, which: int, tree: Sequence[BlockState]) -> dict[int, tuple[PyTree, PyTree]]:
        return {i: (state.params, state.opt_state) for i, state in zip(self._spans[which], tree, strict=True)}


class Values:
    """Slots of the metrics of a stage's blocks: what is reported when signals arrive, and what of the tick's pass."""

    def __init__(self, metrics: Sequence[Spec], late: Sequence[Sequence[int]], rest: Sequence[Sequence[int]]):
        self._late, self._rest = late, rest
        self.late = Slots([{i: metrics[i] for i in span} for span in late])
        self.rest = Slots([{i: metrics[i] for i in span} for span in rest])

    def unpack(self, which: int, slots: Sequence[jax.Array]) -> tuple[Any, ...]:
        """The metrics of a stage's blocks, in order."""
        count = len(self.late.specs)
        found = self.late.unpack(which, slots[:count]) | self.rest.unpack(which, slots[count:])
        return tuple(found[i] for i in sorted(found))
