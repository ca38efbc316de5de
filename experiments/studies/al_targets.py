"""How long the target side of Associated Learning takes to learn its codes: five autoencoders, each on the one below.

    python -m experiments.studies.al_targets        # two CPU cores, five minutes

In the profiles that detach the target, g and h learn from labels alone, whatever the network is; so it is a small one
here.  A code whose autoencoder has not converged tells some classes badly apart, and no network above can mend it.  The
steps are those of `python -m experiments.studies.accuracy --table=fashion_cnn` (10 epochs of 10,000 examples) and more.
"""

from functools import partial
from typing import Any

from absl import app, flags

from experiments import tables

flags.DEFINE_list("epochs", ["10", "30"], "passes over 10,000 examples, 78 steps each")
flags.DEFINE_list("profiles", ["neco", "iclr_head"], "profiles of al")
flags.DEFINE_integer("depth", 5, "blocks")
tables.define_flags("al_targets")
FLAGS = flags.FLAGS


def loss_of(block: int, summary: dict[str, Any]) -> str:
    """The autoencoder loss of a block, its mean over trials."""
    return f"{tables.mean(summary['autoencoder'][block]):.0e}"


def main(argv: list[str]) -> int:
    rows = {
        f"{profile} {epochs} epochs": {
            "method": "al", "profile": profile, "net": "mlp", "widths": (16,) * FLAGS.depth, "epochs": int(epochs),
            "dataset": "fashion_mnist", "limit": 10000, "batch_size": 128, "optimizer": "adam", "learning_rate": 1e-3,
            "schedule": "cosine",
        }
        for profile in FLAGS.profiles
        for epochs in FLAGS.epochs
    }  # fmt: skip
    columns = {"steps": lambda summary: str(summary["steps"])}
    columns |= {f"block {i + 1}": partial(loss_of, i) for i in range(FLAGS.depth)}
    title = "Autoencoder loss of each block of Associated Learning, Adam 1e-3 with a cosine schedule"
    after = tables.last_of("autoencoder")
    return tables.run_rows("al_targets", title, rows, {"widths": (8,) * FLAGS.depth}, columns, after=after)


if __name__ == "__main__":
    app.run(main)
