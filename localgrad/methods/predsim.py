"""Local error signals: every block predicts the classes and matches the similarity of the labels.

    h_l = f_l(sg(h_{l-1}))
    loss_l = (1 - beta) cross-entropy(c_l(h_l), y) + beta mean (R(phi_l(h_l)) - R(onehot y))^2

References:
  Nokland and Eidnes, Training neural networks with local error signals, https://arxiv.org/abs/1901.06656, Eqs. 1-3
"""

from collections.abc import Sequence

import jax
from flax import linen as nn

from localgrad.base import Block, Key, Message, Model
from localgrad.blocks.flax import from_linen
from localgrad.blocks.sequences import summarised
from localgrad.losses import similarity_matching
from localgrad.methods.groups import Optimizers
from localgrad.methods.heads import Similarity, classifier
from localgrad.methods.output import output_block
from localgrad.methods.parts import Run, check, classifying_model, local_block, needs_classes
from localgrad.tasks import Task

_DROP = 0x64726F70  # sets the key of the dropout between blocks apart from those within a block


def predsim(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    beta: float = 0.99,
    pool: int | None = 2048,
    dropout: float = 0.0,
) -> Model:
    """Prediction and similarity-matching losses on every block, and an output block that learns to classify.

    The paper's blocks are convolution, batch norm, leaky ReLU of slope 0.01, and its poolings stand outside of them
    (`vgg8b` has them open the next block); its Adam runs at 5e-4, a quarter of it from 50, 75, 87.5 and 93.75 % on.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the groups f, pred and sim that there are (the output block has head alone).
      beta: share of the similarity loss.  0 is `pred`, without similarity; 1 is `sim`, without local classifiers; in
        both the output block has its whole cross-entropy, otherwise (1 - beta) of it.
      pool: local classifiers average images down to at most so many features first (2048 for CIFAR, 1024 for MNIST).
      dropout: rate on what a block hands on; its losses see the features before.

    Returns:
      A `Model` of `len(network) + 1` blocks; each is an exit, but for the inner ones of `sim`.

    Raises:
      ValueError: for a beta outside [0, 1] or a dropout outside [0, 1).
    """
    network, task = check(network, classes, "predsim", pool)
    if beta > 0:
        needs_classes(task, "predsim", "its similarity loss compares labels")
    if not 0 <= beta <= 1 or not 0 <= dropout < 1:
        raise ValueError(f"beta is in [0, 1] and dropout in [0, 1); got {beta} and {dropout}.")
    drop = from_linen(_Dropout(dropout))

    def handed(features: jax.Array, key: Key) -> jax.Array:
        return drop.apply({}, {}, features, key=jax.random.fold_in(key, _DROP), train=True)[0]

    def step(run: Run, message: Message, key: Key):
        features, labels = run("f", message["x"]), message["y"]
        metrics = {}
        if beta < 1:
            metrics["prediction"] = task.loss(run("pred", features), labels)
        if beta > 0:
            found = run("sim", features)
            matching = similarity_matching(found, task.encode(labels, found.dtype))
            metrics["similarity"] = matching + task.check(labels, found.dtype)
        loss = (1 - beta) * metrics.get("prediction", 0.0) + beta * metrics.get("similarity", 0.0)
        return {**message, "x": handed(features, key)}, {"loss": loss, **metrics}

    heads: dict[str, Block] = {}
    if beta < 1:
        heads["pred"] = classifier(task.outputs, pool=pool, zero=True)
    if beta > 0:
        heads["sim"] = from_linen(Similarity(), name="similarity")
    parts: list[dict[str, Block]] = [
        {"f": f, **{group: summarised(f, head) for group, head in heads.items()}} for f in network
    ]
    blocks = [local_block(f.name, part, step, tx) for f, part in zip(network, parts, strict=True)]
    parts.append({"head": summarised(network[-1], classifier(task.outputs, zero=True))})
    blocks.append(output_block(parts[-1], task, tx, weight=1.0 if beta in (0, 1) else 1 - beta))
    exits = ["pred" if beta < 1 else None] * len(network) + ["head"]
    name = "pred" if beta == 0 else "sim" if beta == 1 else "predsim"
    model = classifying_model(name, blocks, parts, exits, x_spec, task, handed=handed)
    return model._replace(least_examples=2 if beta > 0 else 1)  # one example is as similar to itself as it should be


class _Dropout(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.Dropout(self.rate, deterministic=not train)(x) if self.rate else x
