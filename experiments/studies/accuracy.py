"""Accuracy by method and network: the tables of the papers, and one on equal terms that a CPU finishes.

    python -m experiments.studies.accuracy --table=fashion_mlp  # 6 methods x 3 trials; two CPU cores, about an hour
    python -m experiments.studies.accuracy --table=fashion_cnn  # a subset of Fashion-MNIST, a small CNN
    python -m experiments.studies.accuracy --table=fashion_methods  # every method, on 10,000 examples; an hour
    python -m experiments.studies.accuracy --table=iclr4 --trials=5  # ICLR table 4; a GPU
    python -m experiments.studies.accuracy --table=delog2 --trials=5  # Delog-SCL tables 2 and 3; a GPU
    python -m experiments.studies.accuracy --table=neco3 --trials=5  # NECO tables 2-4; a GPU

Rows are data, below.  All rows of `fashion_*` have the same network, optimizer, rate, schedule and epochs; nothing is
chosen on the test split: figures are those of the last epoch, and the best epoch by validation is beside them.
Published figures, where a table has them, stand in their own column.
"""

from typing import Any, NamedTuple

from absl import app, flags

from experiments import tables
from experiments.studies.paper_networks import AL_CNN, AL_VGG, NECO_RESNET, baseline
from localgrad.cli import shell
from localgrad.methods import METHODS

flags.DEFINE_string("table", "fashion_mlp", "which table")
tables.define_flags("accuracy")
FLAGS = flags.FLAGS


class Table(NamedTuple):
    """What all rows share, each row's own, and the published test accuracy of a row if there is one."""

    title: str
    base: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    published: dict[str, float]


SIX: dict[str, dict[str, Any]] = {
    "bp": {"method": "bp"},
    "al": {"method": "al"},
    "scl": {"method": "scl"},
    "early_exit": {"method": "early_exit"},
    "dgl": {"method": "dgl"},
    "predsim": {"method": "predsim"},
}
IMAGES_ALONE = ("simclr", "rotation", "gim", "loco")  # which learn from pictures, and not from their labels
FASHION = {"dataset": "fashion_mnist", "batch_size": 128, "epochs": 20, "learning_rate": 1e-3, "schedule": "cosine"}
# NECO: He initialisation, ELU, Adam; a tenth of the rate at 40, 60 and 80 % of the steps and a half at 90 %
NECO = {"batch_size": 32, "epochs": 200, "learning_rate": 1e-4, "schedule": "neco"}
# ICLR: Adam with scheduled decay; the epochs are not stated
ICLR = {"batch_size": 128, "epochs": 100, "learning_rate": 1e-4, "schedule": "cosine"}
# Delog-SCL states neither optimizer nor rate, epochs or augmentation
DELOG = {"batch_size": 128, "epochs": 200, "learning_rate": 1e-3, "schedule": "cosine", "augment": ("crop", "flip")}


def decay(weight: float) -> dict[str, Any]:
    """What NECO adds on CIFAR: 2-pixel jitter and L2."""
    return {"augment": ("jitter",), "weight_decay": weight}


def crossed(networks: dict[str, dict[str, Any]], methods: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every method on every network."""
    return {f"{net} {name}": {**shape, **row} for net, shape in networks.items() for name, row in methods.items()}


TABLES: dict[str, Table] = {
    "fashion_mlp": Table(
        "Fashion-MNIST, an MLP of three blocks of 512, Adam 1e-3 with a cosine schedule, batch 128, 20 epochs",
        {**FASHION, "net": "mlp", "widths": (512, 512, 512)},
        SIX,
        {},
    ),
    "fashion_cnn": Table(
        "Fashion-MNIST, 10,000 training examples, a CNN of five 3x3 convolutions (16, 16, 32, 32, 64), heads pooled to "
        "1024 features, Adam 1e-3 with a cosine schedule, batch 128, 10 epochs",
        {**FASHION, "net": "cnn", "widths": (16, 16, 32, 32, 64), "epochs": 10, "limit": 10000},
        {
            name: {**row, **({} if name == "bp" else {"method_options": ("pool=1024",)})}
            for name, row in SIX.items()
            if name != "dgl"
        }
        | {
            "dgl": {"method": "dgl"},
            "al codes first": {"method": "al", "codes": "first", "method_options": ("pool=1024",)},
            "al iclr_head": {"method": "al", "profile": "iclr_head", "method_options": ("pool=1024",)},
        },
        {},
    ),
    "fashion_methods": Table(
        "Fashion-MNIST, 10,000 training examples, an MLP of three blocks of 512, Adam 1e-3 with a cosine schedule, "
        "batch 128, 10 epochs: every method that classifies, as it comes",
        {**FASHION, "net": "mlp", "widths": (512, 512, 512), "epochs": 10, "limit": 10000},
        {name: {"method": name} for name in METHODS if name not in (*IMAGES_ALONE, "bp_fc")}
        | {
            "al codes first": {"method": "al", "codes": "first"},
            "al iclr_head": {"method": "al", "profile": "iclr_head"},
        },
        {},
    ),
    "iclr4": Table(
        "ICLR table 4, Fashion-MNIST",
        {**ICLR, "dataset": "fashion_mnist"},
        {
            "CNN": baseline(AL_CNN),
            "CNN-AL": {**AL_CNN, "method": "al"},
            "VGG": baseline(AL_VGG),
            "VGG-AL": {**AL_VGG, "method": "al"},
        },
        {"CNN": 91.57, "CNN-AL": 92.07, "VGG": 94.18, "VGG-AL": 93.80},
    ),
    "delog2": Table(
        "Delog-SCL tables 2 and 3, CIFAR-10 and CIFAR-100; what the paper does not state: Adam 1e-3, cosine, 200 "
        "epochs, crop and flip, heads and bridges pooled to 4096 features",
        DELOG,
        {
            f"{dataset} {name}": {**row, "dataset": dataset}
            for dataset in ("cifar10", "cifar100")
            for name, row in crossed(
                {
                    "convnet": {"net": "convnet"},
                    "vgg": {"net": "vgg8b"},
                    "resnet": {"net": "resnet18", "blocks": (1, 2, 2, 2, 2)},
                },
                {
                    "bp": SIX["bp"],
                    "early_exit": {**SIX["early_exit"], "method_options": ("pool=4096",)},
                    "al": {**SIX["al"], "target_width": 300, "method_options": ("pool=4096",)},
                    # two views; VGG and ResNet in the paper are those of batch 1024
                    "scl": {**SIX["scl"], "batch_size": 1024, "method_options": ("pool=4096", "views=2")},
                },
            ).items()
        },
        {
            f"{dataset} {net} {method}": value
            for dataset, nets in {
                "cifar10": {
                    "convnet": (86.85, 83.16, 86.98, 86.98),
                    "vgg": (93.02, 91.28, 93.22, 93.42),
                    "resnet": (93.95, 89.63, 91.33, 92.78),
                },
                "cifar100": {
                    "convnet": (58.68, 50.64, 53.06, 59.63),
                    "vgg": (72.58, 71.11, 72.43, 73.14),
                    "resnet": (73.59, 64.48, 67.53, 70.41),
                },
            }.items()
            for net, values in nets.items()
            for method, value in zip(("bp", "early_exit", "al", "scl"), values, strict=True)
        },
    ),
    "neco3": Table(
        "NECO tables 2-4, MNIST, CIFAR-10 and CIFAR-100",
        NECO,
        {
            f"{dataset} {net} {method}": {
                **(baseline(shape) if method == "bp_matched" else {**shape, "method": method}), "dataset": dataset,
            }
            for dataset, nets in {
                "mnist": {"mlp": {"net": "mlp", "widths": (1024, 1024), "target_width": 1024}, "cnn": AL_CNN},
                "cifar10": {
                    "mlp": {"net": "mlp", "widths": (3000, 3000), "target_width": 3000},
                    "cnn": AL_CNN,
                    "resnet20": {**NECO_RESNET["resnet20"], **decay(1e-4)},
                    "resnet32": {**NECO_RESNET["resnet32"], **decay(1e-4)},
                    "vgg": {**AL_VGG, **decay(5e-4)},
                },
                "cifar100": {
                    "mlp": {"net": "mlp", "widths": (3000, 3000), "target_width": 3000},
                    "cnn": {**AL_CNN, "target_width": 500},
                    "resnet20": {**NECO_RESNET["resnet20"], "target_width": 500, **decay(1e-4)},
                    "resnet32": {**NECO_RESNET["resnet32"], "target_width": 500, **decay(1e-4)},
                    "vgg": {**AL_VGG, "target_width": 500, **decay(5e-4)},
                },
            }.items()
            for net, shape in nets.items()
            for method in ("bp_matched", "al")
        },
        {
            f"{row} {method}": value
            for row, values in {
                "mnist mlp": (98.5, 98.6), "mnist cnn": (99.4, 99.5),
                "cifar10 mlp": (60.6, 62.8), "cifar10 cnn": (85.2, 85.8), "cifar10 resnet20": (91.2, 89.1),
                "cifar10 resnet32": (92.0, 88.7), "cifar10 vgg": (92.3, 92.6),
                "cifar100 mlp": (26.5, 29.7), "cifar100 cnn": (51.1, 52.2), "cifar100 resnet20": (63.7, 61.0),
                "cifar100 resnet32": (63.7, 59.0), "cifar100 vgg": (65.8, 67.1),
            }.items()
            for method, value in zip(("bp_matched", "al"), values, strict=True)
        },
    ),
}  # fmt: skip
SMOKE = {"net": "mlp", "widths": (16, 16), "blocks": None, "net_options": (), "method_options": ()}


def main(argv: list[str]) -> int:
    if FLAGS.table not in TABLES:
        return shell.refuse(f"unknown --table={FLAGS.table}; there are {', '.join(TABLES)}.")
    table = TABLES[FLAGS.table]
    rows = {name: {**table.base, **row} for name, row in table.rows.items()}
    columns = {
        "test %": lambda summary: tables.spread(summary["test_accuracy"]),
        "validation %": lambda summary: tables.spread(summary["validation_accuracy"]),
        "test % at the best epoch by validation": lambda summary: tables.spread(summary["best_test_accuracy"]),
        "that epoch": lambda summary: tables.spread(summary["best_epoch"], 1),
        "parameters, effective + affiliated": lambda summary: " + ".join(
            f"{summary['params'][kind]:,}" for kind in ("effective", "affiliated")
        ),
    }
    return tables.run_rows(
        f"accuracy_{FLAGS.table}",
        table.title,
        rows,
        SMOKE,
        columns,
        published=table.published or None,
        subfolder=FLAGS.table,
    )


if __name__ == "__main__":
    app.run(main)
