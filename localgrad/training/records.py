"""What is written down of each epoch, and what is read from that."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from localgrad.base import BlockState, PyTree
from localgrad.report import EXITS, draw_curves, score_of
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
    score = next(iter(job.model.task.scores.values()))
    records = [{**where, "split": "train", "block_loss": losses, **details, "examples_per_sec": rate}]
    for split in ("validation", "test"):
        record: dict[str, Any] = {**where, "split": split}
        for name, by_exit in evaluate(states, job.eval_batches(split)).items():
            record |= {name: by_exit[-1].tolist(), EXITS + name: by_exit.tolist()}
        records.append(record if score.best == "max" else {**record, "best": score.best})
    return records


def epoch_line(records: list[dict[str, Any]], epochs: int, task: Task) -> str:
    """An epoch in one line, for the log."""
    train, validation, test = records
    name = score_of(validation)
    show = lambda record: in_words(np.mean(record[name]), task)
    losses = " ".join(f"{np.mean(loss):.3g}" for loss in train["block_loss"])
    return (
        f"epoch {train['epoch']}/{epochs}  loss by block {losses}  validation {show(validation)}  test {show(test)}  "
        f"{train['examples_per_sec']:,.0f} examples/s"
    )


def in_words(value: float, task: Task) -> str:
    """A mean of the task's first score, as lines and tables show it.

    Examples:
      >>> in_words(97.666, classification(10)), in_words(0.012345, regression())
      ('97.67 %', '0.01235')
    """
    return f"{value:.2f} %" if next(iter(task.scores.values())).percent else f"{value:.4g}"


def epoch_postfix(records: list[dict[str, Any]], task: Task) -> str:
    """An epoch in a few words, for the progress bar."""
    train, validation, _ = records
    losses = ", ".join(f"{np.mean(loss):.2g}" for loss in train["block_loss"])
    shown = in_words(np.mean(validation[score_of(validation)]), task)
    return f"{train['examples_per_sec']:,.0f} ex/s, loss {losses}, val {shown}"


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
