"""Pipelines of up to 256 stages by the value of their schedules alone: nothing is computed, every tick is counted.

    python -m experiments.benchmarks.simulated

For each schedule and number of stages: the ticks of a run, the share of its time that a stage is idle (counted by going
through all ticks of all stages), how late the first stage learns, the batches that it keeps meanwhile, and the bytes
that a link carries a batch, in units of a message.  A tick of `chain` is a part's way through a stage in one direction,
so that its ticks are shorter; idle shares and batches can be compared, ticks of different schedules cannot.

Writes experiments/results/bench_simulated.md, .json and .png in a few seconds.
"""

from collections.abc import Callable
from typing import Any

from absl import app, flags

from experiments import tables
from localgrad.base import Schedule
from localgrad.cli import shell
from localgrad.pipeline import schedules
from localgrad.report import draw_panels
from localgrad.training.workdir import write_json

flags.DEFINE_list("stages", ["2", "4", "8", "16", "32", "64", "128", "256"], "numbers of stages")
flags.DEFINE_integer("batches", 1024, "of a run")
flags.DEFINE_string("out", "experiments/results", "folder of the result files")
FLAGS = flags.FLAGS

# By name: the schedule of so many stages, and what a batch sends over a link: up (its message), and down.
SCHEDULES: dict[str, tuple[Callable[[int], Schedule], str]] = {
    "local": (schedules.local, "a message up"),
    "relay": (schedules.relay, "a message up, one row an example down"),
    "relay, locked": (lambda stages: schedules.relay(stages, "locked"), "the same"),
    "broadcast": (schedules.broadcast, "a message up; the error to all"),
    "broadcast, locked": (lambda stages: schedules.broadcast(stages, "locked"), "the same"),
    "chain, 4 parts a stage": (lambda stages: schedules.chain(stages, 4 * stages), "a message up, its gradient down"),
    "chain, streamed": (schedules.streamed_chain, "a message up, its gradient down"),
}


def idle(schedule: Schedule, batches: int) -> float:
    """The share of its ticks that the first stage does nothing, counted over the whole run.

    Examples:
      >>> idle(schedules.local(4), 9)
      0.25
    """
    ticks, busy = schedule.ticks(batches), 0
    for tick in range(ticks):
        up, down = schedule.forward(tick, 0), schedule.answers(tick, 0)
        works = [found for found in (up, down) if found is not None and found[0] < batches]
        busy += bool(works)
    return 1 - busy / ticks


def row_of(schedule: Schedule, batches: int) -> dict[str, Any]:
    """What a run of so many batches comes to."""
    return {
        "ticks": schedule.ticks(batches),
        "idle": idle(schedule, batches),
        "late": max(schedule.delays),
        "kept": max(schedule.places) / schedule.parts,
    }


def main(argv: list[str]) -> int:
    """Counts, writes the table and draws the figure."""
    if len(argv) > 1:
        return shell.refuse(f"unexpected arguments {argv[1:]}: every option is a --flag=value.")
    sizes = [int(stages) for stages in FLAGS.stages]
    path = tables.place(FLAGS.out, folder=True) / "bench_simulated"
    rows = {
        name: {stages: row_of(make(stages), FLAGS.batches) for stages in sizes} for name, (make, _) in SCHEDULES.items()
    }
    write_json(path.with_suffix(".json"), {"command": shell.command_line(), "batches": FLAGS.batches, "rows": rows})
    header = ["schedule", "a batch sends over a link", *(f"{stages} stages" for stages in sizes)]
    lines = [header, ["---"] * len(header)]
    for name, (_, sends) in SCHEDULES.items():
        cells = [f"{row['idle']:.1%}, {row['late']}, {row['kept']:g}" for row in rows[name].values()]
        lines.append([name, sends, *cells])
    about = (
        f"`{shell.command_line()}`: runs of {FLAGS.batches} batches. In each cell: the share of its ticks that the "
        "first stage is idle, by how many batches its updates are late, and how many batches it keeps."
    )
    text = about + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    path.with_suffix(".md").write_text(text)
    curves = {name: [row["idle"] for row in by_size.values()] for name, by_size in rows.items()}
    draw_panels({"": curves}, sizes, "stages", "idle share of the first stage", path.with_suffix(".png"))
    shell.say(text)
    return 0


if __name__ == "__main__":
    app.run(main)
