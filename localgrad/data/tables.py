"""Tables from CSV files: columns of numbers, and one of labels or targets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from localgrad.data.columns import Y_NAMES
from localgrad.data.csv_rows import csv_rows
from localgrad.data.dataset import Dataset
from localgrad.data.files import by_number, expanded, is_number
from localgrad.data.headers import check_names, check_separator, is_header
from localgrad.tasks import Task

_SHOWN = 8  # names of columns in a line for the user


class Table(NamedTuple):
    """A CSV file as text: names of its columns (of one without a header their numbers from 1), and its rows."""

    path: Path
    columns: tuple[str, ...]
    rows: list[list[str]]


def read_table(path: str | Path) -> Table:
    """A CSV file; its first line is a header if any of its cells is no number, see `localgrad.data.headers`.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it has no rows, a row of another length, a column without a name, or two of one name; its cells are
        not separated by commas; or its first line may be a header and may be none.  The message has the line.
    """
    path = expanded(path)
    numbered = [(number, [cell.strip() for cell in row]) for number, row in csv_rows(path, "Give a CSV file")]
    rows = [row for _, row in numbered]
    check_separator(path, rows)
    for number, row in numbered:
        if len(row) != len(rows[0]):
            raise ValueError(f"{path}, line {number}: {len(row)} cells; expected {len(rows[0])}, as in the first line.")
    header = bool(rows) and is_header(path, rows)
    columns = tuple(rows[0]) if header else tuple(str(i + 1) for i in range(len(rows[0]) if rows else 0))
    if not rows[header:]:
        raise ValueError(f"{path} has no rows of numbers.")
    check_names(path, columns)
    return Table(path, columns, rows[header:])


def numbers(table: Table, columns: Sequence[str], dtype: Any = np.float32) -> np.ndarray:
    """Columns of a table as `(N, D)` of a floating type.

    Raises:
      ValueError: there is no such column, or a cell of one is no finite number.
    """
    found = np.empty((len(table.rows), len(columns)), dtype)
    for j, name in enumerate(columns):
        if name not in table.columns:
            raise ValueError(f"{table.path} has no column {name!r}; it has {', '.join(table.columns)}.")
        k = table.columns.index(name)
        for i, row in enumerate(table.rows):
            if not is_number(row[k]) or not np.isfinite(found.dtype.type(row[k])):
                raise ValueError(
                    f"{table.path}, row {i + 1}, column {name}: {row[k]!r}; expected a finite number. Write classes of "
                    "a feature as numbers, or leave the column out."
                )
            found[i, j] = row[k]
    return found


def csv_file(
    path: str | Path,
    *,
    task: Task | None = None,
    label: str | None = None,
    label_names: Sequence[str] | None = None,
    inputs: Sequence[str] | None = None,
) -> Dataset:
    """A CSV file as a set: one column of labels or targets, and all others, of numbers, as inputs.

    Args:
      path: the file, `.csv` or `.csv.gz`.
      task: what is learnt; None, or a classification, reads labels of any text, a regression of one output numbers.
      label: the column of labels; None is the one with a usual name (`label`, `target`, `y`, ...), or else the last.
      label_names: the classes, in order, such as those of the training split; None sorts those that there are.
      inputs: the columns of the inputs, in order, such as those of the training split; None is all others.

    Returns:
      Inputs float32 `(N, D)`, with `columns`, of classes `label_names`, and with a note that says which column is what.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: a cell is no number, or a label is of no class; the message has its row. Or it has several columns of
        a usual name for labels, or the task has other targets than one column holds.
    """
    table = read_table(path)
    numeric = task is not None and task.name != "classification"
    if task is not None and numeric and (task.name != "regression" or task.outputs > 1):
        raise ValueError(
            f"{table.path}: a CSV file has one column of targets, of classes or of numbers for regression(1), and the "
            f"model is for {task.name} of {task.outputs}: give a pair of arrays (x, y)."
        )
    chosen, why = _label_of(table, label, inputs)
    columns = tuple(name for name in table.columns if name != chosen) if inputs is None else tuple(inputs)
    rows = numbers(table, columns)
    found = Dataset(
        table.path.name,
        rows,
        numbers(table, [chosen]) if numeric else np.zeros(len(rows), np.int32),
        task=task,
        columns=columns,
        notes=(_note(table, rows, columns, f"the {'target' if numeric else 'label'} is {chosen!r}, {why}"),),
    )
    return found if numeric else _labelled(found, table, chosen, label_names)


def _label_of(table: Table, label: str | None, inputs: Sequence[str] | None) -> tuple[str, str]:
    """The column of labels or targets, and by what it was chosen."""
    others = [name for name in table.columns if name not in (inputs or ())]
    usual = [name for name in others if name.lower() in Y_NAMES]
    if not others or (inputs is not None and len(others) > 1 and not label and not usual):
        raise ValueError(
            f"{table.path} has the columns {', '.join(table.columns)}, and inputs are {', '.join(inputs or ())}: which "
            'is the label? Name it, fields=("", "name").'
        )
    if label is None and len(usual) > 1:
        raise ValueError(f'{table.path}: is {" or ".join(usual)} the label? Name it, fields=("", "{usual[0]}").')
    if label and label not in table.columns:
        raise ValueError(f"{table.path} has no column {label!r}; it has {', '.join(table.columns)}.")
    if label:
        return label, "as fields say"
    return (usual[0], "by its usual name") if usual else (others[-1], "the last column")


def _labelled(found: Dataset, table: Table, chosen: str, label_names: Sequence[str] | None) -> Dataset:
    """A set with the numbers of its classes for labels."""
    cells = [row[table.columns.index(chosen)] for row in table.rows]
    missing = next((i for i, cell in enumerate(cells) if cell.lower() in ("", "nan")), None)
    if missing is not None:
        told = "is empty" if not cells[missing] else f"is {cells[missing]}"
        raise ValueError(f"{table.path}, row {missing + 1}: column {chosen} {told}; expected a label.")
    classes = tuple(label_names) if label_names is not None else tuple(sorted(set(cells), key=by_number))
    unknown = next(((i, cell) for i, cell in enumerate(cells) if cell not in classes), None)
    if unknown is not None:
        raise ValueError(
            f"{table.path}, row {unknown[0] + 1}: the label {unknown[1]!r} is no class; there are {', '.join(classes)}."
        )
    labels = np.array([classes.index(cell) for cell in cells], np.int32)
    return found._replace(labels=labels, classes=len(classes), task=None, label_names=classes)


def _note(table: Table, rows: np.ndarray, columns: Sequence[str], label: str) -> str:
    """What a user is told of a table before anything is learnt of it."""
    some = [*columns[:_SHOWN], "...", columns[-1]] if len(columns) > _SHOWN + 1 else columns
    counts = [name for name, column in zip(columns, rows.T, strict=True) if _counts(column)]
    more = f" {counts[0]!r} numbers the rows: if it means nothing, leave it out of the file." if counts else ""
    return f"{table.path.name}: inputs are {len(columns)} columns, {', '.join(some)}; {label}.{more}"


def _counts(column: np.ndarray) -> bool:
    """Whether a column is 0, 1, 2, ... or 1, 2, 3, ..., as numbers of rows are."""
    return len(column) > 2 and column[0] in (0, 1) and bool(np.all(np.diff(column) == 1))
