"""Trains the quickstart's run for 200 epochs and sees whether anything grows: memory, threads, files, seconds.

    python -m experiments.checks.endurance

After every epoch, with its checkpoint, the process's resident memory, threads and open files, the files of the workdir
and the seconds since the epoch before are read.  Two windows are compared, of the epochs from a fifth to two fifths of
the way and of the last fifth, by their medians: what is counted may grow by one in twenty epochs (a checkpoint's files
come and go while it is written), memory by a twentieth and seconds by a fifth.  A second figure is what a checkpoint's
manifest costs (a digest of every file, and waiting for the disk), of an epoch of the same run; it is written in the
background, so an epoch does not wait for it.

Three minutes on two free cores; a busy machine makes no epoch of constant length.  Linux alone.
"""

import dataclasses
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import app, flags
from etils import epath

from experiments import tables
from localgrad.cli import shell
from localgrad.training import Config, EpochEnd, manifest, prepare_all, run

FLAGS = flags.FLAGS

RUN = Config(
    method="al", profile="iclr_head", net="mlp", dataset="digits", stages=4, epochs=200, learning_rate=3e-3
)  # the quickstart's
SHARES = {"resident MiB": 0.05, "seconds": 0.2}  # of the early window's, that it may grow by
COUNTS = ("threads", "open files", "files")
AN_EPOCH = 0.05  # what a count may grow by


class Watch:
    """A callback that reads, after each epoch, what the process and the workdir have come to."""

    def __init__(self, workdir: Path):
        self.workdir = workdir
        self.rows: list[dict[str, float]] = []
        self._last = time.monotonic()

    def __call__(self, end: EpochEnd) -> None:
        now = time.monotonic()
        status = Path("/proc/self/status").read_text().split()
        self.rows.append({
            "resident MiB": int(status[status.index("VmRSS:") + 1]) / 1024,
            "threads": int(status[status.index("Threads:") + 1]),
            "open files": len(os.listdir("/proc/self/fd")),
            "files": sum(len(names) for _, _, names in os.walk(self.workdir)),
            "seconds": now - self._last,
        })  # fmt: skip
        self._last = now


def compared(rows: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Medians of an early and of the last window of epochs, and whether the second may be what it is."""
    early, late = rows[len(rows) // 5 : 2 * len(rows) // 5], rows[-(len(rows) // 5) :]
    found: dict[str, dict[str, Any]] = {}
    for name in (*SHARES, *COUNTS):
        first, last = (statistics.median(row[name] for row in window) for window in (early, late))
        allowed = SHARES[name] * first if name in SHARES else AN_EPOCH * len(rows) * 0.6  # between the windows' middles
        found[name] = {"early": first, "late": last, "flat": last - first <= allowed}
    return found


def manifest_seconds(checkpoint: Path, times: int) -> float:
    """Median seconds of writing the manifest of a checkpoint."""
    taken = []
    for _ in range(times):
        begun = time.monotonic()
        manifest.write(epath.Path(checkpoint), int(checkpoint.name))
        taken.append(time.monotonic() - begun)
    return statistics.median(taken)


def main(argv: list[str]) -> int:
    out = tables.place(FLAGS.out, folder=False)
    shell.devices(RUN.stages)
    with tempfile.TemporaryDirectory(prefix="localgrad-") as folder:
        config = dataclasses.replace(RUN, epochs=FLAGS.epochs, workdir=folder)
        watch = Watch(Path(folder))
        jobs = [job._replace(callbacks=(watch,)) for job in prepare_all(config)]
        run(config, jobs, lambda line: None)
        last = max((Path(folder) / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
        cost = manifest_seconds(last, FLAGS.manifests)
    found = compared(watch.rows)
    epoch = found["seconds"]["late"]
    result = {
        "epochs": len(watch.rows),
        "every tenth": {name: [round(row[name], 3) for row in watch.rows[9::10]] for name in (*SHARES, *COUNTS)},
        "windows": found,
        "manifest": {"seconds": cost, "share of an epoch": cost / epoch},
        "by": tables.provenance(),
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    for name, row in found.items():
        shell.say(f"{name}: {row['early']:.4g} early, {row['late']:.4g} late{'' if row['flat'] else ': it grows'}")
    shell.say(f"manifest: {cost * 1000:.1f} ms, {cost / epoch:.1%} of an epoch; wrote {FLAGS.out}")
    return 0 if all(row["flat"] for row in found.values()) else 1


if __name__ == "__main__":
    flags.DEFINE_integer("epochs", 200, "epochs to train, at least 10", lower_bound=10)
    flags.DEFINE_integer("manifests", 20, "times that a checkpoint's manifest is written", lower_bound=1)
    flags.DEFINE_string("out", "experiments/results/check_endurance.json", "file to write")
    shell.define_process_flags()
    app.run(main)
