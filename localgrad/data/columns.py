"""Inputs and targets out of pairs and dicts, by their usual names or by those that are given."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from localgrad.tasks import Task

X_NAMES = ("x", "input", "inputs", "image", "images", "img", "pixel_values", "data", "features", "input_ids", "tokens")
Y_NAMES = ("y", "label", "labels", "target", "targets", "class", "fine_label")


def pair_of(element: Any, fields: tuple[str, str] | None, what: str) -> tuple[Any, Any]:
    """The inputs and the targets of an element.

    Args:
      element: a pair `(x, y)`, or a mapping with a column of each.
      fields: the names of the two columns; None finds the one that has a usual name.
      what: what it is of, for messages.

    Raises:
      ValueError: it is neither, or which columns are meant cannot be said.

    Examples:
      >>> pair_of({"image": 1, "label": 2, "id": 3}, None, "train")
      (1, 2)
    """
    if isinstance(element, Mapping):
        if fields is not None:
            x, y = fields
            missing = [name for name in fields if name not in element]
            if missing:
                raise ValueError(f"{what} has no column {missing[0]!r}; it has {', '.join(map(str, element))}.")
            return element[x], element[y]
        return element[_one(element, X_NAMES, "inputs", what)], element[_one(element, Y_NAMES, "targets", what)]
    if isinstance(element, tuple | list) and len(element) == 2:
        return element[0], element[1]
    raise ValueError(f"{what} gives a {type(element).__name__}; expected pairs (x, y), or dicts with a column of each.")


def as_column(y: Any, task: Task) -> np.ndarray:
    """Targets as an array; of one number an example to be predicted `(N,)` becomes `(N, 1)`."""
    found = np.asarray(y)
    return found[:, None] if task.name == "regression" and task.outputs == 1 and found.ndim == 1 else found


def _one(element: Mapping[str, Any], names: tuple[str, ...], kind: str, what: str) -> str:
    found = [name for name in names if name in element]
    if len(found) != 1:
        raise ValueError(
            f"which columns of {what} are the {kind}? It has {', '.join(map(str, element))}: say "
            'fields=("inputs", "targets") by their names.'
        )
    return found[0]
