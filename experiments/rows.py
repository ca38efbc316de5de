"""Some rows of a study's table trained again, and the others kept as the result file has them."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from localgrad.training.workdir import parse_json

ABOUT = ("command", "XLA_FLAGS", "machine", "host", "versions", "commit")  # what `study.provenance` says of a run


def chosen_rows(rows: Iterable[str], words: Sequence[str] | None) -> list[str]:
    """The rows that `--rows` names, each entry one in full or all that have its words in their names.

    Without it they are all of them.

    Raises:
      ValueError: for an entry that names none.

    Examples:
      >>> rows = ["movies bilstm bp", "movies transformer bp", "movies transformer al"]
      >>> chosen_rows(rows, ["transformer bp", "al"])
      ['movies transformer bp', 'movies transformer al']
    """
    rows = list(rows)
    if words is None:
        return rows
    if not words:
        raise ValueError(f"--rows= names none; the rows are {', '.join(rows)}.")
    with_words = lambda entry: [row for row in rows if set(entry.split()) <= set(row.split())]
    named = {entry: [entry] if entry in rows else with_words(entry) for entry in words}
    for entry, those in named.items():
        if not those or not entry.strip():
            raise ValueError(f"--rows={entry}: no row has these words in its name; the rows are {', '.join(rows)}.")
    return [row for row in rows if any(row in those for those in named.values())]


def kept_rows(path: Path, title: str, rows: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of a result file that this run does not train, each with what the file says of its making (`provenance`).

    Raises:
      ValueError: if the file is damaged, or of another table.
    """
    if not rows or not path.exists():
        return {}
    try:
        before = parse_json(path.read_bytes())
    except ValueError:
        before = None
    if not isinstance(before, dict) or not isinstance(before.get("rows"), dict) or "title" not in before:
        raise ValueError(
            f"{path} is damaged, and --rows would keep its other rows: give another --out, or leave it out."
        )
    if before["title"] != title:
        raise ValueError(
            f"--rows replaces rows of a table, and {path} is another one, {before['title']!r} where this run's is "
            f"{title!r}: give another --out, or leave --rows out."
        )
    about = {key: before[key] for key in ABOUT if key in before}
    return {row: {"provenance": about, **before["rows"][row]} for row in rows if row in before["rows"]}


def about_kept(kept: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines of a list, below a table, on the rows that other runs wrote; what differs in `--rows` alone is one line."""
    by: dict[tuple[str, str, int], list[str]] = {}
    for row, summary in kept.items():
        about, digests = summary["provenance"], summary.get("params_sha256")
        trials = len(digests) if isinstance(digests, list) else 1
        words = [word for word in shlex.split(about["command"]) if not re.match("--(rows|trials)=", word)]
        by.setdefault((shlex.join(words), where(about["machine"]), trials), []).append(row)
    return [
        f"- {'; '.join(rows)}: `{command} --rows=...`, {trials} trial{'s' * (trials > 1)} each, on {place}"
        for (command, place, trials), rows in by.items()
    ]


def where(machine: Mapping[str, Any]) -> str:
    """The machine of a `provenance`, in a few words."""
    return machine["device"] if machine["backend"] != "cpu" else f"{machine['cores']} CPU cores"
