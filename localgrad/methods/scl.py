"""Delog-SCL: every block learns to bring the examples of a class together.

    r_l = f_l(sg(r_{l-1}))      z_l = g_l(r_l) / |g_l(r_l)|      loss_l = supervised contrastive loss of z_l
    output block: cross-entropy of a classifier on sg(r_L)

References:
  Delog-SCL: Cutting Long Gradient Flows: Decoupling End-to-End Backpropagation Based on Supervised Contrastive
    Learning, Eqs. 2-6
"""

import math
from collections.abc import Sequence

import jax

from localgrad.base import Block, Key, Message, Model
from localgrad.blocks.flax import from_linen
from localgrad.blocks.sequences import summarised
from localgrad.losses.contrastive import REDUCTIONS, Reduction, normalised, supervised_contrastive
from localgrad.methods.groups import Optimizers
from localgrad.methods.heads import Dense, classifier
from localgrad.methods.output import output_block
from localgrad.methods.parts import Run, check, classifying_model, local_block, needs_classes
from localgrad.registry import check_known
from localgrad.tasks import Task

HEADS: dict[str, tuple[int, ...]] = {"mlp": (512, 1024), "linear": (1024,), "identity": ()}


def scl(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    head: str = "mlp",
    pool: int | None = None,
    temperature: float = 0.1,
    reduction: Reduction = "supcon",
    base_temperature: float | None = None,
    views: int = 1,
) -> Model:
    """Supervised contrastive local losses on a network, and an output block that learns to classify.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the groups f and head (the output block has head alone).
      head: projection before the loss: `mlp` (512, ReLU, 1024), `linear` (1024) or `identity`.
      pool: the head averages images down to at most so many features first; None leaves them as they are, which on a
        32 x 32 x 128 image makes the first layer of the `mlp` head 67 million parameters.
      temperature, reduction, base_temperature: see `supervised_contrastive`.  Over data shards the loss is that of each
        shard, averaged: `paper`, a sum over anchors, is then smaller by the number of shards.
      views: 2 for two augmented views of each example in a batch of twice the size; see `localgrad.data.source`.

    Returns:
      A `Model` of `len(network) + 1` blocks, whose only exit is the last.

    Raises:
      ValueError: for an unknown head or reduction, a temperature that is not positive, or views other than 1 and 2.
    """
    network, task = check(network, classes, "scl", pool)
    needs_classes(task, "scl", "its loss contrasts examples of the same label with others")
    for kind, value, known in (("head", head, HEADS), ("reduction", reduction, REDUCTIONS)):
        check_known(kind, value, known, of="method 'scl'")
    if (
        not 0 < temperature < math.inf
        or not (base_temperature is None or 0 < base_temperature < math.inf)
        or views not in (1, 2)
    ):
        raise ValueError(
            f"temperature and base_temperature must be positive and finite and views 1 or 2; got {temperature}, "
            f"{base_temperature} and {views}."
        )

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        z = normalised(run("head", features))
        loss = supervised_contrastive(
            z, message["y"], temperature=temperature, reduction=reduction, base_temperature=base_temperature
        )
        return {**message, "x": features}, {"loss": loss + task.check(message["y"], loss.dtype)}

    projection = from_linen(Dense(HEADS[head], "relu", "linear", pool), name=head)
    parts: list[dict[str, Block]] = [{"f": f, "head": summarised(f, projection)} for f in network]
    blocks = [local_block(f.name, part, step, tx) for f, part in zip(network, parts, strict=True)]
    parts.append({"head": summarised(network[-1], classifier(task.outputs))})
    blocks.append(output_block(parts[-1], task, tx))
    heads = [None] * len(network) + ["head"]
    model = classifying_model("scl", blocks, parts, heads, x_spec, task, views=views)
    # of two representations each has only the other in its denominator, and the loss is zero whatever they are
    return model._replace(least_examples=-(-3 // views))
