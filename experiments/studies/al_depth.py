"""NECO tables 5 and 6: association loss and accuracy of Associated Learning by the number of blocks.

    python -m experiments.studies.al_depth --dataset=mnist --epochs=200 --trials=5  # the paper's set and epochs; a GPU
    python -m experiments.studies.al_depth  # Fashion-MNIST; two CPU cores, an hour

Blocks and targets of 1024; Adam 1e-3, cosine, batch 128 (the paper: 1e-4 with steps, batch 32).  Published, MNIST:
association losses of three blocks 1.2e-5, 3.8e-7, 6.7e-10; test accuracy 98.49 / 98.60 / 98.71 with 1 / 2 / 3 blocks.
Expect the loss to fall from block to block and accuracy to rise a little.
"""

from absl import app, flags

from experiments import tables

flags.DEFINE_string("dataset", "fashion_mnist", "what to train on")
flags.DEFINE_integer("epochs", 10, "passes over the training set")
flags.DEFINE_integer("limit", None, "training examples")
flags.DEFINE_integer("width", 1024, "features of each block and of each target")
tables.define_flags("al_depth")
FLAGS = flags.FLAGS


def main(argv: list[str]) -> int:
    base = {"method": "al", "net": "mlp", "target_width": FLAGS.width, "batch_size": 128, "schedule": "cosine"}
    base |= {"dataset": FLAGS.dataset, "epochs": FLAGS.epochs, "limit": FLAGS.limit}
    rows = {f"{depth} blocks": {**base, "widths": (FLAGS.width,) * depth} for depth in (1, 2, 3)}
    columns = {
        "association loss by block": lambda summary: ", ".join(
            f"{tables.mean(loss):.1e}" for loss in summary["association"]
        ),
        "test %": lambda summary: tables.spread(summary["test_accuracy"]),
        "test % by exit": lambda summary: ", ".join(tables.spread(value) for value in summary["exit_accuracy"]),
    }
    smoke = {"target_width": 16}
    title = f"NECO tables 5 and 6 on {FLAGS.dataset}: AL by the number of blocks"
    return tables.run_rows("al_depth", title, rows, smoke, columns, after=tables.last_of("association"))


if __name__ == "__main__":
    app.run(main)
