"""Delog-SCL tables 8 and 9: batch size and projection head of supervised contrastive learning.

    python -m experiments.studies.scl_settings --dataset=cifar10 --nets=vgg8b,resnet18 --trials=5  # a GPU
    python -m experiments.studies.scl_settings --trials=1 --limit=10000 --epochs=5 --nets=cnn  # two cores

Published, CIFAR-10.  Batch 32 / 128 / 1024: VGG 92.67 93.11 93.42, ResNet 92.54 92.53 92.78.  Head identity / linear /
mlp: VGG 79.2 90.4 93.0, ResNet 84.2 90.2 92.4.  Expect larger batches and deeper heads to help.  The paper states
neither optimizer nor rate, epochs or augmentation: Adam 1e-3, cosine, 200 epochs, two views of crop and flip, heads
pooled to 2048 features.
"""

from absl import app, flags

from experiments import tables

flags.DEFINE_string("dataset", "fashion_mnist", "what to train on")
flags.DEFINE_list("nets", ["vgg8b", "resnet18"], "networks")
flags.DEFINE_integer("epochs", 200, "passes over the training set")
flags.DEFINE_integer("limit", None, "training examples")
tables.define_flags("scl_settings")
FLAGS = flags.FLAGS

BASE = {"method": "scl", "learning_rate": 1e-3, "schedule": "cosine", "augment": ("crop", "flip")}
PUBLISHED = {
    "vgg8b batch 32": 92.67, "vgg8b batch 128": 93.11, "vgg8b batch 1024": 93.42,
    "resnet18 batch 32": 92.54, "resnet18 batch 128": 92.53, "resnet18 batch 1024": 92.78,
    "vgg8b head identity": 79.2, "vgg8b head linear": 90.4, "vgg8b head mlp": 93.0,
    "resnet18 head identity": 84.2, "resnet18 head linear": 90.2, "resnet18 head mlp": 92.4,
}  # fmt: skip


def main(argv: list[str]) -> int:
    own = ("pool=2048", "views=2")  # without the pool the first layer of the head is tens of millions of parameters
    rows: dict[str, dict] = {}
    for net in FLAGS.nets:
        base = {**BASE, "net": net, "dataset": FLAGS.dataset, "epochs": FLAGS.epochs, "limit": FLAGS.limit}
        rows |= {f"{net} batch {n}": {**base, "batch_size": n, "method_options": own} for n in (32, 128, 1024)}
        rows |= {
            f"{net} head {head}": {**base, "batch_size": 128, "method_options": (*own, f"head={head}")}
            for head in ("identity", "linear", "mlp")
        }
    columns = {"test %": lambda summary: tables.spread(summary["test_accuracy"])}
    smoke = {"net": "mlp", "widths": (16, 16), "method_options": ()}
    title = f"Delog-SCL tables 8 and 9 on {FLAGS.dataset}: batch size and projection head"
    published = PUBLISHED if FLAGS.dataset == "cifar10" else None
    return tables.run_rows("scl_settings", title, rows, smoke, columns, published=published)


if __name__ == "__main__":
    app.run(main)
