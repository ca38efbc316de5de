"""ICLR tables 1, 9 and 10 on texts: accuracy at every exit, the epoch chosen on validation, association losses.

    python -m localgrad data prepare wordnet_gloss; python -m localgrad data prepare movie_snippets
    python -m experiments.studies.text_accuracy  # two CPU cores, about an hour
    python -m experiments.studies.text_accuracy --size=paper --trials=5 --word_vectors=glove.6B.300d.txt \\
        --datasets=imdb_reviews,ag_news_subset,glue/sst2,dbpedia --data_dir=DIR      # the paper's; a GPU

The epoch is chosen on validation, and every exit is that epoch's.  `small` has widths for a CPU, and as in the paper
backpropagation is given wider layers, so that AL has no more parameters in all, heads and target side included.
Expect AL within a point of backpropagation, and its shortcuts a little below.  How soon it gets there is
`text_convergence`.
"""

from absl import app, flags

from experiments import tables
from experiments.studies import text_rows
from localgrad.cli import shell

flags.DEFINE_list("datasets", ["wordnet_gloss", "movie_snippets"], "sets of texts")
flags.DEFINE_list("nets", ["bilstm", "transformer"], "networks")
flags.DEFINE_list("methods", ["bp", "al", "al_neco", "early_exit", "predsim"], "methods; al_neco is al as NECO has it")
text_rows.define_flags("text_accuracy")
FLAGS = flags.FLAGS

PUBLISHED = {
    "imdb_reviews": {"bilstm bp": 86.25, "bilstm al": 86.41, "transformer bp": 83.45, "transformer al": 85.65},
    "ag_news_subset": {"bilstm bp": 90.32, "bilstm al": 91.53, "transformer bp": 90.71, "transformer al": 91.17},
    "glue/sst2": {"bilstm bp": 82.23, "bilstm al": 81.33, "transformer bp": 76.48, "transformer al": 81.16},
    "dbpedia": {"bilstm bp": 97.34, "bilstm al": 98.30, "transformer bp": 97.37, "transformer al": 97.55},
}


def main(argv: list[str]) -> int:
    if not set(FLAGS.nets) <= set(text_rows.NETS):
        return shell.refuse(f"--nets={','.join(FLAGS.nets)}: there are {', '.join(text_rows.NETS)}.")
    rows = {
        f"{dataset} {net} {method}": text_rows.row(dataset, net, method)
        for dataset in FLAGS.datasets
        for net in FLAGS.nets
        for method in FLAGS.methods
    }
    columns = {
        "test %": lambda summary: tables.spread(summary["best_test_accuracy"]),
        "by exit, embedding first": lambda summary: ", ".join(map(tables.spread, summary["best_exit_accuracy"])),
        "best epoch": lambda summary: tables.spread(summary["best_epoch"], 1),
        "association by block": lambda summary: ", ".join(
            f"{tables.mean(loss):.1e}" for loss in summary.get("association", [])
        ),
        "parameters, effective + affiliated": lambda summary: " + ".join(
            f"{summary['params'][kind]:,}" for kind in ("effective", "affiliated")
        ),
    }
    published = {
        name: str(PUBLISHED[dataset].get(name.partition(" ")[2], ""))
        for name in rows
        if (dataset := name.partition(" ")[0]) in PUBLISHED
    }
    associations = tables.last_of("association")
    return tables.run_rows(
        "text_accuracy",
        f"ICLR table 1 on {', '.join(FLAGS.datasets)}; the epoch is that of the best validation accuracy",
        rows,
        text_rows.SMOKE,
        columns,
        after=lambda name, workdirs: associations(name, workdirs) if " al" in name else {},
        published=published or None,
    )


if __name__ == "__main__":
    app.run(main)
