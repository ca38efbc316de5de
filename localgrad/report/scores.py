"""What records of an epoch say of how good predictions were; the task's first score is the one that counts."""

from collections.abc import Mapping
from typing import Any

import numpy as np

EXITS = "exit_"  # before the name of a score: its value at every exit


def score_of(record: Mapping[str, Any]) -> str:
    """The name of the score that chooses the best epoch, in a record of an evaluation.

    Examples:
      >>> score_of({"epoch": 1, "split": "test", "accuracy": 90.0, "exit_accuracy": [80.0, 90.0]})
      'accuracy'
    """
    return next(key for key in record if EXITS + key in record)


def form_of(percent: bool) -> str:
    """How a number of a score is written.

    Examples:
      >>> f"{97.666:{form_of(True)}}", f"{0.012345:{form_of(False)}}"
      ('97.67', '0.01235')
    """
    return ".2f" if percent else ".4g"


def unit_of(percent: bool) -> str:
    """What stands behind a number of a score, or behind its name."""
    return " %" if percent else ""


def with_unit(score: str, percent: bool) -> str:
    """What a score is called above a column or beside an axis.

    Examples:
      >>> with_unit("exit_accuracy", True), with_unit("mean_squared_error", False)
      ('exit accuracy, %', 'mean squared error')
    """
    return score.replace("_", " ") + (", %" if percent else "")


def goodness(record: Mapping[str, Any]) -> float:
    """How good an epoch was by an evaluation, larger is better: that of the mean over trials, see `better`.

    Examples:
      >>> goodness({"mean_squared_error": [0.5, 0.1], "exit_mean_squared_error": [[0.5, 0.1]], "best": "min"})
      -0.3
    """
    return better(float(np.mean(record[score_of(record)])), record.get("best", "max"))


def better(value: float, best: str) -> float:
    """A score as a number of which the largest is the best: negated where the least is; no number is worse than any.

    NumPy's `argmax` takes a NaN for the largest, and Python's `max` the one that it meets first, so whatever chooses
    among scores chooses among these.

    Args:
      value: of the score.
      best: `max` or `min`, see `localgrad.tasks.Score`.

    Examples:
      >>> better(0.9, "max"), better(0.2, "min"), better(float("nan"), "min")
      (0.9, -0.2, -inf)
    """
    if np.isnan(value):
        return -np.inf
    return -value if best == "min" else value
