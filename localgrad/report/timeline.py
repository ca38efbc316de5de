"""Which stage works on which batch when: a schedule's value as a chart, one row a stage and one column a tick."""

from collections.abc import Sequence

from localgrad.base import Schedule
from localgrad.report.svg import colour, svg, text

_COLUMNS = 160  # most ticks that are drawn
_HUES = 6  # batches after which colours come again


def waited(schedule: Schedule, batches: int) -> int:
    """Ticks of a run on which the stage that waits longest takes no batch forward and learns from none.

    Each batch in the middle of a run adds the same number, so a few batches tell that of any run.

    Args:
      schedule: any schedule.
      batches: in the run, N.

    Examples:
      >>> waited(Schedule("local", (None, None, None)), 100)  # S - 1
      2
      >>> waited(Schedule("chain", (6, 4), period=10, parts=4), 100)  # 2 (S - 1) a batch
      200
    """
    few = min(batches, 2 * max(schedule.places) + 2 * schedule.stages + 2)

    def idle(batches: int, stage: int) -> int:
        count = schedule.ticks(batches)
        return sum(not _work(schedule, tick, stage, batches) for tick in range(count))

    if few == batches:
        return max(idle(batches, stage) for stage in range(schedule.stages))
    return max(
        idle(few, stage) + (batches - few) * (idle(few, stage) - idle(few - 1, stage))
        for stage in range(schedule.stages)
    )


def timeline(schedule: Schedule, cuts: Sequence[int], batches: int) -> tuple[str, int, int]:
    """Draws the first batches of a run.

    A cell is a tick of a stage.  Its colour and number are those of the batch: pale where the batch passes and learns
    later, full where the stage learns; two halves where it does both, of different batches.

    Args:
      schedule: any schedule.
      cuts: block indices at which its stages begin and end.
      batches: of the run; the first few are drawn.

    Returns:
      An `svg` element, the number of batches of which it tells, and the number of ticks that it shows.
    """
    batches = max(1, min(batches, 8 if schedule.parts == 1 else 2))
    columns = min(schedule.ticks(batches), _COLUMNS)
    size = 22 if columns <= 48 and schedule.stages <= 24 else 11
    left, top = 92, 18
    parts = []
    for stage in range(schedule.stages):
        span = f"{cuts[stage] + 1}" if cuts[stage + 1] == cuts[stage] + 1 else f"{cuts[stage] + 1}-{cuts[stage + 1]}"
        parts.append(text(left - 6, top + (stage + 0.5) * size + 3, f"{stage + 1}: block {span}", "end"))
        parts.append(
            f'<rect class="idle" x="{left}" y="{top + stage * size + 1}" width="{columns * size}" height="{size - 2}"/>'
        )
        for tick in range(columns):
            parts.append(_cell(schedule, tick, stage, batches, left + tick * size, top + stage * size, size))
    for tick in range(0, columns, 1 if size > 20 else 5):
        parts.append(text(left + (tick + 0.5) * size, top - 5, str(tick), "middle"))
    title = f"schedule {schedule.name} on {schedule.stages} stages, {batches} batches: a row a stage, a column a tick"
    return svg(left + columns * size + 4, top + schedule.stages * size + 4, title, "".join(parts)), batches, columns


def _work(schedule: Schedule, tick: int, stage: int, batches: int) -> list[tuple[str, int, int]]:
    """What a stage does on a tick: `(forward, learns or both, batch, part)`, at most two of them."""
    passes, learns = schedule.forward(tick, stage), schedule.answers(tick, stage)
    alone = schedule.wait[stage] is None
    found = [] if passes is None else [("passes and learns" if alone else "passes", *passes)]
    if learns is not None:
        if learns == passes:
            found = []
        found.append(("passes and learns" if learns == passes else "learns", *learns))
    return [work for work in found if work[1] < batches]


def _cell(schedule: Schedule, tick: int, stage: int, batches: int, x: int, y: int, size: int) -> str:
    work = _work(schedule, tick, stage, batches)
    parts, height = [], (size - 2) / max(1, len(work))
    for i, (does, batch, part) in enumerate(work):
        of_part = f", part {part + 1}" if schedule.parts > 1 else ""
        said = f"tick {tick}, stage {stage + 1}: batch {batch + 1}{of_part} {does}"
        opacity = 0.35 if does == "passes" else 0.9
        parts.append(
            f'<rect class="work" x="{x + 1}" y="{y + 1 + i * height:g}" width="{size - 2}" height="{height:g}" '
            f'fill="{colour(batch % _HUES, _HUES)}" fill-opacity="{opacity}"><title>{said}</title></rect>'
        )
    if size > 20 and len(work) == 1:
        shown = work[0][2] + 1 if schedule.parts > 1 else work[0][1] + 1
        parts.append(text(x + size / 2, y + size / 2 + 3, str(shown), "middle"))
    return "".join(parts)
