"""Methods side by side: each trained by the one loop, the best of its runs on validation chosen, and one table."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from localgrad.report import EXITS, form_of
from localgrad.report.facts import Run
from localgrad.report.scores import better, with_unit
from localgrad.report.tables import Table, figure
from localgrad.report.timeline import waited
from localgrad.results.grid import Point, Row
from localgrad.tasks import Task
from localgrad.training import DivergedError, prepare_all
from localgrad.training import run as train


class Trained(NamedTuple):
    """A row whose runs are done.

    Attributes:
      name: the row's.
      score: name of the task's first score, which chooses.
      percent: whether it is in percent.
      scores: of each point that score on validation of its best epoch, as a summary has it; None where it diverged.
      points: the row's.
      chosen: the point of the best mean of them, the first of equals; None if all diverged.
      summary: of that point; {} if all diverged.
    """

    name: str
    score: str
    percent: bool
    points: tuple[Point, ...]
    scores: tuple[Any, ...]
    chosen: Point | None
    summary: dict[str, Any]


def train_row(row: Row, log: Callable[[str], None], check: Callable[[Sequence[Any]], None]) -> Trained:
    """Trains every run of a row, or goes on with it, and chooses one on validation.

    Args:
      row: see `rows_of`.
      log: takes a line of text for the user.
      check: is given the jobs of each run before it starts, to refuse them.

    Raises:
      Interrupted, InUseError, OSError, ValueError: as `prepare_all` and `run`.
    """
    summaries: list[dict[str, Any]] = []
    task: Task | None = None
    for point in row.points:
        log(f"--- {point.config.workdir}")
        jobs = prepare_all(point.config)
        check(jobs)
        task = jobs[0].model.task
        try:
            summaries.append(train(point.config, jobs, log))
        except DivergedError as error:
            log(f"{point.config.workdir} diverged: {error}")
            summaries.append({})
    assert task is not None  # a row has a point
    return choose(row, summaries, task)


def choose(row: Row, summaries: Sequence[dict[str, Any]], task: Task) -> Trained:
    """The best of a row's runs on validation, by the mean of its trials; {} stands for one that diverged."""
    name, score = next(iter(task.scores.items()))
    scores = tuple(summary.get(f"best_validation_{name}") for summary in summaries)
    means = [-np.inf if found is None else better(_mean(found), score.best) for found in scores]
    best = int(np.argmax(means))
    diverged = scores[best] is None
    chosen, summary = (None, {}) if diverged else (row.points[best], summaries[best])
    return Trained(row.name, name, score.percent, row.points, scores, chosen, summary)


def tables_of(rows: Sequence[Trained], runs: Sequence[Run | None]) -> list[Table]:
    """The comparison: the methods, their accuracy by exit, their alignment by block, and what was tried.

    Args:
      rows: the methods.
      runs: what `gather` read of each one's chosen run; None where there is none.
    """
    numbers = [numbers_of(row, run) for row, run in zip(rows, runs, strict=True)]
    score, form = with_unit(rows[0].score, rows[0].percent), f",{form_of(rows[0].percent)}"
    header = {
        "method": "method",
        "validation": f"validation {score}",
        "test": f"test {score}",
        "parameters": "parameters, effective + affiliated",
        "step_flops": "step MFLOP",
        "device_bytes": "state and stash a device, MiB",
        "message_bytes": "hands on, KiB a batch",
        "ticks_waited": "ticks waited",
        "speed_up": "predicted speed-up",
        "examples_per_sec": "examples a second",
        "alignment": "mean alignment",
    }
    says = (
        "Scores are those of the epoch that is best on validation, at the last exit; with trials their mean ± "
        "deviation. Costs are of all trials that train together. Ticks waited are those of the whole run (of trials "
        "one after another: the longest) on which the stage that waits longest has nothing to do; speed-up is "
        "predicted over one device, and examples a second were measured. Alignment is the cosine of a block's update "
        "with the true gradient, the mean over the blocks below the last; with trials that of the first one's network."
    )
    found = [
        Table("Methods", list(header.values()), [[_cell(key, row, form) for key in header] for row in numbers], says)
    ]
    by_exit = {row["method"]: row.get("exits", {}) for row in numbers}
    found += _by_place(f"By exit: test {score}", "exit", by_exit, form)
    cosines = {r["method"]: dict(enumerate(r.get("cosine", []), 1)) for r in numbers}
    found += _by_place("Alignment by block", "block", cosines, ",.3f")
    tried = [
        [
            row.name,
            _said(point.tries),
            "diverged" if value is None else figure(value, form),
            "*" * (point is row.chosen),
        ]
        for row in rows
        for point, value in zip(row.points, row.scores, strict=True)
    ]
    if any(len(row.points) > 1 for row in rows):
        found.append(Table("What was tried", ["method", "with", f"best validation {score}", "chosen"], tried))
    return found


def numbers_of(row: Trained, run: Run | None) -> dict[str, Any]:
    """A row of the comparison as numbers, for JSON; figures of trials are as a summary has them."""
    found: dict[str, Any] = {
        "method": row.name,
        "tried": [
            {**point.tries, f"best_validation_{row.score}": score}
            for point, score in zip(row.points, row.scores, strict=True)
        ],
    }
    if row.chosen is None or run is None:
        return found
    summary = row.summary
    found |= {
        "chosen": row.chosen.tries,
        "workdir": row.chosen.config.workdir,
        "score": row.score,
        "validation": summary[f"best_validation_{row.score}"],
        "test": summary[f"best_test_{row.score}"],
        "exits": dict(zip(summary["exits"], summary[f"best_{EXITS}{row.score}"], strict=True)),
        "parameters": summary["params"],
        "examples_per_sec": summary["examples_per_sec"],
        "params_sha256": summary["params_sha256"],
    }
    if run.ledger is not None and run.plan is not None:
        found |= {
            "step_flops": sum(block.flops for block in run.ledger.blocks),
            "device_bytes": run.plan.slot_bytes + run.plan.stash_slot_bytes,
            "message_bytes": sum(block.message for block in run.ledger.blocks[:-1]),
            "ticks_waited": waited(run.plan.schedule, run.batches),
            "speed_up": run.ledger.speed_up,
        }
    cosines = run.measured.get("cosine")
    if cosines is not None:
        below = [value for value in cosines[:-1] if value is not None]
        found |= {"cosine": cosines, "alignment": float(np.mean(below)) if below else None}
    return found


def _cell(key: str, row: dict[str, Any], form: str) -> str:
    value = row.get(key)
    if value is None:
        return "diverged" if key == "validation" and "validation" not in row else ""
    if key in ("validation", "test"):
        return figure(value, form)
    scale, form = {"step_flops": (1e6, ",.1f"), "message_bytes": (2**10, ",.1f"), "device_bytes": (2**20, ",.2f")}.get(
        key, (1, ",.2f")
    )
    if key == "parameters":
        return f"{value['effective']:,} + {value['affiliated']:,}"
    if key == "examples_per_sec" and isinstance(value, dict) and not value["std"]:  # of trials that train as one
        return figure(value["mean"], ",.0f")
    if key in ("ticks_waited", "examples_per_sec"):
        return figure(value, ",.0f")
    if key == "alignment":
        return figure(value, ",.3f")
    return value if isinstance(value, str) else figure(value / scale, form)


def _by_place(title: str, place: str, found: dict[str, dict[int, Any]], form: str) -> list[Table]:
    """A table with a row for each exit or block and a column for each method; none where only one place is known."""
    places = sorted({where for values in found.values() for where, value in values.items() if value is not None})
    shown = [name for name, values in found.items() if values]
    rows = [[str(where), *(figure(found[name].get(where), form) for name in shown)] for where in places]
    return [Table(title, [place, *shown], rows)] if len(places) > 1 else []


def _said(tries: dict[str, Any]) -> str:
    return ", ".join(f"{field}={value}" for field, value in tries.items())


def _mean(score: Any) -> float:
    return score["mean"] if isinstance(score, dict) else score
