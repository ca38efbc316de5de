"""Tables of a report: as values, as text of their cells, and as Markdown."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Table(NamedTuple):
    """A table of the page: its heading, the names of its columns, its rows as text, and a sentence below."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    says: str = ""

    def markdown(self) -> str:
        """The table under its heading.

        Examples:
          >>> print(Table("Exits", ["exit", "test %"], [["1", "90.00"]], "After the last epoch.").markdown())
          ### Exits
          <BLANKLINE>
          | exit | test % |
          |---|---|
          | 1 | 90.00 |
          <BLANKLINE>
          After the last epoch.
        """
        line = lambda cells: "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        lines = [line(self.header), "|" + "---|" * len(self.header), *map(line, self.rows)]
        return "\n\n".join([f"### {self.title}", "\n".join(lines), *([self.says] if self.says else [])])


def figure(value: Any, form: str = ",.2f") -> str:
    """A number, or the mean and deviation of several trials, as text.

    Examples:
      >>> figure(90.125), figure({"mean": 90.0, "std": 0.5}), figure(None)
      ('90.12', '90.00 ± 0.50', '')
    """
    if value is None:
        return ""
    if isinstance(value, dict):
        return f"{value['mean']:{form}} ± {value['std']:{form}}"
    return f"{value:{form}}"


def spread(values: np.ndarray) -> Any:
    """One number, or the mean and the sample deviation of several, as a summary has them."""
    if len(values) == 1:
        return float(values[0])
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}
