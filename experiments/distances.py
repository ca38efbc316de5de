"""NECO section 5.4: how far the features of each block hold the classes apart, and how they look in two dimensions.

    python -m experiments.distances --dataset=cifar10 --net=vanilla_cnn --epochs=200    # as the paper; a GPU
    python -m experiments.distances --trials=1 --epochs=5                               # Fashion-MNIST; two CPU cores

Distances between centroids and within classes on 2,000 test examples, and a t-SNE figure by block of the first trial.
Published, ratio inter / intra, BP -> AL: CIFAR-10 MLP 0.58 -> 1.11, CNN 1.56 -> 3.25.  Expect AL's to be larger.
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments import setup, study
from localgrad.report import class_distances, draw_embeddings
from localgrad.training import prepare, read_config, restore

flags.DEFINE_string("dataset", "fashion_mnist", "what to train on")
flags.DEFINE_string("net", "mlp", "network")
flags.DEFINE_list("methods", ["bp_matched", "al"], "methods")
flags.DEFINE_integer("epochs", 10, "passes over the training set")
flags.DEFINE_integer("limit", None, "training examples")
study.define_flags("distances")
FLAGS = flags.FLAGS

EXAMPLES, SHOWN = 2000, 500


def by_block(row: str, workdirs: list[Path]) -> dict[str, Any]:
    """Distances at the last block and the ratio at every block; draws the first trial."""
    ratios, last = [], []
    for trial, workdir in enumerate(workdirs):
        job = prepare(read_config(workdir), resume=False)
        states = restore(job, workdir).states
        features, labels = [], []
        for x, y, mask in job.eval_batches("test"):
            keep = np.asarray(mask)
            features.append([np.asarray(each)[keep] for each in job.model.features(states, x)])
            labels.append(np.asarray(y)[keep])
        blocks = [np.concatenate(each)[:EXAMPLES] for each in zip(*features, strict=True)]
        truth = np.concatenate(labels)[:EXAMPLES]
        found = [class_distances(block, truth) for block in blocks]
        ratios.append([each.ratio for each in found])
        last.append(found[-1])
        if trial == 0:
            path = Path(FLAGS.out) / f"distances_{row.replace(' ', '_')}.png"
            names = [f"block {i + 1}" for i in range(len(blocks))]
            draw_embeddings([block[:SHOWN] for block in blocks], truth[:SHOWN], names, path)
            setup.say(f"wrote {path}")
    return {
        "inter": study.figure([each.inter for each in last]),
        "intra": study.figure([each.intra for each in last]),
        "ratio_by_block": [study.figure(values) for values in zip(*ratios, strict=True)],
    }


def main(argv: list[str]) -> int:
    Path(FLAGS.out).mkdir(parents=True, exist_ok=True)
    base = {"net": FLAGS.net, "dataset": FLAGS.dataset, "epochs": FLAGS.epochs, "limit": FLAGS.limit, "batch_size": 128}
    rows = {method: {**base, "method": method} for method in FLAGS.methods}
    columns = {
        "test %": lambda summary: study.spread(summary["test_accuracy"]),
        "inter, last block": lambda summary: study.spread(summary["inter"]),
        "intra, last block": lambda summary: study.spread(summary["intra"]),
        "inter / intra by block": lambda summary: ", ".join(study.spread(value) for value in summary["ratio_by_block"]),
    }
    title = f"NECO section 5.4 on {FLAGS.dataset}, {FLAGS.net}: class distances of the features of each block"
    return study.run_rows("distances", title, rows, {"net": "mlp", "widths": (16, 16)}, columns, after=by_block)


if __name__ == "__main__":
    app.run(main)
