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
    """How good an epoch was by an evaluation, larger is better: the mean over trials, negated where least is best.

    Examples:
      >>> goodness({"mean_squared_error": [0.5, 0.1], "exit_mean_squared_error": [[0.5, 0.1]], "best": "min"})
      -0.3
    """
    value = float(np.mean(record[score_of(record)]))
    return -value if record.get("best") == "min" else value
