"""ICLR table 4's epochs, on images: how many epochs to the best validation accuracy.

    python -m experiments.studies.convergence --trials=5                                  # Fashion-MNIST; a GPU
    python -m experiments.studies.convergence --nets=mlp --epochs=10 --trials=1           # two CPU cores

Published, Fashion-MNIST (epoch of the best accuracy, BP / AL): CNN 58.4 / 11.6, VGG 32 / 25.  Tables 2 and 3, on
texts, are `text_convergence`.  Expect AL to need fewer; the epoch is chosen on validation, accuracy is that of the
test split then.
"""

from absl import app, flags

from experiments import tables
from experiments.studies.paper_networks import AL_CNN, AL_VGG, baseline

flags.DEFINE_string("dataset", "fashion_mnist", "what to train on")
flags.DEFINE_list("nets", ["vanilla_cnn", "vgg8b"], "networks")
flags.DEFINE_integer("epochs", 100, "passes over the training set")
flags.DEFINE_integer("limit", None, "training examples")
tables.define_flags("convergence")
FLAGS = flags.FLAGS

PUBLISHED = {"vanilla_cnn bp_matched": 58.4, "vanilla_cnn al": 11.6, "vgg8b bp_matched": 32, "vgg8b al": 25}
PAPER = {shape["net"]: shape for shape in (AL_CNN, AL_VGG)}


def main(argv: list[str]) -> int:
    base = {"dataset": FLAGS.dataset, "epochs": FLAGS.epochs, "limit": FLAGS.limit, "batch_size": 128}
    base |= {"learning_rate": 1e-4, "schedule": "cosine"}
    shapes = {net: PAPER.get(net, {"net": net}) for net in FLAGS.nets}
    rows = {
        f"{net} {method}": {**base, **row}
        for net, shape in shapes.items()
        for method, row in (("bp_matched", baseline(shape)), ("al", {**shape, "method": "al"}))
    }
    columns = {
        "best epoch": lambda summary: tables.spread(summary["best_epoch"], 1),
        "test % then": lambda summary: tables.spread(summary["best_test_accuracy"]),
        "test % at the end": lambda summary: tables.spread(summary["test_accuracy"]),
    }
    title = f"Epochs to the best validation accuracy on {FLAGS.dataset}"
    smoke = {"net": "mlp", "widths": (16, 16), "blocks": None, "net_options": ()}
    published = (
        {row: f"epoch {epoch}" for row, epoch in PUBLISHED.items()} if FLAGS.dataset == "fashion_mnist" else None
    )
    return tables.run_rows("convergence", title, rows, smoke, columns, published=published)


if __name__ == "__main__":
    app.run(main)
