"""Kills a run with `kill -9` at random moments, some of them inside a checkpoint write, and compares the final digest.

Each trial starts a run in a fresh workdir, kills it once, gives the same command again, and expects the digest of a run
that nobody disturbed.

    python -m experiments.check_kills --trials=20

Expect `20 of 20`; about ten minutes on two cores.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

flags.DEFINE_integer("trials", 20, "runs to kill")
flags.DEFINE_integer("writes", 6, "how many of them to kill inside a checkpoint write")
flags.DEFINE_integer("seed", 0, "seeds the moments")
flags.DEFINE_string("out", "experiments/results/check_kills.json", "file to write")
FLAGS = flags.FLAGS

RUN = [
    "--method=al",
    "--net=mlp",
    "--widths=24,16",
    "--target_width=16",
    "--dropout=0.1",
    "--dataset=digits",
    "--stages=2",
    "--epochs=12",
    "--batches_per_call=3",
    "--checkpoint_every_steps=6",
]


def start(workdir: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.train", *RUN, f"--workdir={workdir}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(workdir: Path) -> str:
    """Runs to the end and returns the digest."""
    status = start(workdir).wait()
    if status:
        raise RuntimeError(f"the run in {workdir} ended with status {status}.")
    return json.loads((workdir / "summary.json").read_text())["params_sha256"]


def unfinished_writes(workdir: Path) -> list[str]:
    """Checkpoints that are being written: folders that are renamed when they are whole."""
    return [path.name for path in (workdir / "checkpoints").glob("*tmp*")]


def kill_once(workdir: Path, moment: float | int) -> tuple[bool, list[str]]:
    """Kills a run after `moment` seconds, or, for a whole number, inside the checkpoint write of that number.

    Returns:
      Whether it was still running, and the unfinished writes that the kill left.
    """
    running, begun, seen = start(workdir), time.monotonic(), set()
    while running.poll() is None:
        if isinstance(moment, int):
            seen |= set(unfinished_writes(workdir))
            if len(seen) >= moment and unfinished_writes(workdir):
                break
        elif time.monotonic() - begun >= moment:
            break
        time.sleep(0.0005)
    alive = running.poll() is None
    running.send_signal(signal.SIGKILL)
    running.wait()
    return alive, unfinished_writes(workdir)


def main(argv: list[str]) -> int:
    choose = random.Random(FLAGS.seed)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        begun = time.monotonic()
        expected = finish(base / "undisturbed")
        whole = time.monotonic() - begun
        trials = []
        for trial in range(FLAGS.trials):
            in_write = trial < FLAGS.writes
            moment = choose.randint(1, 20) if in_write else choose.uniform(0.0, whole)
            workdir = base / f"trial{trial}"
            alive, unfinished = kill_once(workdir, moment)
            digest = finish(workdir)
            trials.append(
                {
                    "kill_at": f"write {moment}" if in_write else f"{moment:.2f} s of {whole:.2f} s",
                    "was_running": alive,
                    "unfinished_writes": unfinished,
                    "same_digest": digest == expected,
                }
            )
            print(f"{trial + 1}/{FLAGS.trials}: {trials[-1]}", flush=True)
            shutil.rmtree(workdir)
    same = sum(bool(trial["same_digest"]) for trial in trials)
    inside = sum(bool(trial["unfinished_writes"]) for trial in trials)
    command = "python -m experiments.check_kills " + " ".join(sys.argv[1:])
    result = {
        "command": command.strip(), "run": " ".join(RUN), "same_digest": same, "inside_a_write": inside,
        "params_sha256": expected, "trials": trials,
    }  # fmt: skip
    Path(FLAGS.out).write_text(json.dumps(result, indent=2) + "\n")
    print(f"{same} of {FLAGS.trials} ended with the digest of the undisturbed run, {inside} of them killed in a write")
    print(f"wrote {FLAGS.out}")
    return 0 if same == FLAGS.trials else 1


if __name__ == "__main__":
    app.run(main)
