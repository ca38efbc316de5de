"""Associated Learning's profiles side by side, to choose the default: an MLP of three blocks of 512 on Fashion-MNIST.

    python -m experiments.studies.al_profiles --trials=2

Adam 1e-3, batch 128, eight epochs, seeds 0 and 1; the profile is chosen on validation, and test accuracy is shown
beside it.  Hardware: two cores, about fifteen minutes.  Expect the two profiles that detach the target at the top, near
88 %, and `iclr` below, the lower the later the exit.
"""

from typing import Any

from absl import app, flags

from experiments import tables

tables.define_flags("al_profiles")
FLAGS = flags.FLAGS

ROWS: dict[str, dict[str, Any]] = {
    "neco": {"profile": "neco"},
    "neco, one-layer bridge": {"profile": "neco", "bridge": ()},
    "iclr": {"profile": "iclr"},
    "iclr_head": {"profile": "iclr_head"},
}


def main(argv: list[str]) -> int:
    base: dict[str, Any] = {"method": "al", "net": "mlp", "widths": (512, 512, 512), "dataset": "fashion_mnist"}
    base |= {"batch_size": 128, "epochs": 8}
    rows = {name: {**base, **row} for name, row in ROWS.items()}
    columns = {
        "validation %": lambda summary: tables.spread(summary["validation_accuracy"]),
        "test %": lambda summary: tables.spread(summary["test_accuracy"]),
        "test % by exit": lambda summary: ", ".join(tables.spread(value) for value in summary["exit_accuracy"]),
    }
    return tables.run_rows(
        "al_profiles", "Profiles of Associated Learning on Fashion-MNIST", rows, {"widths": (16, 16)}, columns
    )


if __name__ == "__main__":
    app.run(main)
