"""What `localgrad evaluate` finds of a trained network."""

from collections.abc import Sequence
from typing import Any

from localgrad.evaluation.alignment import aligner
from localgrad.evaluation.exits import anytime, anytime_flops, collect, measure_exits, temperatures
from localgrad.results.opened import Opened

THRESHOLDS = (0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.1)  # confidences of leaving early


def measure(
    run: Opened, *, exits: bool = True, alignment: bool = False, thresholds: Sequence[float] = ()
) -> dict[str, Any]:
    """What the exits of a trained network give and cost.

    Args:
      run: see `open_run`.
      exits: the task's first score, FLOPs and latency at every exit; with thresholds always.
      alignment: the cosines of each block's update, and of feedback, see `aligner`.
      thresholds: confidences at which to leave early, see `anytime`; () does without that curve, which is of classes
        and needs a validation split.

    Returns:
      Lists of plain numbers by name, for JSON: `exits`, `cosine`, `projection_cosine`, `weight_cosine`, `temperatures`
      and `anytime`, each where it was asked for.
    """
    model, states = run.model, run.states
    found: dict[str, Any] = {}
    if exits or thresholds:
        rows = measure_exits(model, states, run.scores, run.labels, run.x)
        score = next(iter(model.task.scores))
        found["exits"] = [{score if key == "score" else key: v for key, v in row._asdict().items()} for row in rows]
    if alignment:
        cosines = aligner(model)(states, run.x, run.y)
        found["cosine"], found["projection_cosine"] = cosines["update"], cosines["projection"]
        found["weight_cosine"] = cosines["weights"]
    if thresholds:
        fitted = temperatures(*collect(model, states, run.batches("validation")))
        curve = anytime(run.scores, run.labels, fitted, anytime_flops(model, states, run.x), thresholds)
        found |= {"temperatures": fitted.tolist(), "anytime": [row._asdict() for row in curve]}
    return found
