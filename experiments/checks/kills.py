"""Kills runs with `kill -9` at chosen moments, gives the same command again, and compares with a run left in peace.

Each trial starts a run in a fresh workdir, kills it once, gives the same command again, and expects the digest, the
records and the summary of a run that nobody disturbed.  The rows are `al` and `dkp` with delays on two stages, and `al`
on two processes, of which one or both are killed.  In turn a kill falls inside compilation (which then uses no cache),
inside a checkpoint write, after the last checkpoint and before the summary, or anywhere.  Row `at once` starts the same
run twice at the same time: one runs, the other is refused.

    python -m experiments.checks.kills --trials=67        # of each row, and 10 of `at once`
    python -m experiments.checks.kills --only=dkp --trials=20 --first=10

Expect all as they should; about ten seconds a trial on two free cores, with JAX_COMPILATION_CACHE_DIR set.  A part adds
its trials to those in the file.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from experiments import tables
from experiments.checks import process_runs

_COMMON = (
    "--net=mlp", "--widths=16,12", "--dataset=digits", "--stages=2", "--epochs=4", "--batch_size=128",
    "--batches_per_call=3", "--checkpoint_every_steps=3",
)  # fmt: skip
_AL = ("--method=al", "--profile=iclr_head", "--target_width=8", "--dropout=0.1", *_COMMON)
ROWS = {
    "al": _AL,
    "dkp": ("--method=dkp", "--staleness=delayed", "--optimizer=momentum", "--learning_rate=0.01", *_COMMON),
    "two processes": _AL,
}
AT_ONCE = "at once"
MOMENTS = ("compile", "write", "summary", "any")
STEPS = 4 * 9  # in the whole run


def start(workdir: Path, row: str, environment: dict[str, str] | None = None) -> list[subprocess.Popen]:
    """Starts the processes of a run, in sessions of their own; what they say goes beside the workdir."""
    if row == "two processes":
        given = dict.fromkeys(range(2), environment or {})
        found = process_runs.start(workdir, 2, run=ROWS[row], environments=given)
        return [process.popen for process in found.values()]
    command = [sys.executable, *process_runs.TRAIN, *ROWS[row], f"--workdir={workdir}"]
    return [process_runs.launch(command, workdir.parent / f"{workdir.name}.said", "process", environment).popen]


def finish(workdir: Path, row: str) -> dict[str, Any]:
    """Runs to the end, and returns what is there then."""
    status = [process.wait(timeout=900) for process in start(workdir, row)]
    if any(status):
        raise RuntimeError(f"the run in {workdir} ended with status {status}.")
    return results(workdir)


def results(workdir: Path) -> dict[str, Any]:
    """Summary and records of a finished run, but for how fast it was."""
    summary = json.loads((workdir / "summary.json").read_text())
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for each in (summary, *records):
        each.pop("examples_per_sec", None)
    return {"summary": summary, "records": records}


def unfinished_writes(workdir: Path) -> list[str]:
    """Checkpoints that are being written: under another name, or still without their manifest."""
    steps = workdir / "checkpoints"
    found = [path.name for path in steps.glob("*tmp*")]
    whole = [path for path in steps.glob("[0-9]*") if path.name.isdecimal()]
    return sorted(found + [path.name for path in whole if not (path / "manifest.json").exists()])


def where(workdir: Path) -> str:
    """What a run is doing, by the files of its workdir."""
    last = workdir / "checkpoints" / str(STEPS) / "manifest.json"
    if (workdir / "summary.json").exists():
        return "after its end"
    if last.exists():
        return "summary"
    if unfinished_writes(workdir):
        return "write"
    if not (workdir / "config.json").exists():
        return "start"
    return "train" if any((workdir / "checkpoints").glob("*")) else "compile"


def kill_once(workdir: Path, row: str, moment: str, choose: random.Random, whole: float) -> dict[str, Any]:
    """Starts a run and kills it, or one of its processes.

    Returns:
      When that was, what the run was doing, and the writes that it left unfinished.
    """
    environment = {"JAX_ENABLE_COMPILATION_CACHE": "false"} if moment == "compile" else {}
    number, pause, share = choose.randint(1, STEPS // 3), choose.uniform(0.0, 0.5), choose.uniform(0.0, 1.0)
    victims = choose.choice([[0], [1], [0, 1]]) if row == "two processes" else [0]
    running, seen, begun, since = start(workdir, row, environment), set[str](), time.monotonic(), None
    while all(process.poll() is None for process in running):
        doing = where(workdir)
        seen |= {name.split(".")[0] for name in unfinished_writes(workdir)}
        due = doing == moment and (moment != "write" or len(seen) >= number)
        if due and since is None:
            since = time.monotonic()
        wait = {"compile": pause, "summary": pause / 5}.get(moment, 0.0)
        if moment == "any" and time.monotonic() - begun >= share * whole:
            break
        if since is not None and time.monotonic() - since >= wait:
            break
        time.sleep(0.0005)
    alive = [running[victim].poll() is None for victim in victims]
    for victim in victims:
        running[victim].send_signal(signal.SIGKILL)
    for victim in victims:
        running[victim].wait()
    doing, left = where(workdir), unfinished_writes(workdir)
    for process in running:  # the other of two processes ends by itself
        process.wait(timeout=300)
    return {"was_running": all(alive), "killed": victims, "inside": doing, "unfinished_writes": left}


def kill(row: str, number: int, expected: dict[str, Any], whole: float, base: Path) -> dict[str, Any]:
    """One trial: a kill, the same command again, and what came of it."""
    choose, moment = random.Random(f"{row} {number}"), MOMENTS[number % len(MOMENTS)]
    workdir = base / f"{row.replace(' ', '_')}{number}"
    result = kill_once(workdir, row, moment, choose, whole)
    found = finish(workdir, row)
    same = {name: found[name] == expected[name] for name in expected}
    digest = found["summary"]["params_sha256"] == expected["summary"]["params_sha256"]
    shutil.rmtree(workdir)
    return {
        "row": row, "number": number, "meant_for": moment, **result, "same_digest": digest,
        **{f"same_{name}": equal for name, equal in same.items()}, "as_it_should": digest and all(same.values()),
    }  # fmt: skip


def both(number: int, expected: dict[str, Any], base: Path) -> dict[str, Any]:
    """The same run twice at the same time: one runs, the other is refused."""
    workdir = base / f"both{number}"
    command = [sys.executable, *process_runs.TRAIN, *_AL, f"--workdir={workdir}"]
    ends = process_runs.endings(
        {i: process_runs.launch(command, base / f"both{number}.said", f"run{i}") for i in range(2)}
    )
    refused = sorted(end.status if end.status is not None else -1 for end in ends.values()) == [0, 2]
    told = any("is in use by process" in end.error for end in ends.values())
    whole = results(workdir) == expected
    shutil.rmtree(workdir)
    return {
        "row": AT_ONCE, "number": number, "statuses": [end.status for end in ends.values()], "refused_by_name": told,
        "records_whole": whole, "as_it_should": refused and told and whole,
    }  # fmt: skip


def write(out: Path, trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Adds trials to those of a result file, each once, and counts."""
    key = lambda trial: (trial["row"], trial["number"])
    before = json.loads(out.read_text())["trials"] if out.exists() else []
    made = {key(trial): trial for trial in [*before, *trials]}
    kills = [trial for trial in made.values() if trial["row"] != AT_ONCE]
    races = [trial for trial in made.values() if trial["row"] == AT_ONCE]
    places = sorted({trial["inside"] for trial in kills})
    result = {
        "command": "python -m experiments.checks.kills --trials=67", "jax": jax.__version__,
        "runs": {row: " ".join(run) for row, run in ROWS.items()},
        "kills": len(kills), "of": 201, "as_they_should": sum(trial["as_it_should"] for trial in kills),
        "inside": {place: sum(trial["inside"] == place for trial in kills) for place in places},
        "at_once": len(races), "of_them_as_they_should": sum(trial["as_it_should"] for trial in races),
        "trials": [made[each] for each in sorted(made)],
    }  # fmt: skip
    out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def main(argv: list[str]) -> int:
    out, trials = tables.place(FLAGS.out, folder=False), []
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "localgrad_kills_cache"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for row in FLAGS.only or [*ROWS, AT_ONCE]:
            run = "al" if row == AT_ONCE else row
            begun = time.monotonic()
            expected = finish(base / f"undisturbed_{row.replace(' ', '_')}", run)
            whole = time.monotonic() - begun
            count = min(FLAGS.trials, 10) if row == AT_ONCE else FLAGS.trials
            for number in range(FLAGS.first, FLAGS.first + count):
                is_race = row == AT_ONCE
                trials.append(both(number, expected, base) if is_race else kill(row, number, expected, whole, base))
                print(json.dumps(trials[-1]), flush=True)
                write(out, trials)
    good = sum(trial["as_it_should"] for trial in trials)
    print(f"{good} of {len(trials)} as they should; wrote {out}")
    return 0 if good == len(trials) else 1


if __name__ == "__main__":
    flags.DEFINE_integer("trials", 67, "kills of each row")
    flags.DEFINE_integer("first", 0, "number of the first; every fourth is meant for the same moment")
    flags.DEFINE_list("only", None, f"rows: {', '.join([*ROWS, AT_ONCE])}")
    flags.DEFINE_string("out", "experiments/results/check_kills.json", "file to write")
    FLAGS = flags.FLAGS
    app.run(main)
