"""ICLR table 6: which parts of Associated Learning matter, on a BiLSTM.

    python -m localgrad data prepare wordnet_gloss
    python -m experiments.studies.text_ablation  # two CPU cores, half an hour
    python -m experiments.studies.text_ablation --dataset=ag_news_subset --size=paper --trials=5  # the paper's; a GPU

`no stops` lets gradients flow between the blocks; `no stops, top association` has the association loss of the last
block alone besides; `one autoencoder` puts one bridge and one autoencoder on a network trained as a whole; `no
autoencoders` classifies at every block (Early Exit); `three-layer head` is backpropagation with three dense layers
behind the network, the hidden ones of the width of AL's targets, which the paper does not state.  Published, AG News:
see the last column, accuracy and epochs.
"""

from typing import Any

from absl import app, flags

from experiments import tables
from experiments.studies import text_rows

flags.DEFINE_string("dataset", "wordnet_gloss", "a set of texts")
text_rows.define_flags("text_ablation")
FLAGS = flags.FLAGS

ROWS: dict[str, dict[str, Any]] = {
    "AL": {"method": "al"},
    "no stops": {"method": "al", "method_options": ("stops=False",)},
    "no stops, top association": {"method": "al", "method_options": ("stops=False", "association=top")},
    "one autoencoder": {"method": "al", "blocks": (1,)},
    "no autoencoders": {"method": "early_exit"},
    "three-layer head": {"method": "bp"},
    "BP": {"method": "bp"},
}
PUBLISHED = {
    "AL": "91.53, 2.4", "no stops": "91.39, 2.2", "no stops, top association": "91.48, 23.8",
    "one autoencoder": "90.75, 27.5", "no autoencoders": "89.30 at exit 1, 89.39 at the last, 7.8",
    "three-layer head": "90.15, 37.6", "BP": "90.32, 25.4",
}  # fmt: skip


def main(argv: list[str]) -> int:
    rows = {name: text_rows.row(FLAGS.dataset, "bilstm", **fields) for name, fields in ROWS.items()}
    width = text_rows.TARGET_WIDTH[FLAGS.size]
    rows["three-layer head"]["method_options"] = (f"hidden=({width}, {width})",)
    columns = {
        "test %": lambda summary: tables.spread(summary["best_test_accuracy"]),
        "by exit": lambda summary: ", ".join(map(tables.spread, summary["best_exit_accuracy"])),
        "best epoch": lambda summary: tables.spread(summary["best_epoch"], 1),
        "parameters, effective + affiliated": lambda summary: " + ".join(
            f"{summary['params'][kind]:,}" for kind in ("effective", "affiliated")
        ),
    }
    title = f"ICLR table 6 on {FLAGS.dataset}; the epoch is that of the best validation accuracy"
    published = PUBLISHED if FLAGS.dataset == "ag_news_subset" else None
    return tables.run_rows("text_ablation", title, rows, text_rows.SMOKE, columns, published=published)


if __name__ == "__main__":
    app.run(main)
