"""One owner of a workdir at a time.

The owner holds a lock of the operating system on a file that says who it is, and touches the file now and then.  The
operating system lets go when a process ends, however it ends.  Where a disk is shared and its locks do not reach other
machines, or is a cloud's, the file is all there is: an owner on another machine counts as gone when it has not touched
the file for a while.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from etils import epath

from localgrad.training.workdir import is_local, read_json

try:
    import fcntl
except ImportError:  # not on Windows, where the file is all there is
    fcntl = None  # type: ignore[assignment]

BEAT = 20.0  # seconds between two touches
GONE = 6 * BEAT  # an owner on another machine that has not touched the file for so long is gone


class InUseError(ValueError):
    """Another process trains in the workdir."""


@contextmanager
def owned(folder: epath.Path) -> Iterator[None]:
    """Owns a folder within a `with` block; of a run of several processes the first alone does so, for all.

    Raises:
      InUseError: if another process owns it, naming the process and its machine.
    """
    path = folder / ".lock"
    handle = _take(path) if is_local(path) and fcntl is not None else None
    before = read_json(path) if path.exists() else None
    if _lives(before, locked=handle is not None):
        if handle is not None:
            os.close(handle)
        raise InUseError(_says(folder, before))
    stop = threading.Event()
    _touch(path, handle)
    beat = threading.Thread(target=lambda: _beat(path, handle, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        with suppress(OSError):
            path.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _take(path: epath.Path) -> int:
    """The lock of the operating system, on the file that has the name now.

    Raises:
      InUseError: if another process has it.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InUseError(_says(path.parent, read_json(path))) from None
        except OSError:  # a disk without locks: the file is all there is
            return handle
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)  # its owner removed it meanwhile


def _lives(before: Any, locked: bool) -> bool:
    """Whether the owner that a file names is still there, though the operating system would give the lock."""
    if not isinstance(before, dict) or not all(
        isinstance(before.get(name), kind) for name, kind in (("host", str), ("pid", int), ("seen", int | float))
    ):
        return False  # damaged
    if before["host"] == socket.gethostname():
        return not locked and before["pid"] != os.getpid() and _runs(before["pid"])
    return time.time() - before["seen"] < GONE


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _says(folder: epath.Path, before: Any) -> str:
    who = "another process"
    if isinstance(before, dict) and {"host", "pid"} <= set(before):
        who = f"process {before['pid']} on {before['host']}"
    return f"{folder} is in use by {who}: wait for it to end, or give this run another --workdir."


def _touch(path: epath.Path, handle: int | None) -> None:
    content = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "seen": time.time()}).encode()
    if handle is None:
        path.write_bytes(content)
        return
    os.pwrite(handle, content.ljust(256), 0)  # in place: another file would not be locked
    os.fsync(handle)


def _beat(path: epath.Path, handle: int | None, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        with suppress(OSError):  # a disk that is full, say: the run itself will say so
            _touch(path, handle)
