"""A checkpoint's manifest: what it holds, file by file, so that damage is noticed before anything is restored.

It is written when all else of a checkpoint is on the disk: a checkpoint without one is not whole.
"""

import hashlib
import json
import os
from typing import Any

from etils import epath

from localgrad.training.workdir import is_local, parse_json, sync, write_bytes

NAME = "manifest.json"
_CHUNK = 1 << 22


class DamagedError(ValueError):
    """A checkpoint is not what its manifest says; the message says how."""


def write(folder: epath.Path, step: int, **facts: Any) -> None:
    """Writes the manifest of a checkpoint that is otherwise whole, and waits until the disk has all of it.

    Args:
      folder: of the checkpoint.
      step: batches that it has been trained on.
      facts: what else is known of it: its configuration, versions, digests.
    """
    files = _files(folder)
    if is_local(folder):
        folders = {parent for path in files.values() for parent in _up_to(path, folder)}
        for path in [*files.values(), *folders, folder.parent]:
            sync(path)
    sizes = {name: {"bytes": path.stat().length, "sha256": digest(path)} for name, path in files.items()}
    content = {"step": step, **facts, "files": sizes}
    write_bytes(folder / NAME, _whole(content))


def read(folder: epath.Path) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
      DamagedError: if there is none, it is damaged, or it belongs to another step than the folder is named after.
    """
    path = folder / NAME
    if not path.exists():
        raise DamagedError(f"it has no {NAME}: its writing was cut off, or an earlier version made it")
    raw = path.read_bytes()
    try:
        content = parse_json(raw)
        del content["sha256"]
        whole = _whole(content)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedError(f"its {NAME} is damaged") from None
    if raw != whole:  # to the byte: a bit that turns 1e-05 into 1E-05 is damage too
        raise DamagedError(f"its {NAME} is damaged")
    if str(content["step"]) != folder.name:
        raise DamagedError(f"it was renamed: it is the checkpoint of step {content['step']}")
    return content


def check(folder: epath.Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose every file is as it was written.

    Raises:
      DamagedError: naming the first file that is not.
    """
    content = read(folder)
    files = _files(folder)
    for name, said in content["files"].items():
        if name not in files:
            raise DamagedError(f"its file {name} is missing")
        size = files[name].stat().length
        if size != said["bytes"]:
            raise DamagedError(f"its file {name} has {size} bytes and had {said['bytes']}")
        if digest(files[name]) != said["sha256"]:
            raise DamagedError(f"its file {name} is damaged")
    if added := sorted(set(files) - set(content["files"])):
        raise DamagedError(f"its file {added[0]} is not of it")
    return content


def _whole(content: dict[str, Any]) -> bytes:
    """The text of a manifest, with a digest of all else that it says."""
    digest_of_rest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({"sha256": digest_of_rest, **content}, indent=1).encode()


def _files(folder: epath.Path) -> dict[str, epath.Path]:
    found = {}
    for root, folders, names in folder.walk():
        for name in (*folders, *names):
            path = epath.Path(root) / name
            if os.path.islink(path):  # what it leads to may change, and is perhaps not of the run
                raise DamagedError(f"its {os.fspath(path)[len(os.fspath(folder)) + 1 :]} is a link")
            if name in names:
                found[os.fspath(path)[len(os.fspath(folder)) + 1 :]] = path
    return {name: found[name] for name in sorted(found) if name not in (NAME, f".{NAME}.tmp")}


def _up_to(path: epath.Path, folder: epath.Path) -> list[epath.Path]:
    """The folders of a path, up to and with `folder`."""
    found = [path.parent]
    while found[-1] != folder:
        found.append(found[-1].parent)
    return found


def digest(path: epath.Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
