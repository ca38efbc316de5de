"""The ledger: what each block and each stage costs, and what a pipeline should gain."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from localgrad.base import BlockState, Model, Plan, Schedule, Spec


class BlockRow(NamedTuple):
    """One block.

    Attributes:
      name: the block's.
      effective, affiliated: number of parameters that prediction at the last exit uses, and of all others.
      flops: of a training step.
      message: bytes that the block hands to the next.
      signal: bytes that it waits for from above.
    """

    name: str
    effective: int
    affiliated: int
    flops: float
    message: int
    signal: int = 0


class StageRow(NamedTuple):
    """One stage.

    Attributes:
      blocks: the index of its first block, and that behind its last.
      cost: share of the total cost.
      params: parameters.
      waste: part of a device's state that is padding.
      stash: bytes kept between forward and update, beside the state.
      stash_waste: part of what a device holds for it that is padding.
    """

    blocks: tuple[int, int]
    cost: float
    params: int
    waste: float
    stash: int
    stash_waste: float


class Ledger(NamedTuple):
    """What blocks and stages cost, and the speed-up that is predicted for a run.

    Attributes:
      blocks, stages: a row each.
      speed_up: sequential time over pipeline time, sum of costs / most expensive stage * (1 - bubble), on devices that
        are each as fast as the one of the sequential run and hand messages on at no cost.
      bubble: the share of its time that one of S stages is idle in a run of N batches: (S - 1) / (N + S - 1) for local
        losses, S / (N + S) with delays, (S - 1) / (M + S - 1) for backpropagation of M micro-batches; where each batch
        is waited for (`locked`), (S - 1) / (S + 2) for a broadcast, a forward pass taken as a third of a step, and half
        for a relay.
      parts: a sentence on how many examples of a batch a block works on at once.
    """

    blocks: tuple[BlockRow, ...]
    stages: tuple[StageRow, ...]
    speed_up: float
    bubble: float
    parts: str

    @property
    def effective(self) -> int:
        return sum(row.effective for row in self.blocks)

    @property
    def affiliated(self) -> int:
        return sum(row.affiliated for row in self.blocks)


def ledger(model: Model, states: Sequence[BlockState], plan: Plan, batches: int) -> Ledger:
    """Draws up the ledger of a model.

    Args:
      model: any model.
      states: one `BlockState` a block, of arrays or specs.
      plan: how the model is laid over stages.
      batches: batches in the run, N.

    Returns:
      A `Ledger`; parameters are those of one trial, costs and FLOPs those of all trials together.
    """
    share = model.trials or 1
    rows = []
    signals = plan.signal_bytes or (0,) * len(model.blocks)
    columns = (model.blocks, states, model.effective, plan.flops, plan.message_bytes, signals)
    for block, state, used, flops, message, signal in zip(*columns, strict=True):
        sizes = {group: _parameters(params) // share for group, params in state.params.items()}
        effective = sum(size for group, size in sizes.items() if group in used)
        rows.append(BlockRow(block.name, effective, sum(sizes.values()) - effective, flops, message, signal))
    stashes = plan.stash_bytes or (0,) * len(plan.stage_costs)
    stages = tuple(
        StageRow(
            (a, b),
            cost / max(sum(plan.costs), 1.0),
            sum(row.effective + row.affiliated for row in rows[a:b]),
            1 - used / max(plan.slot_bytes, 1),
            stash,
            1 - stash / plan.stash_slot_bytes if plan.stash_slot_bytes else 0.0,
        )
        for a, b, cost, used, stash in zip(
            plan.cuts, plan.cuts[1:], plan.stage_costs, plan.stage_bytes, stashes, strict=False
        )
    )
    bubble = _bubble(plan.schedule, batches)
    speed_up = sum(plan.costs) / max(plan.stage_costs) * (1 - bubble)
    return Ledger(tuple(rows), stages, speed_up, bubble, _parts(model, plan))


def _parts(model: Model, plan: Plan) -> str:
    part = model.batch_size // (plan.data_parallel * plan.schedule.parts)
    if part == model.batch_size:
        return f"a block works on the {part} examples of a batch at once"
    return (
        f"a block works on {part} of the {model.batch_size} examples of a batch at once: data_parallel="
        f"{plan.data_parallel} times micro_batches={plan.schedule.parts}"
    )


def _bubble(schedule: Schedule, batches: int) -> float:
    """The share of its time that a stage has nothing to do."""
    stages = schedule.stages
    if stages == 1:
        return 0.0
    if schedule.period == 1:
        return schedule.drain / (schedule.drain + batches)
    if schedule.name == "chain":  # each part takes a tick on the way up and one on the way down
        return 1 - 2 * schedule.parts / schedule.period
    if schedule.name == "relay":  # every other tick
        return 1 - 1 / schedule.period
    return (stages - 1) / (stages - 1 + 3)  # forward passes follow each other, a third of a step each


def format_ledger(book: Ledger) -> str:
    """The ledger as a text table."""
    blocks = [
        [
            i + 1, row.name, f"{row.effective:,}", f"{row.affiliated:,}", f"{row.flops / 1e6:,.1f}",
            f"{row.message / 1024:,.0f}" if i + 1 < len(book.blocks) else "",
            f"{row.signal / 1024:,.1f}" if row.signal else "",
        ]
        for i, row in enumerate(book.blocks)
    ]  # fmt: skip
    flops = sum(row.flops for row in book.blocks)
    blocks.append(["", "all", f"{book.effective:,}", f"{book.affiliated:,}", f"{flops / 1e6:,.1f}", "", ""])
    columns = ["block", "name", "effective", "affiliated", "step MFLOP", "hands on KiB", "waits for KiB"]
    if not any(row.signal for row in book.blocks):
        columns, blocks = columns[:-1], [row[:-1] for row in blocks]
    stages = [
        [
            i + 1, _span(row.blocks), f"{row.cost:.1%}", f"{row.params:,}", f"{row.waste:.1%}",
            f"{row.stash / 1024:,.0f}", f"{row.stash_waste:.1%}",
        ]
        for i, row in enumerate(book.stages)
    ]  # fmt: skip
    header = ["stage", "blocks", "cost", "parameters", "padding", "stash KiB", "padding"]
    if not any(row.stash for row in book.stages):
        header, stages = header[:-2], [row[:-2] for row in stages]
    return "\n\n".join(
        [
            table(columns, blocks),
            table(header, stages),
            book.parts,
            f"bubble {book.bubble:.2%} of the time of the run; predicted speed-up {book.speed_up:.2f} on "
            f"{len(book.stages)} equal device{'s' if len(book.stages) > 1 else ''}",
        ]
    )


def format_seconds(model: Model, seconds: Sequence[float], cuts: Sequence[int], completing: float | None = None) -> str:
    """What the blocks of a model take by the clock as a text table, and the cuts that balance it.

    Args:
      model: any model.
      seconds: of each block, see `localgrad.pipeline.block_seconds`.
      cuts: block indices that balance them, see `localgrad.pipeline.balance`.
      completing: seconds of what initialisation does once every block is drawn, such as learning codes first.
    """
    rows = [
        [i + 1, block.name, f"{1e3 * spent:,.2f}", f"{spent / sum(seconds):.1%}"]
        for i, (block, spent) in enumerate(zip(model.blocks, seconds, strict=True))
    ]
    slowest = max(sum(seconds[a:b]) for a, b in zip(cuts, cuts[1:], strict=False))
    says = (
        f"By the clock, one device and no bubble, {len(cuts) - 1} stages gain at most {sum(seconds) / slowest:.2f}: "
        f"--cuts={','.join(map(str, cuts))}"
    )
    before = "" if completing is None else f"Before the first step, completing all blocks takes {completing:,.2f} s."
    return "\n\n".join(filter(None, [table(["block", "name", "step ms", "share"], rows), says, before]))


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows as aligned text: the first two columns to the left, numbers to the right.

    Examples:
      >>> print(table(["exit", "name", "accuracy"], [[1, "dense8", "95.0"]]))
      exit  name    accuracy
      1     dense8      95.0
    """
    cells = [list(map(str, row)) for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def _span(blocks: tuple[int, int]) -> str:
    return f"{blocks[0] + 1}" if blocks[1] == blocks[0] + 1 else f"{blocks[0] + 1}-{blocks[1]}"


def _parameters(tree: Spec) -> int:
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))
