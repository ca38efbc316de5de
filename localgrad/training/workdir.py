"""The files of a run besides its checkpoints; every write is atomic or appends a whole line."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Replaces a file by a JSON text, whole or not at all."""
    _replace(path, json.dumps(value, indent=2) + "\n")


def append_records(path: Path, records: list[dict[str, Any]]) -> None:
    """Appends one JSON object a line, and waits until the disk has them."""
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
        file.flush()
        os.fsync(file.fileno())


def rewind_records(path: Path, step: int) -> list[dict[str, Any]]:
    """Cuts the records back to those of `step` batches or fewer, and returns them; a torn last line goes too."""
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if record["step"] <= step:
            kept.append(record)
    _replace(path, "".join(json.dumps(record) + "\n" for record in kept))
    return kept


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
