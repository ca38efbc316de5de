"""The charts of a page: of one run, and of several in one."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from localgrad.report.cells import grid
from localgrad.report.facts import Run
from localgrad.report.svg import Line, Numbers, bars, chart, colour
from localgrad.report.timeline import timeline

_FEW_CLASSES = 14  # whose confusion stands beside other charts
_MANY = 8  # more lines than that have a scale in place of a legend


class Figure(NamedTuple):
    """A chart with what stands beside it.

    Attributes:
      title: its heading.
      drawn: an `svg` element.
      legend: `(name, colour, style)` of each line; the style is solid, dashed or dotted.
      scale: the names of the first and the last of many lines, whose colours are a scale; () where each has a legend.
      says: a sentence below it.
      wide: it may be wider than the page, and is moved within its frame.
    """

    title: str
    drawn: str
    legend: tuple[tuple[str, str, str], ...] = ()
    scale: tuple[str, ...] = ()
    says: str = ""
    wide: bool = False


def curves(run: Run) -> list[Figure]:
    """Losses, scores and rates of a run over its epochs."""
    epochs, found = run.epochs, []
    blocks, exits = _blocks(run), _exits(run)
    found.append(_over("Training loss by block", epochs.epoch, epochs.loss, blocks, "loss", log=True))
    shown, validation = epochs.shown, epochs.scores["validation"]
    lines = _lines(epochs.evaluated[epochs.split], shown, [f"{name}, {epochs.split}" for name in exits])
    if validation.size and epochs.split == "test":
        last = _lines(epochs.evaluated["validation"], validation[:, -1:], [f"{exits[-1]}, validation"])
        lines += [last[0]._replace(dashed=True, colour="currentColor")]
    title = f"{_words(run).capitalize()} by exit"
    found.append(_figure(title, lines, "epoch", epochs.words, many=shown.shape[1]))
    if shown.shape[1] > 1:
        found.append(_by_exit([run], [colour(0, 1)]))
    rate = [Line("examples a second", epochs.epoch, epochs.rate)]
    found.append(_figure("Speed", rate, "epoch", "examples a second"))
    if epochs.loss.shape[1] > _MANY:
        found.append(_cells("Training loss, block by epoch", epochs.epoch, epochs.loss, blocks))
    return [figure for figure in found if figure.drawn]


def more_curves(run: Run) -> list[Figure]:
    """Whatever else was written down of each block."""
    found = [
        _over(name.replace("_", " "), run.epochs.epoch, values, _blocks(run), name.replace("_", " "))
        for name, values in run.epochs.more.items()
    ]
    return [figure for figure in found if figure.drawn]


def compared(runs: Sequence[Run]) -> list[Figure]:
    """Several runs together: their score over epochs and by exit, of the runs that have the first one's score."""
    shades = [colour(i, len(runs)) for i in range(len(runs))]
    first = runs[0].epochs
    alike = [run.epochs.score == first.score for run in runs]
    shades, runs = list(itertools.compress(shades, alike)), list(itertools.compress(runs, alike))
    lines = []
    for run, shade in zip(runs, shades, strict=True):
        shown, epochs = run.epochs.shown, run.epochs.evaluated[run.epochs.split]
        if shown.size:
            lines += [line._replace(colour=shade) for line in _lines(epochs, shown[:, -1:], [run.name])]
    found = [
        _figure(f"{_split(runs)} {_words(runs[0])} at the last exit", lines, "epoch", first.words),
        _by_exit(runs, shades),
    ]
    anytime = [line for run, shade in zip(runs, shades, strict=True) for line in _anytime(run, shade, run.name)]
    found.append(_figure("Leaving early", anytime, "MFLOP an example", "test accuracy, %"))
    legend = tuple((run.name, shade, "solid") for run, shade in zip(runs, shades, strict=True))
    return [figure._replace(legend=legend) for figure in found if figure.drawn]


def costs(run: Run) -> list[Figure]:
    """What each block has and costs, and the pipeline's timeline."""
    found = []
    if run.ledger is not None:
        rows = run.ledger.blocks
        names = [f"block {i + 1} ({row.name})" for i, row in enumerate(rows)]
        sizes = [("effective", [row.effective for row in rows]), ("affiliated", [row.affiliated for row in rows])]
        legend = tuple((name, colour(i, 2), "solid") for i, (name, _) in enumerate(sizes))
        drawn = bars(names, sizes, title="Parameters by block", y="parameters")
        found.append(Figure("Parameters by block", drawn, legend))
        flops = [("step", [row.flops / 1e6 for row in rows])]
        found.append(Figure("Cost of a step by block", bars(names, flops, title="Cost by block", y="MFLOP")))
    if run.plan is not None:
        drawn, batches, columns = timeline(run.plan.schedule, run.plan.cuts, run.batches)
        schedule = run.plan.schedule
        total = schedule.ticks(batches)
        how = "all of its ticks" if columns == total else f"the first {columns} of {total} ticks"
        says = (
            f"Schedule {schedule.name}: the first {batches} batches, {how}. A row is a stage, a column a tick. Where a "
            "cell is pale a batch passes and the stage learns from it later; where it is full the stage learns. "
            + ("Numbers are those of a batch's parts." if schedule.parts > 1 else "Numbers are those of batches.")
        )
        found.append(Figure("Timeline of the pipeline", drawn, says=says, wide=True))
    return found


def evaluated(run: Run) -> list[Figure]:
    """What was found on the test split: leaving early, alignment, and the confusion of classes."""
    found = []
    if "anytime" in run.measured:
        lines = _anytime(run, colour(0, 2), "leaving by confidence")
        rows = run.measured["exits"]
        fixed = [row["flops"] / 1e6 for row in rows], [row["accuracy"] for row in rows]
        lines.append(Line("every example at one exit", *fixed, colour=colour(1, 2), dots=True))
        found.append(_figure("Leaving early", lines, "MFLOP an example", "test accuracy, %"))
    named = {"cosine": "update", "projection_cosine": "a B^T with the scores", "weight_cosine": "B^T with the weights"}
    lines = []
    for i, (key, name) in enumerate(named.items()):
        values = run.measured.get(key, [])
        if any(value is not None for value in values):
            numbers = [np.nan if value is None else value for value in values]
            lines.append(Line(name, range(1, len(values) + 1), numbers, colour(i, 3)))
    figure = _figure("Alignment by block", lines, "block", "cosine")
    if lines:
        found.append(figure._replace(says="Of each block's own update with the true gradient of the same step."))
    if run.seen is not None:
        names = run.seen.classes
        drawn = grid(
            run.seen.confusion, title="Confusion of classes", rows=names, columns=names, cell="examples", log=False
        )
        says = "A row is a label and a column what the last exit predicts, on the test split."
        found.append(Figure("Confusion of classes", drawn, says=says, wide=len(names) > _FEW_CLASSES))
    return [figure for figure in found if figure.drawn]


def _by_exit(runs: Sequence[Run], shades: Sequence[str]) -> Figure:
    """The score of each exit, after the last epoch."""
    lines = []
    for run, shade in zip(runs, shades, strict=True):
        shown = run.epochs.shown
        if shown.size:
            exits = run.exits if len(run.exits) == shown.shape[1] else range(1, shown.shape[1] + 1)
            (line,) = _lines(exits, run.epochs.ended[:, None], [run.name])
            lines.append(line._replace(colour=shade))
    return _figure(f"{_split(runs)} {_words(runs[0])} by exit, last epoch", lines, "exit", runs[0].epochs.words)


def _anytime(run: Run, shade: str, name: str) -> list[Line]:
    rows = run.measured.get("anytime", [])
    return [Line(name, [row["flops"] / 1e6 for row in rows], [row["accuracy"] for row in rows], shade)] if rows else []


def _over(
    title: str, epochs: np.ndarray, values: np.ndarray, names: Sequence[str], y: str, log: bool = False
) -> Figure:
    """A line for each block over epochs."""
    return _figure(title, _lines(epochs, values, names), "epoch", y, log, values.shape[1])


def _lines(x: Numbers, values: np.ndarray, names: Sequence[str]) -> list[Line]:
    """A line for each column of `(X, lines, trials)`, the mean of trials with a band of a deviation."""
    found = []
    for i, name in enumerate(names):
        column = values[:, i].astype(float)
        mean, low, high = column.mean(axis=1), None, None
        if column.shape[1] > 1:
            deviation = column.std(axis=1, ddof=1)
            low, high = mean - deviation, mean + deviation
        found.append(Line(name, x, mean, colour(i, len(names)), False, low, high))
    return found


def _figure(title: str, lines: Sequence[Line], x: str, y: str, log: bool = False, many: int = 0) -> Figure:
    """A chart with a legend, or, of many lines, with a scale of colours."""
    drawn = chart(lines, title=title, x=x, y=y, log=log)
    if many > _MANY:
        return Figure(title, drawn, tuple(map(_key, lines[many:])), (lines[0].name, lines[many - 1].name))
    return Figure(title, drawn, tuple(map(_key, lines)) if len(lines) > 1 else ())


def _key(line: Line) -> tuple[str, str, str]:
    """A line as the legend has it."""
    return line.name, line.colour, "dotted" if line.dots else "dashed" if line.dashed else "solid"


def _cells(title: str, epochs: np.ndarray, values: np.ndarray, names: Sequence[str]) -> Figure:
    """Blocks by epochs as cells, of at most 60 epochs."""
    chosen = np.unique(np.linspace(0, len(epochs) - 1, min(60, len(epochs))).astype(int))
    mean = values[chosen].mean(axis=2).T
    columns = [f"{epoch:g}" for epoch in epochs[chosen]]
    drawn = grid(mean, title=title, rows=names, columns=columns, cell="loss", log=True)
    return Figure(title, drawn, says="The stronger the colour, the larger the loss, by its logarithm.", wide=True)


def _split(runs: Sequence[Run]) -> str:
    return runs[0].epochs.split.capitalize()


def _words(run: Run) -> str:
    return run.epochs.score.replace("_", " ")


def _blocks(run: Run) -> list[str]:
    return [f"block {i + 1}" for i in range(run.epochs.loss.shape[1])]


def _exits(run: Run) -> list[str]:
    count = run.epochs.shown.shape[1]
    return [f"exit {exit}" for exit in (run.exits if len(run.exits) == count else range(1, count + 1))]
