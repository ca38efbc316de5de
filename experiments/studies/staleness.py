"""What staleness costs: accuracy when updates come late, as on a pipeline that never waits.

    python -m experiments.studies.staleness        # Fashion-MNIST, an MLP of 7 hidden blocks; two CPU cores, an hour

On S stages of direct feedback (`dfa`, `dkp`) a block of stage s learns from a batch S - 1 - s batches late
(`--staleness=delayed`); of synthetic gradients and local critics (`dni`, `critic`) the synthesizer or critic of a
stage's last block learns 1 batch late, and nothing else is late.  `locked` has no delay on any number of stages, so it
is one row; so is one stage.  The delays run on the sequential engine, which gives the numbers of the pipeline.  Batch
128, batch norm, SGD with momentum 0.9 at 1e-2, synthesizers by Adam at 1e-3; expect a small loss that grows with S of
direct feedback.
"""

from typing import Any

from absl import app, flags

from experiments import tables

flags.DEFINE_integer("epochs", 5, "passes over the training set")
flags.DEFINE_list("methods", ["dfa", "dkp", "dni", "critic"], "methods")
flags.DEFINE_float("learning_rate", 1e-2, "rate of the weights")
tables.define_flags("staleness")
FLAGS = flags.FLAGS

OWN: dict[
    str, dict[str, Any]
] = {  # what a method has in place of the shared settings, and its numbers of stages: dni and critic have 7 blocks
    "dkp": {"feedback_learning_rate": 1e-4},
    "dni": {"feedback_optimizer": "adam", "feedback_learning_rate": 1e-3},
}
STAGES = {"dni": (2, 4, 7), "critic": (2, 4, 7)}


def main(argv: list[str]) -> int:
    base = {
        "net": "mlp", "widths": (256,) * 7, "activation": "relu", "norm": True, "dataset": "fashion_mnist",
        "epochs": FLAGS.epochs, "batch_size": 128, "optimizer": "momentum", "learning_rate": FLAGS.learning_rate,
        "engine": "sequential",
    }  # fmt: skip
    rows = {}
    for method in FLAGS.methods:
        own = {**base, "method": method, **OWN.get(method, {})}
        rows[f"{method} locked, or 1 stage"] = {**own, "staleness": "locked"}
        rows |= {
            f"{method} delayed, {stages} stages": {**own, "stages": stages} for stages in STAGES.get(method, (2, 4, 8))
        }
    columns = {
        "test %": lambda summary: tables.spread(summary["test_accuracy"]),
        "validation %": lambda summary: tables.spread(summary["validation_accuracy"]),
        "training loss": lambda summary: tables.spread(summary["block_loss"][-1], 3),
    }
    title = f"Staleness on Fashion-MNIST: an MLP of seven hidden blocks of 256, {FLAGS.epochs} epochs"
    return tables.run_rows("staleness", title, rows, {"widths": (8,) * 7}, columns)


if __name__ == "__main__":
    app.run(main)
