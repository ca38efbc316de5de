"""Whether the first line of a CSV file names its columns, and which names are none."""

import re
from collections.abc import Sequence
from pathlib import Path

from localgrad.data.files import is_number

MISSING = ("", "?", "-", "na", "n/a", "#n/a", "nan", "nil", "null", "none")  # how tables write what is missing
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_LOOKED_AT = 5  # rows by which separators are known
_INDEX = re.compile(r"unnamed: \d+(\.\d+)?")  # what pandas calls a column without a name when it reads one


def check_separator(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Refuses a table whose cells are separated by something else than commas.

    Args:
      path: the file, for messages.
      rows: of cells, as commas separate them.

    Raises:
      ValueError: naming the separator that was found.
    """
    head = [",".join(row) for row in rows[:_LOOKED_AT]]
    for mark, name in _SEPARATORS.items():
        if head and len(rows[0]) == 1 and all(mark in line for line in head):
            raise ValueError(
                f"{path}: its cells are separated by {name}; expected commas: write it with commas, and decimal points "
                "in numbers, as to_csv(path, index=False) of a data frame does."
            )


def is_header(path: Path, rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row of a table names its columns: it does if any of its cells is no number.

    Beside numbers such a cell must not be there again further down, as a class would be.

    Args:
      path: the file, for messages.
      rows: all rows of the table, at least one.

    Raises:
      ValueError: it may be a header and may be an example.
    """
    texts = [(k, cell) for k, cell in enumerate(rows[0]) if not is_number(cell)]
    found = [cell for cell in rows[0] if is_number(cell)]
    counted = len(found) > 2 and found == [str(i) for i in range(len(found))]  # as pandas names columns
    if counted and not texts:
        raise _ambiguous(path, rows[0])
    if counted or not texts:
        return counted
    again = {cell for k, cell in texts if any(row[k] == cell for row in rows[1:])}
    header = not found or not again
    like_an_example = not found and any(
        cell.lower() not in MISSING for cell in again
    )  # a class, and a gap for a number
    if header and (found or like_an_example) and any(cell.lower() in MISSING for cell in rows[0]):
        raise _ambiguous(path, rows[0])
    return header


def check_names(path: Path, columns: Sequence[str]) -> None:
    """Refuses names of columns by which no column can be chosen.

    Args:
      path: the file, for messages.
      columns: the names in a header.

    Raises:
      ValueError: a column has no name, or one that pandas makes up for such, or the name of another one.
    """
    for i, name in enumerate(columns):
        if not name or _INDEX.fullmatch(name.lower()):
            found = f"is called {name!r}" if name else "has no name"
            raise ValueError(
                f"{path}: column {i + 1} {found}, as the numbers of rows that a data frame writes beside its columns: "
                "write it with index=False (in R, row.names=FALSE), or give the column a name if it is an input."
            )
        if name in columns[:i]:
            raise ValueError(f"{path} has two columns {name!r}: give each a name of its own.")


def _ambiguous(path: Path, first: Sequence[str]) -> ValueError:
    shown = ", ".join(cell or "(nothing)" for cell in first[:3]) + (", ..." if len(first) > 3 else "")
    return ValueError(
        f"{path}: its first line is {shown}: if that is a header, give names that are no numbers; if it is an example, "
        "fill in what is missing, or put another one first."
    )
