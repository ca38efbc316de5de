"""What the exits of a trained network give and cost, and what leaving early saves.

    python -m experiments.evaluate --workdir=runs/digits --exits --anytime

Reads the newest checkpoint of a run of `experiments.train`.  `--exits` writes `exits.json`: accuracy, FLOPs and latency
at every exit.  `--anytime` writes `anytime.json` and `anytime.png`: accuracy against FLOPs where an example leaves at
the first exit whose calibrated confidence passes a threshold; temperatures are fitted on the validation split, accuracy
is that of the test split.
"""

from pathlib import Path

import numpy as np
from absl import app, flags

from experiments import setup
from localgrad.report import draw_anytime, table
from localgrad.training import prepare, read_config, restore
from localgrad.training.exits import anytime, anytime_flops, collect, measure_exits, temperatures
from localgrad.training.workdir import write_json

flags.DEFINE_string("workdir", None, "folder of a run", required=True)
flags.DEFINE_bool("exits", True, "accuracy, FLOPs and latency at every exit")
flags.DEFINE_bool("anytime", False, "the curve of leaving early")
flags.DEFINE_list(
    "thresholds", ["0", "0.5", "0.7", "0.8", "0.9", "0.95", "0.98", "0.99", "0.999", "1.1"], "confidences"
)
setup.define_process_flags()
FLAGS = flags.FLAGS


def main(argv: list[str]) -> int:
    folder = Path(FLAGS.workdir)
    try:
        config = read_config(folder)
        if config.trials > 1:
            raise ValueError(
                f"{folder} holds {config.trials} trials; evaluate a run of one (--trials_by=loop makes them)."
            )
        thresholds = sorted(map(float, FLAGS.thresholds))
        setup.devices(1, x64=config.dtype == "float64")
        job = prepare(config)
        found = restore(job, folder)
    except (ValueError, FileNotFoundError) as error:
        return setup.refuse(str(error))
    model, states = job.model, found.states
    scores, labels = collect(model, states, job.eval_batches("test"))
    x = next(iter(job.eval_batches("test")))[0]
    rows = measure_exits(model, states, scores, labels, x)
    if FLAGS.exits:
        write_json(
            folder / "exits.json", {"step": found.step, "batch": len(x), "exits": [row._asdict() for row in rows]}
        )
        cells = [
            [row.exit, model.blocks[row.exit - 1].name, f"{row.accuracy:.2f}", f"{row.flops / 1e6:.3f}",
             f"{1e3 * row.seconds:.2f}"]
            for row in rows
        ]  # fmt: skip
        setup.say(table(["exit", "block", "test accuracy %", "MFLOP an example", f"ms a batch of {len(x)}"], cells))
    if FLAGS.anytime:
        fitted = temperatures(*collect(model, states, job.eval_batches("validation")))
        flops = anytime_flops(model, states, x)
        curve = anytime(scores, labels, fitted, flops, thresholds)
        result = {
            "step": found.step, "temperatures": fitted.tolist(), "flops": flops,
            "exits": [row._asdict() for row in rows], "curve": [row._asdict() for row in curve],
        }  # fmt: skip
        write_json(folder / "anytime.json", result)
        draw_anytime([(config.method, result)], folder / "anytime.png")
        cells = [
            [row.threshold, f"{row.accuracy:.2f}", f"{row.flops / 1e6:.3f}", " ".join(f"{s:.0%}" for s in row.shares)]
            for row in curve
        ]
        setup.say(table(["threshold", "test accuracy %", "MFLOP an example", "leave at exit"], cells))
        saved = 1 - np.array([row.flops for row in curve]) / curve[-1].flops
        setup.say(f"wrote {folder / 'anytime.json'} and .png; at most {saved.max():.0%} of the FLOPs saved")
    return 0


if __name__ == "__main__":
    app.run(main)
