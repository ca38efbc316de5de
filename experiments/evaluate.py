"""What the exits of a trained network give and cost, and what leaving early saves.

    python -m experiments.evaluate --workdir=runs/digits --exits --anytime

Reads the newest checkpoint of a run of `experiments.train`.

- `--exits` writes `exits.json`: accuracy, FLOPs and latency at every exit.
- `--alignment` writes `alignment.json`: for each block the cosine of its own update with the true gradient of the
  network's loss, on a batch of the test split.
- `--anytime` writes `anytime.json` and `anytime.png`: accuracy against FLOPs where an example leaves at the first exit
  whose calibrated confidence passes a threshold; temperatures are fitted on the validation split, accuracy is that of
  the test split.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments import setup
from localgrad.base import BlockState, Model
from localgrad.pipeline.step import gradients
from localgrad.report import cosine, draw_anytime, table, true_gradients
from localgrad.training import prepare, read_config, restore
from localgrad.training.exits import anytime, anytime_flops, collect, measure_exits, temperatures
from localgrad.training.workdir import write_json

flags.DEFINE_string("workdir", None, "folder of a run", required=True)
flags.DEFINE_bool("exits", True, "accuracy, FLOPs and latency at every exit")
flags.DEFINE_bool("alignment", False, "cosine of each block's update with the true gradient")
flags.DEFINE_bool("anytime", False, "the curve of leaving early")
flags.DEFINE_list(
    "thresholds", ["0", "0.5", "0.7", "0.8", "0.9", "0.95", "0.98", "0.99", "0.999", "1.1"], "confidences"
)
setup.define_process_flags()
FLAGS = flags.FLAGS


def alignment(model: Model, states: tuple[BlockState, ...], x: jax.Array, y: jax.Array) -> list[float | None]:
    """Cosine of each block's update of `f` with backpropagation's gradient; None where a block has no `f`."""
    views = model.x_spec.ndim - x.ndim  # a method of two views is shown the same one twice
    message = model.enter(jnp.stack([x, x], axis=1) if views else x, y)
    keys = list(jax.random.split(jax.random.key(0), len(model.blocks)))
    ours = [grads for _, grads, _ in jax.jit(lambda states: gradients(model, states, message, keys))(states)]
    theirs = jax.jit(lambda states: true_gradients(model, states, x, y))(states)
    return [None if t is None else float(cosine(g["f"], t)) for g, t in zip(ours, theirs, strict=True)]


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
    x, y, mask = next(iter(job.eval_batches("test")))
    x, y = x[mask], y[mask]
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
    if FLAGS.alignment:
        cosines = alignment(model, states, x, y)
        write_json(folder / "alignment.json", {"step": found.step, "batch": len(x), "cosine": cosines})
        cells = [
            [i + 1, block.name, "" if value is None else f"{value:.3f}"]
            for i, (block, value) in enumerate(zip(model.blocks, cosines, strict=True))
        ]
        setup.say(table(["block", "name", "cosine with the true gradient"], cells))
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
