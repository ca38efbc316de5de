"""One page about one run or several: HTML that brings everything it shows, and asks nobody for anything."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from localgrad.report import charts
from localgrad.report.facts import Run
from localgrad.report.scores import EXITS
from localgrad.report.tables import Table, figure, spread

_OF_PLACE = ("workdir", "data_dir")  # fields that say nothing about what was trained


def render(
    runs: Sequence[Run],
    *,
    defaults: Mapping[str, Any],
    title: str = "",
    tables: Sequence[Table] = (),
    command: str = "",
    made_by: Mapping[str, str] | None = None,
) -> str:
    """The page, as a text to be saved in one file.

    Args:
      runs: at least one, with distinct names.
      defaults: what each field of a configuration is where nobody said anything.
      title: the heading; the runs' names by default.
      tables: stand above all else, such as a comparison of methods.
      command: what made the page.
      made_by: versions of what made the page.

    Raises:
      ValueError: without runs, or of runs of one name.
      ModuleNotFoundError: without jinja2.
    """
    import jinja2  # here: only a page needs it

    names = [run.name for run in runs]
    if not runs or len(set(names)) < len(names):
        raise ValueError(f"a page is about at least one run, each of a name of its own; got {names}.")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(resources.files("localgrad.report").joinpath("page.html").read_text("utf-8"))
    sections = [
        {
            "run": run,
            "facts": _facts(run),
            "curves": charts.curves(run),
            "more": charts.more_curves(run),
            "costs": charts.costs(run),
            "evaluated": charts.evaluated(run),
            "tables": [table for table in (_exits(run), _ledger(run), _stages(run)) if table.rows],
            "config": [(name, _shown(value)) for name, value in run.config.items()],
        }
        for run in runs
    ]
    return template.render(
        title=title or ", ".join(names),
        tables=[*tables, *([_overview(runs)] if len(runs) > 1 and not tables else [])],
        compared=charts.compared(runs) if len(runs) > 1 else [],
        differing=differing(runs, defaults),
        sections=sections,
        command=command,
        made_by=dict(made_by or {}),
        records=_records(runs),
    )


def differing(runs: Sequence[Run], defaults: Mapping[str, Any]) -> Table:
    """The fields in which configurations differ from each other; of one run, from the defaults."""
    fields = [name for name in dict.fromkeys(key for run in runs for key in run.config) if name not in _OF_PLACE]
    value = lambda run, name: _shown(run.config.get(name, defaults.get(name)))
    if len(runs) == 1:
        own = [[name, value(runs[0], name), _shown(defaults.get(name))] for name in fields]
        own = [row for row in own if row[1] != row[2]]
        return Table("Configuration", ["field", "here", "by default"], own, "All other fields are at their defaults.")
    each = [[name, *(value(run, name) for run in runs)] for name in fields]
    rows = [row for row in each if len(set(row[1:])) > 1]
    says = "All other fields are the same." if rows else "The configurations are the same."
    return Table("Configurations: what differs", ["field", *(run.name for run in runs)], rows, says)


def _overview(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs:
        tests = run.epochs.shown
        book = run.ledger
        rows.append(
            [
                run.name, run.config.get("method", ""), run.config.get("net", ""), run.config.get("dataset", ""),
                _score(run, spread(run.epochs.ended[-1])) if tests.size else "",
                _score(run, run.summary.get(f"best_{run.epochs.split}_{run.epochs.score}")),
                f"{book.effective:,} + {book.affiliated:,}" if book else "",
                figure(float(np.median(run.epochs.rate[1:] if len(run.epochs.rate) > 1 else run.epochs.rate)), ",.0f"),
            ]
        )  # fmt: skip
    alike = len({(run.epochs.split, run.epochs.score) for run in runs}) == 1
    words = f"{runs[0].epochs.split} {runs[0].epochs.words}" if alike else "score"
    header = ["run", "method", "network", "dataset", f"{words}, last epoch", "best epoch on validation",
              "parameters, effective + affiliated", "examples a second"]  # fmt: skip
    return Table("Runs", header, rows)


def _facts(run: Run) -> list[tuple[str, str]]:
    """What stands at the top of a run's section."""
    tests, summary, words = run.epochs.shown, run.summary, f"{run.epochs.split} {run.epochs.words}"
    best = summary.get("best_epoch")
    epochs = best["values"] if isinstance(best, dict) else best
    found = [
        ("method", run.config.get("method")),
        ("network", run.config.get("net")),
        ("dataset", run.config.get("dataset")),
        ("epochs", f"{run.epochs.epochs_done} of {run.config.get('epochs')}"),
        (f"{words}, last epoch", _score(run, spread(run.epochs.ended[-1])) if tests.size else None),
        (f"{words}, best epoch on validation", _score(run, summary.get(f"best_{run.epochs.split}_{run.epochs.score}"))),
        ("best epoch", None if epochs is None else _shown(epochs)),
        ("stages", None if run.plan is None else str(run.plan.schedule.stages)),
        ("predicted speed-up over one device", None if run.ledger is None else f"{run.ledger.speed_up:.2f}"),
        ("params_sha256", _shown(summary.get("params_sha256"))),
        *((f"version of {name}" if name != "backend" else name, said) for name, said in run.versions.items()),
    ]
    return [(name, str(value)) for name, value in found if value not in (None, "", "None")]


def _score(run: Run, value: Any) -> str:
    return figure(value, run.epochs.form)


def _exits(run: Run) -> Table:
    tests, rows = run.epochs.shown, []
    measured = {row["exit"]: row for row in run.measured.get("exits", [])}
    best = run.summary.get(f"best_{EXITS}{run.epochs.score}", [])
    for i in range(tests.shape[1] if tests.size else 0):
        exit = run.exits[i] if len(run.exits) == tests.shape[1] else i + 1
        row = measured.get(exit, {})
        flops, seconds = row.get("flops"), row.get("seconds")
        rows.append(
            [
                str(exit), _score(run, spread(run.epochs.ended[i])), _score(run, best[i]) if i < len(best) else "",
                "" if flops is None else f"{flops / 1e6:.3f}", "" if seconds is None else f"{1e3 * seconds:.2f}",
            ]
        )  # fmt: skip
    test = f"{run.epochs.split} {run.epochs.words}"
    header = ["exit", f"{test}, last epoch", f"{test}, best epoch on validation", "MFLOP an example", "ms a batch"]
    there = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return Table("Exits", [header[i] for i in there], [[row[i] for i in there] for row in rows])


def _ledger(run: Run) -> Table:
    if run.ledger is None:
        return Table("Ledger", [], [])
    blocks = run.ledger.blocks
    rows = [
        [str(i + 1), row.name, f"{row.effective:,}", f"{row.affiliated:,}", f"{row.flops / 1e6:,.1f}",
         f"{row.message / 1024:,.0f}" if i + 1 < len(blocks) else ""]
        for i, row in enumerate(blocks)
    ]  # fmt: skip
    total = sum(row.flops for row in blocks) / 1e6
    rows.append(["", "all", f"{run.ledger.effective:,}", f"{run.ledger.affiliated:,}", f"{total:,.1f}", ""])
    header = ["block", "name", "effective parameters", "affiliated", "step MFLOP", "hands on KiB"]
    return Table("Ledger", header, rows, run.ledger.parts + ".")


def _stages(run: Run) -> Table:
    if run.ledger is None or len(run.ledger.stages) < 2:
        return Table("Stages", [], [])
    rows = [
        [str(i + 1), f"{row.blocks[0] + 1}-{row.blocks[1]}", f"{row.cost:.1%}", f"{row.params:,}", f"{row.waste:.1%}",
         f"{row.stash / 1024:,.0f}"]
        for i, row in enumerate(run.ledger.stages)
    ]  # fmt: skip
    says = f"Bubble {run.ledger.bubble:.2%} of the time of the run; predicted speed-up {run.ledger.speed_up:.2f}."
    return Table("Stages", ["stage", "blocks", "cost", "parameters", "padding", "stash KiB"], rows, says)


def _records(runs: Sequence[Run]) -> str:
    """What the charts of epochs were drawn from, for programs that read the page."""

    def plain(values: np.ndarray) -> Any:
        wide = values.astype(object)
        wide[~np.isfinite(values.astype(float))] = None  # JSON has no NaN
        return wide.tolist()

    found = {
        run.name: {
            "epoch": plain(run.epochs.epoch),
            "block_loss": plain(run.epochs.loss),
            **{f"{split}_{run.epochs.score}": plain(values) for split, values in run.epochs.scores.items()},
        }
        for run in runs
    }
    return json.dumps(found).replace("<", "\\u003c")


def _shown(value: Any) -> str:
    """A value of a configuration as text.

    Examples:
      >>> _shown((32, 16)), _shown((8,) * 64)
      ('32, 16', '64 times 8')
    """
    if isinstance(value, list | tuple) and len(value) > 4 and len(set(value)) == 1:
        return f"{len(value)} times {value[0]}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
