"""Runs of several processes that something happens to: starts them, waits for a moment, and says how each ended."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
TRAIN = ("-m", "experiments.train")
RUN = (
    "--method=al", "--net=mlp", "--widths=24,16", "--target_width=16", "--dropout=0.1", "--dataset=digits",
    "--epochs=8", "--batches_per_call=3", "--checkpoint_every_steps=11",
)  # fmt: skip
_QUICK = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiles in less time
_DUMPS = re.compile(r"Traceback|Check failure|^[EFW]\d{4} |absl::|terminate called|Aborted|Segmentation", re.MULTILINE)


class Process(NamedTuple):
    """A process of a run, and the files that take what it says."""

    popen: subprocess.Popen
    out: Path
    err: Path
    began: float


class Ending(NamedTuple):
    """How a process ended: its status (None if it had to be killed), after how many seconds, and what it said."""

    status: int | None
    seconds: float
    error: str
    clean: bool


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def launch(command: Sequence[str], folder: Path, name: str, environment: Mapping[str, str] | None = None) -> Process:
    """Starts a command in a session of its own, its output in files of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    out, err = folder / f"{name}.out", folder / f"{name}.err"
    for old in (out, err):
        old.unlink(missing_ok=True)
    # Appended to, as several processes write: none overwrites what another wrote.
    with out.open("a") as stdout, err.open("a") as stderr:
        popen = subprocess.Popen(
            command, cwd=ROOT, stdout=stdout, stderr=stderr, start_new_session=True,
            env={**os.environ, **_QUICK, "PYTHON": sys.executable, **(environment or {})},
        )  # fmt: skip
    return Process(popen, out, err, time.monotonic())


def start(
    workdir: Path,
    count: int = 2,
    *,
    run: Sequence[str] = RUN,
    own: Mapping[int, Sequence[str]] | None = None,
    environments: Mapping[int, Mapping[str, str]] | None = None,
    port: int | None = None,
    late: Mapping[int, float] | None = None,
    absent: Sequence[int] = (),
) -> dict[int, Process]:
    """Starts the processes of a run, by their numbers.

    Args:
      workdir: of the run; what processes say goes beside it.
      count: number of processes, and of stages.
      run: flags of all.
      own, environments: flags (which come last, and so win) and variables of single processes.
      port: where they meet.
      late: seconds after which a process starts.
      absent: processes that do not start at all.
    """
    port, folder = port or free_port(), workdir.parent / f"{workdir.name}.said"
    found = {}
    for i in sorted(set(range(count)) - set(absent), key=lambda i: (late or {}).get(i, 0.0)):
        time.sleep((late or {}).get(i, 0.0))
        flags = [
            *run, f"--stages={count}", f"--workdir={workdir}", f"--coordinator=127.0.0.1:{port}",
            f"--num_processes={count}", f"--process_id={i}", *(own or {}).get(i, ()),
        ]  # fmt: skip
        command = [sys.executable, *TRAIN, *flags]
        found[i] = launch(command, folder, f"process{i}", (environments or {}).get(i))
    return found


def wait_until(true: Callable[[], bool], processes: Sequence[Process], limit: float = 900.0) -> bool:
    """Waits for something to become true while all processes run; whether it did."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline and all(each.popen.poll() is None for each in processes):
        if true():
            return True
        time.sleep(0.001)
    return true()


def said(process: Process, text: str) -> Callable[[], bool]:
    """Whether a process has said a text."""
    return lambda: text in process.out.read_text()


def endings(processes: Mapping[int, Process], since: float | None = None, limit: float = 600.0) -> dict[int, Ending]:
    """Waits for processes to end, and kills those that do not within `limit` seconds.

    Args:
      processes: by their numbers.
      since: when seconds are counted from, on the monotonic clock; None is the start of each.
      limit: seconds.
    """
    begun, found = time.monotonic(), {}
    waiting = dict(processes)
    while waiting:
        for i, process in list(waiting.items()):
            status = process.popen.poll()
            late = time.monotonic() - begun > limit
            if status is None and not late:
                continue
            if status is None:
                process.popen.kill()
                process.popen.wait()
            seconds = time.monotonic() - (process.began if since is None else since)
            text = process.err.read_text()
            errors = [line for line in text.splitlines() if line.startswith("error: ")]
            clean = len(errors) <= 1 and not _DUMPS.search(text)
            found[i] = Ending(status, round(seconds, 1), "".join(errors[:1]), clean)
            del waiting[i]
        time.sleep(0.02)
    return dict(sorted(found.items()))


def left(text: str) -> list[int]:
    """The processes of this machine whose command line has a text."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line, state = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except OSError:
            continue
        if text.encode() in line and ") Z " not in state and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def as_row(ending: Ending) -> dict[str, Any]:
    """An ending for a table; paths of temporary folders are cut out."""
    return {**ending._asdict(), "error": re.sub(r"/tmp/\S*?/(?=\w)", "", ending.error)}
