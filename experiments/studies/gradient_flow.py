"""Delog-SCL figure 4: many short gradient flows against one long one, on the same network.

    python -m experiments.studies.gradient_flow --dataset=cifar10 --net=convnet --epochs=300  # as the paper; a GPU
    python -m experiments.studies.gradient_flow --trials=1 --limit=10000  # Fashion-MNIST; two CPU cores

The long flow is backpropagation of the output's cross-entropy through the network, without local losses.  Writes test
accuracy by epoch and draws it.  Published: the short flows learn faster, above all in the first hundred epochs.
"""

from pathlib import Path
from typing import Any

from absl import app, flags

from experiments import tables
from localgrad.report import draw_lines

flags.DEFINE_string("dataset", "fashion_mnist", "what to train on")
flags.DEFINE_string("net", "cnn", "network")
flags.DEFINE_integer("epochs", 10, "passes over the training set")
flags.DEFINE_integer("limit", None, "training examples")
tables.define_flags("gradient_flow")
FLAGS = flags.FLAGS


def by_epoch(row: str, workdirs: list[Path]) -> dict[str, Any]:
    """Test accuracy after each epoch."""
    accuracies = [[record["accuracy"] for record in tables.records(workdir, "test")] for workdir in workdirs]
    return {"test_by_epoch": [tables.figure(values) for values in zip(*accuracies, strict=True)]}


def main(argv: list[str]) -> int:
    base = {"net": FLAGS.net, "dataset": FLAGS.dataset, "epochs": FLAGS.epochs, "limit": FLAGS.limit, "batch_size": 128}
    pooled = {"method_options": ("pool=2048",)}
    rows = {"many short flows": {**base, "method": "scl", **pooled}, "one long flow": {**base, "method": "bp"}}
    columns = {
        "test % by epoch": lambda summary: ", ".join(tables.spread(value) for value in summary["test_by_epoch"]),
    }
    title = f"Delog-SCL figure 4 on {FLAGS.dataset}, {FLAGS.net}: one long gradient flow against many short ones"
    status = tables.run_rows("gradient_flow", title, rows, {"net": "mlp", "widths": (16, 16)}, columns, after=by_epoch)
    if status == 0:
        found = tables.read("gradient_flow")["rows"]
        lines = {row: [tables.mean(value) for value in summary["test_by_epoch"]] for row, summary in found.items()}
        draw_lines(lines, "epoch", "test accuracy, %", Path(FLAGS.out) / "gradient_flow.png")
    return status


if __name__ == "__main__":
    app.run(main)
