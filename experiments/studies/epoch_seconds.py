"""Delog-SCL table 7: seconds an epoch of backpropagation, Delog-SCL and Associated Learning.

    python -m experiments.studies.epoch_seconds                                    # the paper's networks; a GPU
    python -m experiments.studies.epoch_seconds --nets=mlp,cnn --batches=8         # two CPU cores

One device, CIFAR-sized images, batch 128, an epoch of 50,000.  Methods take turns; the figure is the median of each and
its ratio to backpropagation within the same run.  Published, ConvNet / VGG / ResNet: SCL 16.6 51.6 42.1, BP 15.7 50.1
42.1, AL 22.8 71.4 56.6, that is SCL 1.06 1.03 1.00 and AL 1.45 1.43 1.34 times BP.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments import tables
from experiments.benchmarks import turns
from localgrad import init, sequential
from localgrad.blocks import NETWORKS, networks_of
from localgrad.cli import shell
from localgrad.data import batches
from localgrad.methods import METHODS

flags.DEFINE_list("nets", ["convnet", "vgg8b", "resnet18"], "networks")
flags.DEFINE_list("methods", ["bp", "scl", "al", "early_exit", "predsim", "dgl"], "methods; ratios are to the first")
flags.DEFINE_integer("batches", 20, "batches a measurement")
flags.DEFINE_integer("repetitions", 5, "measurements of each, taken in turns")
tables.define_flags("seconds")
FLAGS = flags.FLAGS

BATCH, IMAGE, EPOCH, CLASSES = 128, (32, 32, 3), 50_000, 10
PUBLISHED = {
    "convnet scl": 1.06, "convnet al": 1.45, "vgg8b scl": 1.03, "vgg8b al": 1.43, "resnet18 scl": 1.0,
    "resnet18 al": 1.34,
}  # fmt: skip


def measured(net: str) -> dict[str, list[float]]:
    """Seconds a batch of every method, one value a repetition."""
    batch, image, count = (8, (8, 8, 1), 2) if FLAGS.smoke else (BATCH, IMAGE, FLAGS.batches)
    shape = {"widths": (16, 16)} if FLAGS.smoke else {}
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.standard_normal((count, batch, *image), np.float32))
    fed = batches(xs, jnp.asarray(rng.integers(0, CLASSES, (count, batch), np.int32)))
    spec = jax.ShapeDtypeStruct((batch, *image), jnp.float32)
    engines, states = {}, {}
    for method in FLAGS.methods:
        options: dict[str, Any] = {"pool": 2048} if method in ("al", "scl", "early_exit") else {}
        model = METHODS[method](
            NETWORKS[net](**shape), spec, CLASSES, lambda scale: optax.adam(1e-3 * scale), **options
        )
        engines[method] = sequential(model)
        states[method] = engines[method].load(init(model, jax.random.key(0)), jax.random.key(1))

    def train(method: str):
        states[method], metrics = engines[method].run(states[method], fed)
        return metrics

    found = turns.in_turns({method: partial(train, method) for method in engines}, FLAGS.repetitions)
    return {method: [value / count for value in values] for method, values in found.items()}


def main(argv: list[str]) -> int:
    tables.place(FLAGS.out, folder=True)
    for flag, given, known in (("methods", FLAGS.methods, METHODS), ("nets", FLAGS.nets, networks_of("images"))):
        if not given or not set(given) <= set(known):
            return shell.refuse(f"--{flag}={','.join(given)}: there are {', '.join(known)}.")
    shell.devices(1)
    rows: dict[str, dict] = {}
    for net in ["mlp"] if FLAGS.smoke else FLAGS.nets:
        by_method = measured(net)
        base = by_method[FLAGS.methods[0]]
        for method, seconds in by_method.items():
            ratios = [a / b for a, b in zip(seconds, base, strict=True)]
            rows[f"{net} {method}"] = {"seconds_a_batch": seconds, "ratio": tables.figure(ratios)}
            shell.say(f"{net} {method}: {np.median(seconds) * EPOCH / BATCH:.1f} s an epoch")
    cells = [
        [name, f"{np.median(row['seconds_a_batch']) * EPOCH / BATCH:.1f}", tables.spread(row["ratio"]),
         PUBLISHED.get(name, "")]
        for name, row in rows.items()
    ]  # fmt: skip
    what = f"Seconds an epoch of {EPOCH} examples, batch {BATCH}, heads pooled to 2048 features"
    note = f"{what}; ratio to {FLAGS.methods[0]}."
    tables.write("seconds", ["row", "s an epoch", "ratio", "published ratio"], cells, {"rows": rows}, note)
    return 0


if __name__ == "__main__":
    app.run(main)
