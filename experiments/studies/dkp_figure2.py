"""DKP figure 2: how well direct feedback comes to stand for the network above it, step by step.

    python -m experiments.studies.dkp_figure2        # Fashion-MNIST; two CPU cores, ten minutes

Five dense layers, batch norm and ReLU after each hidden one, cross-entropy, 18,000 batches.  On the same 500 validation
examples every so many batches, for DFA and DKP and each hidden block l: the angle between a_l B_l^T and the output's
pre-activation (the paper's figure), between B^T and the weights above (of the last hidden block, where they are one
matrix), and between the block's update and the true gradient; all three of one training step on these examples, with
their batch statistics.  Writes `dkp_figure2.json` and a figure of the first.

Published (MNIST): DKP's angles well below DFA's but at the first layer, lower towards the output.  So it is where the
feedback learns at the weights' rate; at the 1e-4 of the paper's convolutional network it stays with DFA.  The updates
follow: those of DKP are nearer to the true gradient than DFA's, nearest at the last hidden block.
"""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from experiments import tables
from localgrad.cli import shell
from localgrad.evaluation.alignment import aligner
from localgrad.report import draw_panels
from localgrad.training import Config, prepare

flags.DEFINE_string("dataset", "fashion_mnist", "what to train on")
flags.DEFINE_integer("steps", 18000, "batches")
flags.DEFINE_integer("every", 300, "batches between two looks")
flags.DEFINE_float(
    "feedback_learning_rate", 1e-2, "rate of DKP's feedback; the paper states none, this is the weights'"
)
flags.DEFINE_integer("width", 256, "features of the hidden layers; the paper states none")
tables.define_flags("dkp_figure2")
FLAGS = flags.FLAGS


def degrees(cosines: list[Any]) -> list[float | None]:
    """Angles of cosines."""
    return [None if value is None else float(np.degrees(np.arccos(np.clip(value, -1, 1)))) for value in cosines]


def trace(method: str) -> dict[str, Any]:
    """The angles of each hidden block over time: `{"steps": [...], "projection": [a list a block], ...}`."""
    small = FLAGS.smoke
    config = Config(
        method=method,
        widths=(8 if small else FLAGS.width,) * 4,
        activation="relu",
        norm=True,
        dataset="digits" if small else FLAGS.dataset,
        batch_size=128,
        epochs=1000,
        optimizer="momentum",
        learning_rate=1e-2,
        weight_decay=1e-6,
        decay_times_rate=False,
        feedback_learning_rate=FLAGS.feedback_learning_rate if method == "dkp" else None,
        workdir=str(Path(FLAGS.workdir) / method),
    )
    steps, every = (4, 2) if small else (FLAGS.steps, FLAGS.every)
    job = prepare(config)
    model, engine = job.model, job.engine
    x, y, _ = next(iter(job.eval_batches("validation")))
    state = engine.load(job.begin.draw(jax.random.key(0)), jax.random.key(1))
    look = aligner(model)
    found: dict[str, list[list[float | None]]] = {"projection": [], "weights": [], "update": []}
    for step in range(0, steps + 1, every):
        for name, values in look(engine.states(state), x, y).items():
            found[name].append(degrees(values)[:-1])
        if step < steps:
            state, _ = engine.run(state, job.source.batches(step, every))
    by_block = {name: [list(values) for values in zip(*rows, strict=True)] for name, rows in found.items()}
    return {"steps": list(range(0, steps + 1, every)), **by_block}


def main(argv: list[str]) -> int:
    tables.place(FLAGS.out, folder=True)
    shell.devices(1)
    began, traces = time.perf_counter(), {}
    for method in ("dfa", "dkp"):
        traces[method] = trace(method)
        shell.say(f"{method}: {time.perf_counter() - began:.0f} s")
    cells = [
        [method, block + 1, *(f"{values[block][-1]:.1f}" if values[block][-1] is not None else "" for values in kinds)]
        for method, traced in traces.items()
        for kinds in [[traced["projection"], traced["weights"], traced["update"]]]
        for block in range(len(kinds[0]))
    ]
    header = ["method", "block", "a B^T and output", "B^T and weights above", "update and true gradient"]
    title = f"DKP figure 2 on {FLAGS.dataset}: angles in degrees after the last batch"
    tables.write("dkp_figure2", header, cells, {"title": title, "traces": traces}, f"{title}.")
    panels = {
        method: {f"block {i + 1}": values for i, values in enumerate(traced["projection"])}
        for method, traced in traces.items()
    }
    path = Path(FLAGS.out) / "dkp_figure2.png"
    draw_panels(panels, traces["dfa"]["steps"], "batches", "angle between a B^T and the output, degrees", path)
    shell.say(f"wrote {path}")
    return 0


if __name__ == "__main__":
    app.run(main)
