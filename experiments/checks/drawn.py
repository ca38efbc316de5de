"""Pipelines drawn at random, each compared with the sequential engine in float64.

    python -m experiments.checks.drawn --count=300 --out=experiments/results/check_drawn.json

Network, grouping, method and options, optimizer, task, cuts, shards, batches a call and seed are drawn by hypothesis,
the same every time (`drawn_pipelines`).  Writes a row for each with its largest difference on any schedule, after each,
so that a run that was stopped goes on with `--first=N`.  Expect at most 1e-12; the status says whether it was.  Half a
minute a pipeline on two cores.
"""

import json
from typing import Any

import jax
import numpy as np
from absl import app, flags

from experiments import tables
from experiments.checks.drawn_pipelines import apart, drawn
from localgrad.cli import shell

flags.DEFINE_integer("count", 300, "pipelines to draw")
flags.DEFINE_integer("first", 0, "the first of them; rows before it stay in the file")
flags.DEFINE_string("out", "experiments/results/check_drawn.json", "the file of rows")
shell.define_process_flags()
FLAGS = flags.FLAGS

LAW, DEVICES = 1e-12, 6


def main(argv: list[str]) -> int:
    if FLAGS.count < 1 or FLAGS.first < 0:
        return shell.refuse(f"--count={FLAGS.count} must be at least 1, and --first={FLAGS.first} at least 0.")
    shell.devices(DEVICES, x64=True)
    jax.config.update("jax_disable_most_optimizations", True)  # the law holds with and without; compiles faster
    path = tables.place(FLAGS.out, folder=False)
    rows: dict[str, Any] = json.loads(path.read_text())["rows"] if FLAGS.first and path.exists() else {}
    for number, one in enumerate(drawn(FLAGS.count, FLAGS.first), FLAGS.first):
        rows[str(number)] = {**one._asdict(), "difference": apart(one)}
        shell.say(f"{number} {one.method} on {one.net}: {rows[str(number)]['difference']}")
        jax.clear_caches()
        path.write_text(
            json.dumps({"largest": largest(rows), "rows": rows, "by": tables.provenance()}, indent=1) + "\n"
        )
    return 0 if largest(rows) <= LAW else 1  # a NaN is not


def largest(rows: dict[str, Any]) -> float:
    """The largest difference of any row that is no refusal."""
    found = [row["difference"] for row in rows.values()]
    return float(np.max([0.0, *(value for value in found if not isinstance(value, str))]))


if __name__ == "__main__":
    app.run(main)
