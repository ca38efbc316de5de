"""ICLR table 5: training with random labels, backpropagation against Associated Learning.

    python -m experiments.studies.label_noise --dataset=cifar10 --trials=5  # the paper's set; a GPU
    python -m experiments.studies.label_noise --trials=1 --limit=10000 --epochs=10  # two cores, half an hour

A share theta of the training labels is drawn anew.  Published, CIFAR-10: at theta 0.6 BP 39.23 and AL 64.74 % test, at
0.2 71.18 and 82.19; at 1.0 training accuracy 68.75 and 8.59.  Expect AL to fit noise less and to test better.
"""

from pathlib import Path
from typing import Any

from absl import app, flags

from experiments import tables
from experiments.studies.paper_networks import AL_CNN, baseline
from localgrad.training import make_evaluator, prepare, read_config, restore

flags.DEFINE_string("dataset", "fashion_mnist", "what to train on")
flags.DEFINE_integer("epochs", 100, "passes over the training set")
flags.DEFINE_integer("limit", None, "training examples")
flags.DEFINE_list("theta", ["0", "0.2", "0.4", "0.6", "0.8", "1"], "shares of random labels")
tables.define_flags("label_noise")
FLAGS = flags.FLAGS

METHODS = {"BP": baseline(AL_CNN), "AL": {**AL_CNN, "method": "al"}}
SMOKE = {"net": "mlp", "widths": (16, 16), "blocks": None, "target_width": None, "learning_rate": 1e-3}


def train_accuracy(row: str, workdirs: list[Path]) -> dict[str, Any]:
    """Accuracy on the training split with the labels that were trained on."""
    found = []
    for workdir in workdirs:
        job = prepare(read_config(workdir), resume=False)
        evaluate = make_evaluator(job.model)
        found.append(float(evaluate(restore(job.specs, workdir).states, job.eval_batches("train"))[-1]))
    return {"train_accuracy": tables.figure(found)}


def main(argv: list[str]) -> int:
    thetas = [0.6] if FLAGS.smoke else [float(theta) for theta in FLAGS.theta]
    base = {
        "batch_size": 128,
        "learning_rate": 1e-4,
        "dataset": FLAGS.dataset,
        "epochs": FLAGS.epochs,
        "limit": FLAGS.limit,
    }
    rows = {
        f"{name} theta {theta:g}": {**base, **method, "label_noise": theta}
        for theta in thetas
        for name, method in METHODS.items()
    }
    return tables.run_rows(
        "label_noise", "ICLR table 5: test accuracy with a share theta of random training labels", rows, SMOKE,
        {
            "train % (noisy labels)": lambda summary: tables.spread(summary["train_accuracy"]),
            "test %": lambda summary: tables.spread(summary["test_accuracy"]),
        },
        after=train_accuracy,
    )  # fmt: skip


if __name__ == "__main__":
    app.run(main)
