"""Rows of CSV files, cell by cell: the one reader of all tables, which refuses what it would have to guess."""

import csv
from collections.abc import Iterator
from pathlib import Path

from localgrad.data.files import lines

CSV_ENDINGS = (".csv", ".csv.gz")


def is_csv(name: str) -> bool:
    """Whether a file is a CSV file by the end of its name, in letters of either case."""
    return name.lower().endswith(CSV_ENDINGS)


def csv_rows(path: Path, remedy: str = "Fetch the file again") -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, each with the number of the line that it begins in; empty lines are passed over.

    A cell in quotes may hold commas, quotes written twice, and breaks of lines, which are kept as line feeds. Spaces
    behind a comma do not belong to a cell.

    Args:
      path: the file, gzipped if its name ends in `.gz`.
      remedy: what the user can do about a file that cannot be read.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it is no text, or a quote is never closed, or stands where none can; the message has its line.
    """
    taken: list[tuple[int, str]] = []  # the lines of one row, which are several where a cell has breaks of lines

    def with_ends() -> Iterator[str]:
        for number, line in lines(path, remedy):
            taken.append((number, line))
            yield f"{line}\n"

    try:
        for row in csv.reader(with_ends(), strict=True, skipinitialspace=True):
            if any(line.strip() for _, line in taken):
                yield taken[0][0], row
            taken.clear()
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {taken[0][0]}: the row that begins here is none of a CSV file ({error}). A quote that opens "
            "a cell is closed before the next comma or the end of the line, a quote within such a cell is written "
            "twice, and lines end in line feeds: mend the row."
        ) from None
