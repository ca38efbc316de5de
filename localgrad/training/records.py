"""What is written down of each epoch, and what is read from that."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from localgrad.base import BlockState, PyTree
from localgrad.report import EXITS, draw_curves, form_of, goodness, score_of, unit_of
from localgrad.tasks import Task
from localgrad.training.job import Job
from localgrad.training.meter import Meter


def epoch_records(
    job: Job, step: int, meter: Meter, rate: float, states: tuple[BlockState, ...], evaluate: Callable
) -> list[dict[str, Any]]:
    """One record of training and one of each evaluation; with trials each figure is a list over them."""
    means = meter.means(job.source.steps_per_epoch)
    where = {"step": step, "epoch": step // job.source.steps_per_epoch}
    keys = dict.fromkeys(key for block in means for key in block if key != "loss")  # blocks may report different ones
    details = {key: [block[key].tolist() if key in block else None for block in means] for key in keys}
    losses = [block["loss"].tolist() for block in means]
    records = [{**where, "split": "train", "block_loss": losses, **details, "examples_per_sec": rate}]
    score = next(iter(job.model.task.scores.values()))
    for split in job.evaluated:
        record: dict[str, Any] = {**where, "split": split}
        for name, by_exit in evaluate(states, job.eval_batches(split)).items():
            record |= {name: by_exit[-1].tolist(), EXITS + name: by_exit.tolist()}
        records.append(record if score.best == "max" else {**record, "best": score.best})
    return records


def past_its_best(records: Sequence[dict[str, Any]], stop_after: int | None) -> bool:
    """Whether so many epochs have gone by since validation was best (the first of equals).

    Examples:
      >>> values = (50.0, 70.0, 60.0, 70.0)
      >>> seen = [{"split": "validation", "accuracy": value, "exit_accuracy": [value]} for value in values]
      >>> [past_its_best(seen, stop_after) for stop_after in (None, 2, 3)]
      [False, True, False]
    """
    found = [goodness(record) for record in records if record["split"] == "validation"]
    if stop_after is None or not found:
        return False
    return len(found) - 1 - int(np.argmax(found)) >= stop_after


def epoch_line(records: list[dict[str, Any]], epochs: int, task: Task, seconds_left: float) -> str:
    """An epoch in one line, for the log; of many blocks the losses of some."""
    train, *evaluated = records
    figures = "".join(f"{record['split']} {_figure(record, task)}  " for record in evaluated)
    left = f"  {_clock(seconds_left)} left" if 1 < train["epoch"] < epochs else ""  # the first compiles
    return (
        f"epoch {train['epoch']}/{epochs}  loss by block {_losses(train)}  {figures}"
        f"{train['examples_per_sec']:,.0f} examples/s{left}"
    )


def in_words(value: float, task: Task) -> str:
    """A mean of the task's first score, as lines and tables show it.

    Examples:
      >>> from localgrad.tasks import classification, regression
      >>> in_words(97.666, classification(10)), in_words(0.012345, regression())
      ('97.67 %', '0.01235')
    """
    percent = next(iter(task.scores.values())).percent
    return f"{value:{form_of(percent)}}{unit_of(percent)}"


def epoch_postfix(records: list[dict[str, Any]], task: Task) -> str:
    """An epoch in a few words, for the progress bar."""
    train, *evaluated = records
    figures = "".join(f", val {_figure(record, task)}" for record in evaluated if record["split"] == "validation")
    return f"{train['examples_per_sec']:,.0f} ex/s, loss {_losses(train, 4)}{figures}"


def _losses(train: dict[str, Any], most: int = 12) -> str:
    """Losses from the first block to the last; of more than `most` some of them, evenly spread, with dots between.

    Examples:
      >>> _losses({"block_loss": [0.5, 0.25]}), _losses({"block_loss": list(range(1, 65))}, 4)
      ('0.5 0.25', '1 .. 22 .. 43 .. 64')
    """
    losses = [float(np.mean(loss)) for loss in train["block_loss"]]
    if len(losses) <= most:
        return " ".join(f"{loss:.3g}" for loss in losses)
    places = np.linspace(0, len(losses) - 1, min(most, 8)).round().astype(int)
    return " .. ".join(f"{losses[i]:.3g}" for i in places)


def _figure(record: dict[str, Any], task: Task) -> str:
    return in_words(float(np.mean(record[score_of(record)])), task)


def _clock(seconds: float) -> str:
    """Seconds as people read them.

    Examples:
      >>> _clock(4.2), _clock(75), _clock(7322)
      ('4 s', '1:15 min', '2:02 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02} h"


def curves(records: Sequence[dict[str, Any]]) -> bytes:
    """The content of `curves.png`."""
    drawn = io.BytesIO()
    draw_curves(records, drawn)
    return drawn.getvalue()


def steady_rate(records: Sequence[dict[str, Any]]) -> float:
    """Examples a second, the median over the epochs; the first compiles."""
    rates = [record["examples_per_sec"] for record in records if record["split"] == "train"]
    return float(np.median(rates[1:] or rates)) if rates else 0.0


def made_on(found: dict[str, Any]) -> dict[str, Any]:
    """On how many stages, and by which versions, a checkpoint was made, by its manifest."""
    return {"stages": found["config"]["stages"], "versions": found["versions"]}


def by_trial(states: PyTree, trials: int | None) -> list[PyTree]:
    """The states of each trial of a batched model, or those of the one that there is."""
    return [states] if trials is None else [jax.tree.map(lambda x, t=t: x[t], states) for t in range(trials)]
