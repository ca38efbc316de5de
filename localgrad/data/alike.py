"""What all splits of a run, and what it predicts on, must have alike: types, columns, classes and words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from localgrad.data.checks import check_kind
from localgrad.data.dataset import Dataset
from localgrad.data.streams import Stream


def columns_of(table: Any) -> tuple[str, ...] | None:
    """The names of a table's columns, of what has any, such as a data frame of pandas or polars."""
    names = getattr(table, "columns", None)
    if len(getattr(table, "shape", ())) != 2 or names is None:
        return None
    return tuple(map(str, names))


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


def alike(split: Dataset | Stream, like: Dataset) -> Dataset | Stream:
    """A split as a network that is trained on another one takes it; a loader looks at each batch when it comes.

    Args:
      split: any split.
      like: the training split, or a set like it.

    Returns:
      The split, its columns in the order of training.

    Raises:
      ValueError: it has bytes where training has floats, or the other way round; other columns; or other names for the
        classes, other words, or other targets, for the same numbers.
    """
    if isinstance(split, Stream):
        return replace(split, trained_on=like.inputs.dtype)
    check_kind(split.inputs.dtype, like.inputs.dtype, f"{split.name}: inputs")
    for theirs, ours, what in (
        (split.label_names, like.label_names, "classes"),
        (split.words, like.words, "words"),
        (split.targets, like.targets, "targets"),
    ):
        if theirs is not None and ours is not None and tuple(theirs) != tuple(ours):
            raise ValueError(
                f"{split.name}: its {what} are {_some(theirs)}, and those of training {_some(ours)}: the same numbers "
                "mean something else. Number both alike."
            )
    if split.columns is None or like.columns is None:
        return split
    inputs = in_order(split.inputs, split.columns, like.columns, f"{split.name}: inputs")
    return split._replace(inputs=inputs, columns=like.columns)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
