"""What the studies on texts share: sizes for a CPU and the paper's, and the rows made of them."""

from typing import Any

from absl import flags

from experiments import tables

FLAGS = flags.FLAGS

NETS = ("bilstm", "transformer")
# Backpropagation has the wider networks, so that AL has no more parameters, heads and target side included.
LOCAL: dict[str, dict[str, Any]] = {
    "bilstm": {"widths": (64, 64), "net_options": ("embed_width=64",)},
    "transformer": {"net_options": ("width=64", "feed_forward=64", "heads=4")},
}
WIDER: dict[str, dict[str, Any]] = {
    "bilstm": {"widths": (98, 98), "net_options": ("embed_width=64",)},
    "transformer": {"net_options": ("width=64", "feed_forward=768", "heads=4")},
}
SMALL: dict[str, Any] = {
    "epochs": 6, "limit": 12_000, "vocabulary": 8_000, "max_length": 40, "learning_rate": 2e-3, "dropout": 0.3,
}  # fmt: skip
PAPER: dict[str, dict[str, Any]] = {
    "bilstm": {"widths": (300, 300), "batch_size": 64, "learning_rate": 1e-4},
    "transformer": {
        "net_options": ("width=300", "feed_forward=256", "heads=6"), "batch_size": 128, "learning_rate": 2.5e-4,
    },
}  # fmt: skip
PAPER_WIDER: dict[str, dict[str, Any]] = {
    "bilstm": {"widths": (350, 350)},
    "transformer": {"net_options": ("width=300", "feed_forward=512", "heads=6")},
}
# `al` is the form of the paper's released code for texts, whose codes are learnt in a few hundred steps.
PROFILES = {"al": "iclr_head", "al_neco": "neco"}
TARGET_WIDTH = {"small": 64, "paper": 128}
LONGEST = {"imdb_reviews": 500, "dbpedia": 500}
SMOKE: dict[str, Any] = {"dataset": "movie_snippets", "batch_size": 8, "vocabulary": 50, "max_length": 8}


def define_flags(name: str) -> None:
    """The flags of every study on texts."""
    flags.DEFINE_enum("size", "small", ["small", "paper"], "of networks and training: for a CPU, or the paper's")
    flags.DEFINE_string("data_dir", None, "see experiments.train")
    flags.DEFINE_string("word_vectors", None, "see experiments.train")
    tables.define_flags(name)


def row(dataset: str, net: str, method: str, **fields: Any) -> dict[str, Any]:
    """The configuration of a row."""
    base = {"dataset": dataset, "data_dir": FLAGS.data_dir, "word_vectors": FLAGS.word_vectors, "clip_norm": 5.0}
    base |= {"net": net, "method": method, "schedule": "cosine"}
    if method in PROFILES:
        base |= {"method": "al", "profile": PROFILES[method], "target_width": TARGET_WIDTH[FLAGS.size]}
    if FLAGS.size == "paper":
        base |= {"epochs": 50, "max_length": LONGEST.get(dataset), **PAPER[net]}
        return base | (PAPER_WIDER[net] if method == "bp" else {}) | fields
    return base | SMALL | (WIDER if method == "bp" else LOCAL)[net] | fields
