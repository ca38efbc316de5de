"""NECO section 5.4: how far the metafeatures hold the classes apart, and how they look in two dimensions.

    python -m experiments.studies.distances --dataset=cifar10 --net=vanilla_cnn --epochs=200  # as the paper; a GPU
    python -m experiments.studies.distances --trials=1 --epochs=5  # Fashion-MNIST; two CPU cores

Metafeatures are all that prediction makes on its way: the encoders' outputs, for Associated Learning the top bridge's
and each decoder's, and the scores.  Distances between centroids and within classes of each, of the raw input too, on
2,000 test examples, and t-SNE panels of the same of the first trial.  The paper does not say of which layer its table 7
is; AL's distances there, below the root of 2 and growing with accuracy, are those of outputs in [0, 1], so here too the
table is of the scores.

Published, inter, intra, ratio, BP -> AL: CIFAR-10 MLP 39.36, 67.97, 0.58 -> 0.73, 0.66, 1.11; CNN 41.82, 26.87, 1.56 ->
1.17, 0.36, 3.25; CIFAR-100 MLP ratio 0.33 -> 0.82, CNN 0.70 -> 1.08.  Expect AL's ratios to be larger.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments import tables
from localgrad.base import BlockState, Model
from localgrad.cli import shell
from localgrad.evaluation.accuracy import EvalBatches
from localgrad.report import class_distances, draw_embeddings
from localgrad.report.distances import Distances
from localgrad.training import prepare, read_config, restore

flags.DEFINE_string("dataset", "fashion_mnist", "what to train on")
flags.DEFINE_string("net", "mlp", "network")
flags.DEFINE_list("methods", ["bp_matched", "al"], "methods")
flags.DEFINE_integer("epochs", 10, "passes over the training set")
flags.DEFINE_integer("limit", None, "training examples")
tables.define_flags("distances")
FLAGS = flags.FLAGS

EXAMPLES, SHOWN = 2000, 500


def metafeatures(
    model: Model, states: Sequence[BlockState], batches: EvalBatches
) -> tuple[list[np.ndarray], np.ndarray]:
    """`model.features` of the first examples, before them the raw input unless it is of words, and their labels."""
    run = jax.jit(model.features)
    found, labels = [], []
    for x, y, mask in batches:
        keep = np.asarray(mask)
        raw = [x] if jnp.issubdtype(x.dtype, jnp.floating) else []
        found.append([np.asarray(each)[keep] for each in (*raw, *run(states, x))])
        labels.append(np.asarray(y)[keep])
        if sum(map(len, labels)) >= EXAMPLES:
            break
    return [np.concatenate(each)[:EXAMPLES] for each in zip(*found, strict=True)], np.concatenate(labels)[:EXAMPLES]


def distances(row: str, workdirs: list[Path]) -> dict[str, Any]:
    """Distances at the scores and the ratio along the path of inference; draws the first trial."""
    found: list[list[Distances]] = []
    for trial, workdir in enumerate(workdirs):
        job = prepare(read_config(workdir), resume=False)
        states = restore(job.specs, workdir).states
        layers, labels = metafeatures(job.model, states, job.eval_batches("test"))
        names = ["input", *job.model.path][-len(layers) :]
        found.append([class_distances(layer, labels) for layer in layers])
        if trial == 0:
            path = Path(FLAGS.out) / f"distances_{row.replace(' ', '_')}.png"
            draw_embeddings([layer[:SHOWN] for layer in layers], labels[:SHOWN], names, path)
            shell.say(f"wrote {path}")
    by_layer = {
        kind: {
            name: tables.figure([getattr(each, kind) for each in trials])
            for name, trials in zip(names, zip(*found, strict=True), strict=True)
        }
        for kind in Distances._fields
    }
    return {"by_layer": by_layer}


def of_scores(kind: str) -> Callable[[dict[str, Any]], str]:
    """The cell of a distance at the scores."""
    return lambda summary: tables.spread(summary["by_layer"][kind]["scores"])


def along(summary: dict[str, Any]) -> str:
    """The cell of the ratios from the input to the scores."""
    return ", ".join(f"{name} {tables.spread(value)}" for name, value in summary["by_layer"]["ratio"].items())


def main(argv: list[str]) -> int:
    tables.place(FLAGS.out, folder=True)
    base = {"net": FLAGS.net, "dataset": FLAGS.dataset, "epochs": FLAGS.epochs, "limit": FLAGS.limit, "batch_size": 128}
    rows = {method: {**base, "method": method} for method in FLAGS.methods}
    columns = {
        "test %": lambda summary: tables.spread(summary["test_accuracy"]),
        "inter": of_scores("inter"),
        "intra": of_scores("intra"),
        "inter / intra": of_scores("ratio"),
        "inter / intra along the path of inference": along,
    }
    title = f"NECO section 5.4 on {FLAGS.dataset}, {FLAGS.net}: class distances of the scores, and of all before them"
    return tables.run_rows("distances", title, rows, {"net": "mlp", "widths": (16, 16)}, columns, after=distances)


if __name__ == "__main__":
    app.run(main)
