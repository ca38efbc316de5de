"""Which blocks run on which stage: contiguous, the most expensive stage as cheap as can be."""

import hashlib
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np

from localgrad.base import Model, Plan, Spec
from localgrad.pipeline import step
from localgrad.pipeline.jaxprs import text_of
from localgrad.pipeline.loops import flops_of_repeats
from localgrad.pipeline.packing import Slots
from localgrad.pipeline.schedules import local
from localgrad.pipeline.specs import key_spec, once_a_model, signals, specs

# Cost of moving one byte of a block's state, in FLOPs: optimizer updates are bound by memory, matrix products are not.
FLOPS_PER_BYTE = 8.0


def make_plan(model: Model, stages: int = 1, cuts: Sequence[int] | None = None) -> Plan:
    """Lays a model over stages.

    The cost of a block is `flops + FLOPS_PER_BYTE * bytes of state read and written`, both of its whole training step,
    heads and optimizer included.

    Args:
      model: any model.
      stages: number of stages S.
      cuts: `S + 1` block indices from 0 to the number of blocks, to choose the stages by hand.

    Returns:
      A `Plan`.

    Raises:
      ValueError: if there are fewer blocks than stages, or `cuts` are not ascending from 0 to the number of blocks.
    """
    blocks = len(model.blocks)
    if not 1 <= stages <= blocks:
        raise ValueError(
            f"{stages} stages for a network of {blocks} blocks: every stage needs at least one block, so choose "
            f"stages between 1 and {blocks}, or a network of more blocks."
        )
    if cuts is not None and (len(cuts) != stages + 1 or cuts[0] != 0 or cuts[-1] != blocks or any(np.diff(cuts) < 1)):
        raise ValueError(f"cuts must be {stages + 1} ascending block indices from 0 to {blocks}; got {list(cuts)}.")
    states, messages, given, programs = _analysed(model)
    flops = tuple(flops for flops, _ in programs)
    costs = tuple(f + FLOPS_PER_BYTE * 2 * state_bytes(state) for f, state in zip(flops, states, strict=True))
    cuts = tuple(cuts) if cuts is not None else balance(costs, stages)
    spans = list(zip(cuts, cuts[1:], strict=False))
    slots = Slots([states[a:b] for a, b in spans])
    digests = block_programs(model)
    same_program = len({digests[a:b] for a, b in spans}) == 1
    same_message = len({str(messages[cut]) for cut in cuts}) == 1
    return Plan(
        cuts=cuts,
        costs=costs,
        flops=flops,
        message_bytes=tuple(map(state_bytes, messages[1:])),
        stage_bytes=tuple(state_bytes(states[a:b]) for a, b in spans),
        slot_bytes=state_bytes(slots.specs),
        uniform=same_program and same_message,
        schedule=local(stages),
        signal_bytes=tuple(map(state_bytes, given)),
    )


def unpadded(plan: Plan) -> Plan:
    """The same where a device holds its own stage and nothing else."""
    return plan._replace(slot_bytes=max(plan.stage_bytes), stash_slot_bytes=max(plan.stash_bytes, default=0))


def block_programs(model: Model) -> tuple[str, ...]:
    """Digests of the blocks' training steps: blocks whose digests are equal are one program."""
    return tuple(text for _, text in _analysed(model)[3])


def balance(costs: Sequence[float], stages: int) -> tuple[int, ...]:
    """Cuts a sequence of costs into contiguous stages so that the dearest stage is as cheap as can be.

    Among equals it takes the cuts whose stages have the least sum of squares.

    Args:
      costs: cost of each block, non-negative.
      stages: number of stages S, at most `len(costs)`.

    Returns:
      `S + 1` block indices, from 0 to `len(costs)`.

    Examples:
      >>> balance([1, 1, 1, 3], 2)
      (0, 3, 4)
      >>> balance([5, 1, 1, 1], 3)
      (0, 1, 2, 4)
    """
    total = np.concatenate([[0.0], np.cumsum(costs)])
    # best[n]: (dearest stage, sum of squares, cuts) of the first n blocks over the stages so far
    best: dict[int, tuple[float, float, tuple[int, ...]]] = {0: (0.0, 0.0, (0,))}
    for _ in range(stages):
        best = {
            end: min(
                (max(dearest, total[end] - total[start]), squares + (total[end] - total[start]) ** 2, (*cuts, end))
                for start, (dearest, squares, cuts) in best.items()
                if start < end
            )
            for end in range(1, len(costs) + 1)
            if any(start < end for start in best)
        }
    return best[len(costs)][2]


def state_bytes(tree: Spec) -> int:
    """Bytes of the arrays of a tree, or of their specs."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


@once_a_model  # the ledger and both engines ask about the same one
def _analysed(model: Model) -> tuple[list[Spec], list[Spec], list[Spec], list[tuple[float, str]]]:
    """Specs of states, messages and signals, and what `_program` says of each block."""
    states, messages = specs(model)
    given = signals(model, states, messages)
    each = zip(range(len(given)), states, messages, given, strict=False)  # one message more: what leaves
    return states, messages, given, [_program(model, *one) for one in each]


def _program(model: Model, index: int, state: Spec, message: Spec, signal: Spec) -> tuple[float, str]:
    """FLOPs of a block's training step, and a digest of its program: equal digests are the same function."""
    run = partial(step.alone, model, index)
    traced = jax.jit(run).trace(state, message, key_spec(model), signal)
    lowered = traced.lower()
    analysis: dict[str, float] = lowered.cost_analysis() or lowered.compile().cost_analysis() or {}
    flops = float(analysis.get("flops", 0.0)) + flops_of_repeats(traced)
    return flops, hashlib.sha256(text_of(traced, lowered, index).encode()).hexdigest()
