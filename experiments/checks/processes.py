"""Does to runs of several processes what happens to them, and looks at how each process ends.

A process is killed, stopped, given other flags, other data or another version, a wrong place, or started late or not at
all; a launcher is stopped ten times.  Every process left must end with one line that names who or what, exit with
another status than zero and without a dump within 60 s; the same command again must end with the digest of a run that
nobody disturbed; and after a launcher nobody may be left.

    python -m experiments.checks.processes

Expect every row `as_it_should`; about twenty minutes on two idle cores. A busy machine takes longer to start.
"""

import gzip
import json
import os
import random
import re
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags

from experiments import tables
from experiments.checks import process_runs
from experiments.checks.process_runs import RUN, Process

flags.DEFINE_list("only", None, "names of rows to do again, others stay in the file; all without")
flags.DEFINE_integer("stops", 10, "how often the launcher is stopped")
flags.DEFINE_integer("seed", 0, "seeds the moments")
flags.DEFINE_string("out", "experiments/results/check_processes.json", "file to write")
FLAGS = flags.FLAGS

REFUSED, LOST, STOPPED = 2, 75, 128 + signal.SIGTERM
LIMIT = 60.0  # seconds that an ending may take


class Start(NamedTuple):
    """A run that must not begin: how it is started, and the status and words with which each process ends."""

    given: Callable[[Path], dict[str, Any]]
    ends: Mapping[int, tuple[int, str]]
    stages: int = 2


class Fault(NamedTuple):
    """What happens to a process of a run under way: `when` it has come so far, `victim` gets `signum`."""

    when: Callable[[Path, Mapping[int, Process]], bool]
    victim: int
    signum: int
    status: int
    words: str
    stages: int = 2
    seconds: float | None = None  # until a stopped one goes on


def write_images(folder: Path, seed: int) -> Path:
    """Fashion-MNIST in small: the four IDX files of 600 and 100 random images."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for prefix, count in (("train", 600), ("t10k", 100)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = rng.integers(0, 10, count, np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return folder


def _other_data(folder: Path) -> dict[str, Any]:
    return {
        "run": (*RUN, "--dataset=fashion_mnist"),
        "own": {i: [f"--data_dir={write_images(folder / f'images{i}', i)}"] for i in range(2)},
    }


def _data_of_one(folder: Path) -> dict[str, Any]:
    own = {0: [f"--data_dir={write_images(folder / 'images', 0)}"], 1: [f"--data_dir={folder / 'nowhere'}"]}
    return {"run": (*RUN, "--dataset=fashion_mnist"), "own": own}


def _other_version(folder: Path) -> dict[str, Any]:
    """A path on which another optax says that it is installed; nothing of it is imported."""
    found = folder / "site" / "optax-9.9.9.dist-info"
    found.mkdir(parents=True)
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: optax\nVersion: 9.9.9\n")
    return {"environments": {1: {"PYTHONPATH": str(found.parent)}}}


def _used_port(folder: Path) -> dict[str, Any]:
    server = socket.create_server(("127.0.0.1", 0))
    return {"port": server.getsockname()[1], "keep": server}


def _own(*changes: str, process: int = 1) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"own": {process: changes}}


_NOT_COME = (REFUSED, "of 2 processes, 1 did not come within 30 s")
_RATES = (REFUSED, "--learning_rate is 0.001 in process 0, 0.01 in process 1")
_DATA = (REFUSED, "labels of the train split is ")
_VERSIONS = (REFUSED, 'the version of optax is "')
_TWICE = (REFUSED, "--process_id=1 was given to more than one")
_COUNTS = (REFUSED, "--num_processes is 2 in process 0, 4 in process 1")
_ABSENT = (REFUSED, "of 3 processes, 2 did not come within 30 s")

STARTS = {
    "other flags": Start(_own("--learning_rate=0.01"), {0: _RATES, 1: _RATES}),
    "other data": Start(_other_data, {0: _DATA, 1: _DATA}),
    "another version": Start(_other_version, {0: _VERSIONS, 1: _VERSIONS}),
    "another coordinator": Start(
        _own("--coordinator=127.0.0.1:9"),
        {0: _NOT_COME, 1: (REFUSED, "found no process 0 at --coordinator=127.0.0.1:9")},
    ),
    "a port in use": Start(
        _used_port,
        {0: (REFUSED, "another program, or another process 0, listens there"), 1: (REFUSED, "is not process 0")},
    ),
    "a process id twice": Start(_own("--process_id=1", process=2), {0: _TWICE, 1: _TWICE, 2: _TWICE}, stages=3),
    "a process id out of range": Start(
        _own("--process_id=2"), {0: _NOT_COME, 1: (REFUSED, "--process_id=2 must be one of 0 .. 1")}
    ),
    "another number of processes": Start(_own("--num_processes=4", "--stages=4"), {0: _COUNTS, 1: _COUNTS}),
    "one that never comes": Start(lambda folder: {"absent": [2]}, {0: _ABSENT, 1: _ABSENT}, stages=3),
    "data that one does not find": Start(_data_of_one, {0: (LOST, "process 1 "), 1: (REFUSED, "no fashion_mnist in ")}),
    "one that comes late": Start(
        lambda folder: {"late": {2: 20.0}, "run": (*RUN, "--widths=24,16,16", "--epochs=1")},
        {0: (0, ""), 1: (0, ""), 2: (0, "")},
        stages=3,
    ),
}


def compiles(workdir: Path, processes: Mapping[int, Process]) -> bool:
    """Has met and begun, and compiles its first step."""
    return (workdir / "config.json").exists()


def trains(workdir: Path, processes: Mapping[int, Process]) -> bool:
    """Is in its third epoch."""
    return process_runs.said(processes[0], "epoch 2/")()


def evaluates(workdir: Path, processes: Mapping[int, Process]) -> bool:
    """Is about to evaluate its first epoch, which compiles."""
    steps = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    return max(steps, default=0) >= 11 and not process_runs.said(processes[0], "epoch 1/")()


def writes(workdir: Path, processes: Mapping[int, Process]) -> bool:
    """Is in its third epoch, and writes a checkpoint."""
    return trains(workdir, processes) and any((workdir / "checkpoints").glob("*tmp*"))


def _died(victim: int) -> str:
    return rf"process {victim} \(pid \d+ on \S+\) died"


def _silent(victim: int) -> str:
    return rf"process {victim} \(pid \d+ on \S+\) gave no sign of life for 30 s"


FAULTS = {
    "1 killed while training": Fault(trains, 1, signal.SIGKILL, LOST, _died(1)),
    "0 killed while training": Fault(trains, 0, signal.SIGKILL, LOST, _died(0)),
    "1 killed while compiling": Fault(compiles, 1, signal.SIGKILL, LOST, _died(1)),
    "0 killed while compiling": Fault(compiles, 0, signal.SIGKILL, LOST, _died(0)),
    "1 killed while evaluating": Fault(evaluates, 1, signal.SIGKILL, LOST, _died(1)),
    "0 killed while evaluating": Fault(evaluates, 0, signal.SIGKILL, LOST, _died(0)),
    "1 killed while writing": Fault(writes, 1, signal.SIGKILL, LOST, _died(1)),
    "0 killed while writing": Fault(writes, 0, signal.SIGKILL, LOST, _died(0)),
    "2 of 3 killed while training": Fault(trains, 2, signal.SIGKILL, LOST, _died(2), stages=3),
    "1 stopped": Fault(trains, 1, signal.SIGSTOP, LOST, _silent(1), seconds=120.0),
    "0 stopped": Fault(trains, 0, signal.SIGSTOP, LOST, _silent(0), seconds=120.0),
    "1 stopped for 10 s": Fault(trains, 1, signal.SIGSTOP, 0, "", seconds=10.0),
    "0 stopped for 10 s": Fault(trains, 0, signal.SIGSTOP, 0, "", seconds=10.0),
    "1 asked to stop": Fault(trains, 1, signal.SIGTERM, STOPPED, ""),
}


def run_of(count: int) -> tuple[str, ...]:
    """The flags of a run of that many stages."""
    return RUN if count == 2 else (*RUN, "--widths=24,16,16")


def judge(found: Mapping[int, process_runs.Ending], ends: Mapping[int, tuple[int, str]]) -> bool:
    """Whether each process ended as it should: status, words, no dump, in time."""
    return all(
        found[i].status == status and bool(re.search(words, found[i].error)) and found[i].clean
        and (status == 0 or found[i].seconds <= LIMIT)
        for i, (status, words) in ends.items()
    )  # fmt: skip


def check_start(row: Start, folder: Path) -> dict[str, Any]:
    """A run that must not begin."""
    given = row.given(folder)
    kept = given.pop("keep", None)
    found = process_runs.endings(process_runs.start(folder / "run", row.stages, **given))
    if kept is not None:
        kept.close()
    ends = {i: (status, re.escape(words)) for i, (status, words) in row.ends.items()}
    return {"ends": {i: process_runs.as_row(ending) for i, ending in found.items()}, "as_it_should": judge(found, ends)}


def check_fault(row: Fault, expected: Callable[[int], str], folder: Path) -> dict[str, Any]:
    """Something happens to a run; then it goes on, and its digest is compared."""
    workdir = folder / "run"
    processes = process_runs.start(workdir, row.stages, run=run_of(row.stages))
    came = process_runs.wait_until(lambda: row.when(workdir, processes), list(processes.values()))
    at, victim = time.monotonic(), {row.victim: processes[row.victim]}
    victim[row.victim].popen.send_signal(row.signum)
    others = {i: process for i, process in processes.items() if i != row.victim}
    result: dict[str, Any] = {"reached": came}
    if row.signum == signal.SIGKILL:
        found = process_runs.endings(others, at)
        victim[row.victim].popen.wait()
    elif row.seconds is None:
        found = process_runs.endings(processes, at)
    elif row.status == 0:
        time.sleep(row.seconds)
        victim[row.victim].popen.send_signal(signal.SIGCONT)
        found = process_runs.endings(processes, at)
    else:
        found = process_runs.endings(others, at)
        time.sleep(max(0.0, at + row.seconds - time.monotonic()))
        woken = time.monotonic()
        victim[row.victim].popen.send_signal(signal.SIGCONT)
        found |= process_runs.endings(victim, woken)  # it hears that the others have gone
        result["woken_after"] = row.seconds
    ends = dict.fromkeys(found, (row.status, row.words))
    again = process_runs.endings(process_runs.start(workdir, row.stages, run=run_of(row.stages)))
    digest = digest_of(workdir)
    result |= {
        "ends": {i: process_runs.as_row(ending) for i, ending in sorted(found.items())},
        "same_digest": digest == expected(row.stages),
        "as_it_should": came and judge(found, ends) and digest == expected(row.stages) and again[0].status == 0,
    }
    return result


def digest_of(workdir: Path) -> str | None:
    """The digest in a summary, or None where there is none."""
    path = workdir / "summary.json"
    return json.loads(path.read_text())["params_sha256"] if path.exists() else None


def launcher(workdir: Path, environment: Mapping[str, str] | None = None) -> Process:
    """Starts a launcher of two processes, in a session of its own; its run is longer."""
    flags = [*RUN, "--epochs=24", "--stages=2", f"--workdir={workdir}"]
    command = ["bash", "launch/processes.sh", "2", *process_runs.TRAIN, *flags]
    return process_runs.launch(command, workdir.parent, f"{workdir.name}.launcher", environment)


def stop_launcher(workdir: Path, moment: Callable[[Process], bool], pause: float, how: str) -> dict[str, Any]:
    """Starts a launcher and stops it, `pause` seconds after a moment: by a signal to it, or to all."""
    process = launcher(workdir)
    came = process_runs.wait_until(lambda: moment(process), [process])
    time.sleep(pause)
    at = time.monotonic()
    pid = process.popen.pid
    {
        "SIGTERM": lambda: os.kill(pid, signal.SIGTERM),
        "Ctrl-C": lambda: os.killpg(pid, signal.SIGINT),
        "SIGTERM to all": lambda: os.killpg(pid, signal.SIGTERM),
        "SIGHUP to all": lambda: os.killpg(pid, signal.SIGHUP),
        "SIGKILL": lambda: os.kill(pid, signal.SIGKILL),
    }[how]()
    ending = process_runs.endings({0: process}, at)[0]
    while process_runs.left(str(workdir)) and time.monotonic() - at < LIMIT and how == "SIGKILL":
        time.sleep(0.1)
    gone = time.monotonic() - at
    left = process_runs.left(str(workdir))
    for other in left:
        os.kill(other, signal.SIGKILL)
    text = process.out.read_text()
    saved = re.search(r"after batch (\d+); saved", text)
    step = int(saved[1]) if saved else None
    return {
        "how": how, "reached": came, "status": ending.status, "seconds": round(gone, 1), "left": len(left),
        "clean": ending.clean, "saved_at": step,
        "is_there": step is not None and (workdir / "checkpoints" / str(step)).is_dir(),
    }  # fmt: skip


def epochs_said(count: int) -> Callable[[Process], bool]:
    """Whether a launcher's run has told of that many epochs."""
    return lambda process: process.out.read_text().count("epoch ") >= count


def check_launcher(stops: int, seed: int, folder: Path) -> dict[str, Any]:
    """One run whose launcher is stopped again and again, at seeded moments, and goes on each time."""
    choose, workdir, found = random.Random(seed), folder / "run", []
    launcher(folder / "undisturbed").popen.wait()
    expected = digest_of(folder / "undisturbed")
    for stop in range(stops):
        how = ("SIGTERM", "Ctrl-C", "SIGTERM to all", "SIGHUP to all", "SIGKILL")[stop % 5]
        found.append(stop_launcher(workdir, epochs_said(1), choose.uniform(0.0, 0.5), how))
        print(f"launcher stopped {stop + 1} of {stops}: {found[-1]}", flush=True)
    early = []
    for how in ("SIGTERM", "Ctrl-C"):
        early.append(stop_launcher(workdir, lambda process: True, choose.uniform(0.5, 6.0), how))
    process = launcher(workdir)
    process.popen.wait(timeout=600)
    same = expected is not None and digest_of(workdir) == expected
    good = [stop["left"] == 0 and stop["clean"] for stop in found + early] + [stop["is_there"] for stop in found]
    return {"stops": found, "while_starting": early, "same_digest": same, "as_it_should": same and all(good)}


def undisturbed(folder: Path, count: int) -> str:
    """The digest of a run that nothing happens to."""
    workdir = folder / f"undisturbed{count}"
    ends = process_runs.endings(process_runs.start(workdir, count, run=run_of(count)))
    digest = digest_of(workdir)
    if digest is None:
        raise RuntimeError(f"the run that nothing happens to failed: {ends}")
    return digest


def main(argv: list[str]) -> int:
    signal.signal(signal.SIGHUP, lambda *_: None)  # nohup has it ignored, and what is started would ignore it too
    out = tables.place(FLAGS.out, folder=False)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as base:
        expected = cache(partial(undisturbed, Path(base)))
        checks: dict[str, Callable[[Path], dict[str, Any]]] = {
            **{name: partial(check_start, row) for name, row in STARTS.items()},
            **{name: partial(check_fault, row, expected) for name, row in FAULTS.items()},
            "launcher": partial(check_launcher, FLAGS.stops, FLAGS.seed),
        }
        for number, name in enumerate(FLAGS.only or checks):
            rows[name] = {**checks[name](Path(base) / f"row{number}"), "jax": jax.__version__}
            print(f"{name}: {json.dumps(rows[name])}", flush=True)
    if FLAGS.only and out.exists():
        rows = {**json.loads(out.read_text())["rows"], **rows}
    good = sum(row["as_it_should"] for row in rows.values())
    result = {
        "command": "python -m experiments.checks.processes", "run": " ".join(RUN), "as_it_should": good,
        "rows": {name: rows[name] for name in checks if name in rows},
    }  # fmt: skip
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{good} of {len(rows)} rows as they should; wrote {out}")
    return 0 if good == len(rows) else 1


if __name__ == "__main__":
    app.run(main)
