"""Associated Learning's profiles side by side, to choose the default: an MLP of three blocks of 512 on Fashion-MNIST.

    python -m experiments.al_profiles

Adam 1e-3, batch 128, eight epochs, seeds 0 and 1; the profile is chosen on validation, and test accuracy is shown
beside it.  Hardware: two cores, about fifteen minutes.  Expect the two profiles that detach the target at the top, near
88 %, and `iclr` below, the lower the later the exit.
"""

import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from experiments import setup
from localgrad.report import table
from localgrad.training import Config, prepare_all, run

flags.DEFINE_bool("smoke", False, "one epoch of a narrow network on digits, for tests")
flags.DEFINE_integer("seeds", 2, "runs of each row")
flags.DEFINE_string("out", "experiments/results/al_profiles.json", "file to write")
setup.define_process_flags()
FLAGS = flags.FLAGS

ROWS: dict[str, dict[str, Any]] = {
    "neco": {"profile": "neco"},
    "neco, one-layer bridge": {"profile": "neco", "bridge": ()},
    "iclr": {"profile": "iclr"},
    "iclr_head": {"profile": "iclr_head"},
}


def config(row: dict[str, Any], seed: int, workdir: str) -> Config:
    size: dict[str, Any] = {"dataset": "fashion_mnist", "widths": (512, 512, 512), "batch_size": 128, "epochs": 8}
    small: dict[str, Any] = {"dataset": "digits", "widths": (16, 16), "batch_size": 128, "epochs": 1}
    return Config(method="al", net="mlp", seed=seed, workdir=workdir, **(small if FLAGS.smoke else size), **row)


def main(argv: list[str]) -> int:
    setup.devices(1)
    rows = []
    for name, row in ROWS.items():
        summaries = []
        for seed in range(FLAGS.seeds):
            with tempfile.TemporaryDirectory() as folder:
                one = config(row, seed, folder)
                try:
                    summaries.append(run(one, prepare_all(one), lambda line: None))
                except FileNotFoundError as error:
                    return setup.refuse(str(error))
        mean = lambda key, summaries=summaries: np.mean([summary[key] for summary in summaries], axis=0).tolist()
        rows.append(
            {
                "profile": name,
                "validation_accuracy": mean("validation_accuracy"),
                "test_accuracy": mean("test_accuracy"),
                "test_accuracy_by_seed": [summary["test_accuracy"] for summary in summaries],
                "exit_accuracy": mean("exit_accuracy"),
            }
        )
        print(rows[-1], flush=True)
    best = max(rows, key=lambda row: row["validation_accuracy"])["profile"]
    result = {
        "command": " ".join(["python -m experiments.al_profiles", *sys.argv[1:]]),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "best_on_validation": best,
        "rows": rows,
    }
    Path(FLAGS.out).write_text(json.dumps(result, indent=2) + "\n")
    figures = lambda row: [row["validation_accuracy"], row["test_accuracy"], *row["exit_accuracy"]]
    cells = [[row["profile"], *(f"{figure:.2f}" for figure in figures(row))] for row in rows]
    exits = [f"exit {i + 1}" for i in range(len(rows[0]["exit_accuracy"]))]
    print(table(["profile", "validation", "test", *exits], cells))
    print(f"best on validation: {best}; wrote {FLAGS.out}")
    return 0


if __name__ == "__main__":
    app.run(main)
