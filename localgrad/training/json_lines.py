"""`calls.jsonl`: a row a call of the engine, in a form that shows when something happened to it.

A row is an object on a line of its own, with `since`, the batches that had been fed before the call, and `crc32`, a
checksum of the line without it.  So a changed row is noticed, and so are lost rows: the next one begins after the last
one ended.  Rows of calls are in no checkpoint and cannot be made again; the log says which are lost.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from localgrad.training.workdir import append_records, as_lines, folder_of, is_local, parse_json, write_bytes

Row = Mapping[str, Any]


class JsonLines:
    """A tracker that keeps rows of calls in a file; rows of an epoch stand in `metrics.jsonl`.

    Args:
      path: the file; of a run that goes on, its rows up to there are kept.
      log: takes a line of text for the user.
    """

    def __init__(self, path: str | PathLike, log: Callable[[str], None] = print):
        self.path, self._log = folder_of(path), log
        self._waiting: list[dict[str, Any]] = []
        self._step = 0

    def start(self, run: Row, step: int) -> None:
        """Keeps the sound rows up to a step, and tells of those that are lost."""
        content = as_lines(self.review(step))
        if not self.path.exists() or self.path.read_bytes() != content:
            write_bytes(self.path, content)
        self._step = step

    def review(self, step: int) -> list[dict[str, Any]]:
        """The sound rows up to a step; tells of those that are lost."""
        content = self.path.read_bytes() if self.path.exists() else b""
        found = {row["step"]: row for row in filter(None, map(_sound, content.split(b"\n")))}
        rows = [row for end, row in sorted(found.items()) if end <= step]
        ends = [0, *(row["step"] for row in rows)]
        begins = [*(row["since"] for row in rows), step]
        lost = [f"{end + 1} to {begin}" for end, begin in zip(ends, begins, strict=True) if begin > end]
        if lost:
            self._log(f"{self.path} lacks its rows of batches {', '.join(lost)}: they are damaged or lost")
        return rows

    def call(self, row: Row) -> None:
        self._waiting.append(_sealed({**row, "since": self._step}))
        self._step = row["step"]
        if is_local(self.path):
            self.close()

    def epoch(self, row: Row) -> None:
        self.close()

    def close(self) -> None:
        """Writes what waits: an object of a cloud cannot grow, and is written once an epoch."""
        if self._waiting:
            append_records(self.path, self._waiting, lasting=False)
            self._waiting = []


def _sealed(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "crc32": zlib.crc32(json.dumps(row).encode())}


def _sound(line: bytes) -> dict[str, Any] | None:
    """The row of a line, or None of one that is torn or damaged."""
    try:
        row = parse_json(line)
        bare = {name: value for name, value in row.items() if name != "crc32"}
        return row if as_lines([_sealed(bare)]) == line + b"\n" else None
    except (ValueError, AttributeError):
        return None
