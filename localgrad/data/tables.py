"""Tables from CSV files: columns of numbers, and one of labels or targets."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from localgrad.data.columns import Y_NAMES
from localgrad.data.dataset import Dataset
from localgrad.data.files import expanded, is_number, lines
from localgrad.tasks import Task


class Table(NamedTuple):
    """A CSV file as text: names of its columns (of one without a header their numbers from 1), and its rows."""

    path: Path
    columns: tuple[str, ...]
    rows: list[list[str]]


def read_table(path: str | Path) -> Table:
    """A CSV file; its first line is a header if any of its cells is no number.

    Beside numbers such a cell must not be there again further down, as a class would be.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it has no rows, a row of another length, or two columns of one name; the message has its line. Or its
        first line may be a header and may be none.
    """
    path = expanded(path)
    numbered = [(number, line) for number, line in lines(path, "Give a CSV file") if line.strip()]
    rows = [[cell.strip() for cell in row] for row in csv.reader(line for _, line in numbered)]
    for (number, _), row in zip(numbered, rows, strict=False):
        if len(row) != len(rows[0]):
            raise ValueError(f"{path}, line {number}: {len(row)} cells; expected {len(rows[0])}, as in the first line.")
    header = bool(rows) and _is_header(path, rows)
    columns = tuple(rows[0]) if header else tuple(str(i + 1) for i in range(len(rows[0]) if rows else 0))
    if not rows[header:]:
        raise ValueError(f"{path} has no rows of numbers.")
    if twice := [name for i, name in enumerate(columns) if name in columns[:i]]:
        raise ValueError(f"{path} has two columns {twice[0]!r}: give each a name of its own.")
    return Table(path, columns, rows[header:])


def _is_header(path: Path, rows: Sequence[Sequence[str]]) -> bool:
    first = [is_number(cell) for cell in rows[0]]
    found = [cell for cell, number in zip(rows[0], first, strict=True) if number]
    counted = len(found) > 2 and found == [str(i) for i in range(len(found))]  # as pandas names columns
    if all(first):
        if counted:
            raise ValueError(
                f"{path}: its first line is {', '.join(found[:3])}, ...: if that is a header, give names that are no "
                "numbers; if it is an example, put another one first."
            )
        return False
    texts = [k for k, number in enumerate(first) if not number]
    again = any(row[k] == rows[0][k] for k in texts for row in rows[1:])  # as a class is there again, and no name
    return counted or not found or not again


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
      task: what is learnt; None, or a classification, reads labels of any text, another task numbers.
      label: the column of labels; None is the one with a usual name (`label`, `target`, `y`, ...), or else the last.
      label_names: the classes, in order, such as those of the training split; None sorts those that there are.
      inputs: the columns of the inputs, in order, such as those of the training split; None is all others.

    Returns:
      Inputs float32 `(N, D)`, with `columns`, and of classes `label_names`.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: a cell is no number, or a label is of no class; the message has its row. Or it has several columns of
        a usual name for labels.
    """
    table = read_table(path)
    others = [name for name in table.columns if name not in (inputs or ())]
    usual = [name for name in others if name.lower() in Y_NAMES]
    if not others or (inputs is not None and len(others) > 1 and not label and not usual):
        raise ValueError(
            f"{table.path} has the columns {', '.join(table.columns)}, and inputs are {', '.join(inputs or ())}: which "
            'is the label? Name it, fields=("", "name").'
        )
    if label is None and len(usual) > 1:
        raise ValueError(f'{table.path}: is {" or ".join(usual)} the label? Name it, fields=("", "{usual[0]}").')
    chosen = label or (usual[0] if usual else others[-1])
    if chosen not in table.columns:
        raise ValueError(f"{table.path} has no column {chosen!r}; it has {', '.join(table.columns)}.")
    columns = tuple(name for name in table.columns if name != chosen) if inputs is None else tuple(inputs)
    rows = numbers(table, columns)
    name = table.path.name
    if task is not None and task.name != "classification":
        return Dataset(name, rows, numbers(table, [chosen]), task=task, columns=columns)
    cells = [row[table.columns.index(chosen)] for row in table.rows]
    if "" in cells:
        raise ValueError(f"{table.path}, row {cells.index('') + 1}: column {chosen} is empty; expected a label.")
    classes = tuple(label_names) if label_names is not None else tuple(sorted(set(cells), key=_by_number))
    unknown = next(((i, cell) for i, cell in enumerate(cells) if cell not in classes), None)
    if unknown is not None:
        raise ValueError(
            f"{table.path}, row {unknown[0] + 1}: the label {unknown[1]!r} is no class; there are {', '.join(classes)}."
        )
    labels = np.array([classes.index(cell) for cell in cells], np.int32)
    return Dataset(name, rows, labels, len(classes), label_names=classes, columns=columns)


def _by_number(text: str) -> tuple[int, float, str]:
    return (0, float(text), text) if is_number(text) else (1, 0.0, text)
