"""Which fan the Kaiming initialisation of direct feedback should take: the papers do not say.

    python -m experiments.studies.feedback_fan        # two CPU cores, twenty minutes

`in`: variance 2 / classes, as for a matrix that the error goes into; `out`: 2 / width of the block, as for one that
takes the place of weights from there.  Chosen by validation accuracy, over both networks and both methods.
"""

from absl import app, flags

from experiments import tables

flags.DEFINE_integer("epochs", 4, "passes over the training set")
tables.define_flags("feedback_fan")
FLAGS = flags.FLAGS

NETWORKS = {
    "mlp": {"net": "mlp", "widths": (256,) * 4, "activation": "relu", "norm": True},
    "two_conv": {"net": "two_conv", "limit": 10000},
}


def main(argv: list[str]) -> int:
    base = {
        "dataset": "fashion_mnist", "epochs": FLAGS.epochs, "batch_size": 128, "optimizer": "momentum",
        "learning_rate": 1e-2,
    }  # fmt: skip
    rows = {
        f"{net} {method} {fan}": {**base, **shape, "method": method, "method_options": (f"fan={fan}",)}
        for net, shape in NETWORKS.items()
        for method in ("dfa", "dkp")
        for fan in ("in", "out")
    }
    for name, row in rows.items():
        if row["method"] == "dkp":
            rows[name] = {**row, "feedback_learning_rate": 1e-4}
    columns = {
        "validation %": lambda summary: tables.spread(summary["validation_accuracy"]),
        "test %": lambda summary: tables.spread(summary["test_accuracy"]),
    }
    title = f"Fan of the feedback's initialisation, Fashion-MNIST, {FLAGS.epochs} epochs (two_conv: 10,000 examples)"
    return tables.run_rows("feedback_fan", title, rows, {"widths": (8, 8, 8)}, columns)


if __name__ == "__main__":
    app.run(main)
