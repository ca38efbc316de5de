"""Inputs and targets out of pairs and dicts, by their usual names or by those that are given."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from localgrad.data.checks import as_array
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


def as_column(y: Any, task: Task, what: str) -> np.ndarray:
    """Targets as an array; of one number an example to be predicted `(N,)` becomes `(N, 1)`.

    Raises:
      ValueError: see `as_array`.
    """
    found = np.asarray(as_array(y, f"{what}: labels"))
    return found[:, None] if task.name == "regression" and task.outputs == 1 and found.ndim == 1 else found


def columns_of(table: Any) -> tuple[str, ...] | None:
    """The names of a table's columns, of what has any, such as a data frame of pandas or polars."""
    names = getattr(table, "column_names", getattr(table, "columns", None))  # pyarrow has the data under the latter
    if len(getattr(table, "shape", ())) != 2 or names is None:
        return None
    return tuple(map(str, names))


def row_names(row: Any) -> tuple[str, ...] | None:
    """The names of the numbers of one row of a table, of a pandas `Series` that has them in words."""
    index = getattr(row, "index", None)
    if len(getattr(row, "shape", ())) != 1 or index is None or callable(index):
        return None
    return tuple(index) if all(isinstance(name, str) for name in index) else None


def check_rows(x: Any, y: Any, what: str) -> None:
    """Refuses inputs and targets that name the same rows in another order; they are paired by their places.

    Raises:
      ValueError: naming them.
    """
    ours, theirs = (getattr(part, "index", None) for part in (x, y))
    if ours is None or theirs is None or callable(ours) or callable(theirs) or len(ours) != len(theirs):
        return
    if not np.array_equal(ours, theirs) and set(ours) == set(theirs):
        raise ValueError(
            f"{what}: inputs and targets have the same index in another order, and are paired by their places: give "
            "targets.loc[inputs.index]."
        )


def in_order(rows: np.ndarray, theirs: Sequence[str], ours: Sequence[str], what: str) -> np.ndarray:
    """Rows of a table `(N, D)` with their columns in the order of training.

    Args:
      rows: numbers.
      theirs: what their columns are called.
      ours: what those of training are called.
      what: what they are, for messages.

    Raises:
      ValueError: they have other columns.

    Examples:
      >>> in_order(np.array([[1, 2]]), ("b", "a"), ("a", "b"), "rows").tolist()
      [[2, 1]]
    """
    if tuple(theirs) == tuple(ours):
        return rows
    if len(set(theirs)) < len(theirs) or set(theirs) != set(ours):
        raise ValueError(f"{what} have the columns {', '.join(theirs)}; training has {', '.join(ours)}.")
    return rows[:, [list(theirs).index(name) for name in ours]]


def _one(element: Mapping[str, Any], names: tuple[str, ...], kind: str, what: str) -> str:
    found = [name for name in names if name in element]
    if len(found) != 1:
        raise ValueError(
            f"which columns of {what} are the {kind}? It has {', '.join(map(str, element))}: say "
            'fields=("inputs", "targets") by their names.'
        )
    return found[0]
