"""ICLR tables 2 and 3 on texts: how many epochs AL and backpropagation need, at a constant rate.

    python -m experiments.studies.text_convergence  # two CPU cores, half an hour
    python -m experiments.studies.text_convergence --size=paper --trials=5 --epochs=50 --datasets=ag_news_subset  # GPU

`text_accuracy` lowers its rate over six epochs, which puts the best epoch of most methods at the end; here the rate
stays.  Epochs are counted to the best validation accuracy, as in the paper, and, because a best epoch says little of
curves that are flat, to a level that both methods pass: a point below the lower of their two mean best accuracies.

Published (best epoch, BP / AL): LSTM, IMDB 15.4 / 4, AG News 25.4 / 2.4, SST 16 / 2.3, DBpedia 31.8 / 14.6;
Transformer 35 / 4.4, 3.8 / 20.3, 6 / 9.7, 6.8 / 13.8.  Expect AL to need fewer with the LSTM; the paper's own figures
for the Transformer say otherwise on three sets of four.
"""

from pathlib import Path
from typing import Any

from absl import app, flags

from experiments import tables
from experiments.studies import text_rows
from localgrad.cli import shell

flags.DEFINE_list("datasets", ["wordnet_gloss", "movie_snippets"], "sets of texts")
flags.DEFINE_list("nets", list(text_rows.NETS), "networks")
flags.DEFINE_integer("epochs", 12, "passes over the training set")
text_rows.define_flags("text_convergence")
FLAGS = flags.FLAGS

METHODS = ("bp", "al")
BELOW = 1.0  # points of accuracy


def main(argv: list[str]) -> int:
    if not set(FLAGS.nets) <= set(text_rows.NETS):
        return shell.refuse(f"--nets={','.join(FLAGS.nets)}: there are {', '.join(text_rows.NETS)}.")
    pairs = [f"{dataset} {net}" for dataset in FLAGS.datasets for net in FLAGS.nets]
    rows = {
        f"{dataset} {net} {method}": text_rows.row(dataset, net, method, epochs=FLAGS.epochs, schedule="constant")
        for dataset in FLAGS.datasets
        for net in FLAGS.nets
        for method in METHODS
    }
    columns = {
        "best epoch": lambda summary: tables.spread(summary["best_epoch"], 1),
        "validation % then": lambda summary: tables.spread(summary["best_validation_accuracy"]),
        "test % then": lambda summary: tables.spread(summary["best_test_accuracy"]),
    }

    def conclude(found: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], str]:
        levels: dict[str, Any] = {}
        for pair in pairs:
            both = {method: found[row] for method in METHODS if (row := f"{pair} {method}") in found}
            if len(both) < len(METHODS) or any("diverged" in summary for summary in both.values()):
                continue
            level = min(tables.mean(summary["best_validation_accuracy"]) for summary in both.values()) - BELOW
            levels[pair] = {"level": level} | {
                method: tables.figure([first_at(curve, level) for curve in summary["validation"]])
                for method, summary in both.items()
            }
        says = "; ".join(
            f"{pair} ({entry['level']:.1f} %): "
            + ", ".join(f"{method} {tables.spread(entry[method], 1)}" for method in METHODS)
            for pair, entry in levels.items()
        )
        return {"levels": levels}, f"Epochs to a level of validation accuracy that both pass, {says}."

    return tables.run_rows(
        "text_convergence",
        f"ICLR tables 2 and 3 on {', '.join(FLAGS.datasets)}, constant rate, {FLAGS.epochs} epochs",
        rows,
        text_rows.SMOKE,
        columns,
        after=validation_curves,
        conclude=conclude,
    )


def validation_curves(row: str, workdirs: list[Path]) -> dict[str, Any]:
    """The validation accuracies of each trial, one an epoch."""
    return {"validation": [[record["accuracy"] for record in tables.records(d, "validation")] for d in workdirs]}


def first_at(curve: list[float], level: float) -> int:
    """The first epoch, from 1, whose accuracy is at least the level; one more than all where none is.

    Examples:
      >>> first_at([50.0, 61.0, 60.5], 60.0), first_at([50.0], 60.0)
      (2, 2)
    """
    return next((epoch for epoch, accuracy in enumerate(curve, 1) if accuracy >= level), len(curve) + 1)


if __name__ == "__main__":
    app.run(main)
