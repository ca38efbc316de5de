"""The files of a run besides its checkpoints; a folder of this machine, or of a cloud (`gs://...`).

On a disk every write is whole or not at all, and on the disk when it returns.  A cloud's objects are so by themselves.
Nothing is written through a symbolic link that leads out of the folder.
"""

import json
import os
from collections.abc import Callable
from typing import Any

from etils import epath

CALLS = "calls.jsonl"
_OWN = (
    "config.json", "model.json", "plan.json", "metrics.jsonl", CALLS, "summary.json", "curves.png",
    "checkpoints", ".lock",
)  # fmt: skip


def folder_of(name: str | os.PathLike) -> epath.Path:
    """A folder by name: `~` is the user's home, `gs://bucket/...` is in a cloud.

    Raises:
      ValueError: there is no home of that name; a folder that is called `~name` is `./~name`.
    """
    folder = epath.Path(name).expanduser()
    if os.fspath(name).startswith("~") and os.fspath(folder).startswith("~"):
        raise ValueError(f"{name}: there is no home folder of that name; write the whole path.")
    return folder


def check_parent(given: str | os.PathLike) -> None:
    """Refuses a file to write in a folder that is not there.

    Raises:
      ValueError: naming the folder.
    """
    parent = folder_of(given).parent
    if is_local(parent) and not parent.is_dir():
        raise ValueError(f"cannot write {given}: there is no folder {parent}; make it, or give another file.")


def is_local(path: epath.Path) -> bool:
    """Whether a path is on a disk that this machine sees."""
    return "://" not in os.fspath(path)


def check_folder(folder: epath.Path) -> None:
    """Refuses what is no folder, or a folder in which a link in place of a run's file leads out of it.

    Raises:
      ValueError: naming the path.
    """
    if not is_local(folder):
        return
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            if not os.path.isdir(place):
                kind = "a link to nothing" if os.path.islink(place) else "a file"
                raise ValueError(f"--workdir={folder}: {place} is {kind}; give a folder.")
            break
    home = os.path.realpath(folder)
    steps = folder / "checkpoints"
    inner = [steps / name for name in os.listdir(steps)] if os.path.isdir(steps) else []
    trials = [folder / name for name in os.listdir(folder) if name.startswith("trial")] if folder.exists() else []
    for path in [*(folder / name for name in _OWN), *inner, *trials]:
        end = os.path.realpath(path)
        if os.path.islink(path) and os.path.commonpath([home, end]) != home:
            raise ValueError(
                f"--workdir={folder}: {path} is a link that leads out of it, to {end}; remove the link, or give "
                "another folder."
            )
        wants_folder = path == steps
        fits = os.path.isdir(path) if wants_folder else os.path.isfile(path) or not os.path.exists(path)
        if os.path.lexists(path) and path.name in _OWN and path.parent == folder and not fits:
            found = "a folder" if os.path.isdir(path) else "no folder" if wants_folder else "no file"
            raise ValueError(
                f"--workdir={folder}: {path} is {found}, where a run keeps {'one' if wants_folder else 'a file'}."
            )


def renew(path: epath.Path, content: bytes, log: Callable[[str], None]) -> None:
    """Gives a file back the content that it should have, and says so; nothing if it has it."""
    found = path.read_bytes() if path.exists() else None
    if found != content:
        log(f"{path} {'is missing' if found is None else 'is not as the run left it'} and is made anew")
        write_bytes(path, content)


def restore_records(path: epath.Path, records: list[dict[str, Any]], log: Callable[[str], None]) -> None:
    """Gives the file of records those of the checkpoint that a run goes on from, and says so if it had others."""
    before, content = path.read_bytes() if path.exists() else None, as_lines(records)
    if before == content:
        return
    if before is None and records:
        log(f"{path} is missing and is made anew")
    elif before is not None and not before.startswith(content):
        log(f"{path} is not as the run left it and is made anew")
    elif before:  # a kill, say, between the records of an epoch and its checkpoint
        log(f"{path} had records that are of no checkpoint; they are made again")
    write_bytes(path, content)


def make_folder(folder: epath.Path) -> None:
    """Makes a folder, and waits until the disk knows it.

    Raises:
      OSError: if it cannot be made.
    """
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)


def write_json(path: epath.Path, value: Any) -> None:
    """Replaces a file by a JSON text, whole or not at all."""
    write_bytes(path, as_json(value))


def as_json(value: Any) -> bytes:
    """The JSON text that a file holds."""
    return (json.dumps(value, indent=2) + "\n").encode()


def read_json(path: epath.Path) -> Any:
    """What a JSON file holds; None where there is none, or it is damaged."""
    try:
        return parse_json(path.read_bytes())
    except (FileNotFoundError, ValueError):  # errors of UTF-8 and of JSON are ValueErrors
        return None


def parse_json(content: bytes) -> Any:
    """What a JSON text says.

    Raises:
      ValueError: it is damaged, be it in its bytes, its form, or nested deeper than can be read.
    """
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def append_records(path: epath.Path, records: list[dict[str, Any]], *, lasting: bool = True) -> None:
    """Appends one JSON object a line, and waits until the disk has them, unless they need not last."""
    path = epath.Path(path)
    text = as_lines(records)
    if not is_local(path):  # an object of a cloud cannot grow
        write_bytes(path, (path.read_bytes() if path.exists() else b"") + text)
        return
    new = not path.exists()
    with path.open("ab") as file:
        file.write(text)
        file.flush()
        if lasting:
            os.fsync(file.fileno())
    if new and lasting:
        sync(path.parent)


def read_records(path: epath.Path) -> list[dict[str, Any]]:
    """The records of a file, each once, in order of their steps; lines that are torn or damaged are left out."""
    path, found = epath.Path(path), {}
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            record = parse_json(line)
            if type(record["step"]) is int and type(record["split"]) is str:
                found[record["step"], record["split"]] = record
        except (ValueError, KeyError, TypeError):
            continue
    return [record for _, record in sorted(found.items(), key=lambda pair: pair[0][0])]


def rewind_records(path: epath.Path, step: int) -> list[dict[str, Any]]:
    """Cuts the records back to those of `step` batches or fewer, and returns them."""
    kept = [record for record in read_records(path) if record["step"] <= step]
    write_records(path, kept)
    return kept


def write_records(path: epath.Path, records: list[dict[str, Any]]) -> None:
    """Replaces the records of a file."""
    write_bytes(epath.Path(path), as_lines(records))


def as_lines(records: list[dict[str, Any]]) -> bytes:
    """Records as a file holds them, one JSON object a line."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def write_bytes(path: epath.Path, content: bytes) -> None:
    """Replaces a file, whole or not at all."""
    path = epath.Path(path)
    if not is_local(path):
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # perhaps a link
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)  # where the disk is full it would only take room
        raise
    temporary.replace(path)
    sync(path.parent)


def sync(path: epath.Path) -> None:
    """Waits until the disk has a file, or knows the names in a folder."""
    if os.name != "posix" or not is_local(path):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
