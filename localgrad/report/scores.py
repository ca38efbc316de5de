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


def goodness(record: Mapping[str, Any]) -> float:
    """How good an epoch was by an evaluation, larger is better: the mean over trials, negated where least is best.

    Examples:
      >>> goodness({"mean_squared_error": [0.5, 0.1], "exit_mean_squared_error": [[0.5, 0.1]], "best": "min"})
      -0.3
    """
    value = float(np.mean(record[score_of(record)]))
    return -value if record.get("best") == "min" else value
