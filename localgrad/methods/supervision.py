"""Classifiers on every block: deep supervision, with gradients through all blocks, and Mono-Forward, without.

    deep_supervision   loss = CE(c_L(h_L), y) + weight sum_{k < L} CE(c_k(h_k), y)      h_k = f_k(h_{k-1})
    mono_forward       loss_k = CE(h_k M_k^T, y)                                        h_k = f_k(sg(h_{k-1}))

Deep supervision is what a sceptic asks of local learning with a classifier a block: the losses of `early_exit`, and
backpropagation through all of them.

References:
  Lee et al., Deeply-Supervised Nets, https://arxiv.org/abs/1409.5185, Eq. 3 (with squared hinge losses)
  Gong, Li and Abdulla, Mono-Forward, https://arxiv.org/abs/2501.09238
"""

import math
from collections.abc import Sequence

import jax

from localgrad.base import Block, Key, Message, Model
from localgrad.blocks.sequences import summarised
from localgrad.methods.backprop import chained_block
from localgrad.methods.ensemble import ensemble
from localgrad.methods.groups import Optimizers
from localgrad.methods.heads import classifier
from localgrad.methods.parts import Run, check, classifying_model, local_block
from localgrad.registry import check_known
from localgrad.tasks import Task

PREDICTIONS = ("last", "sum")


def deep_supervision(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    weight: float = 1.0,
    pool: int | None = None,
) -> Model:
    """Backpropagation of the losses of a linear classifier on every block.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the groups f and head.
      weight: of the losses below the last; 0 leaves their classifiers as they are and is `bp`.  The paper's falls while
        it trains; 1 makes them those of `early_exit`.
      pool: classifiers average images down to at most so many features first; None leaves them as they are.

    Returns:
      A `Model` whose every block is an exit.  The loss of a block is the sum of its own and those above, which its
      gradient is of.

    Raises:
      ValueError: for a weight that is negative or not finite.
    """
    network, task = check(network, classes, "deep_supervision", pool)
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight is a finite number from 0 up; got {weight}.")
    parts = [{"f": f, "head": summarised(f, classifier(task.outputs, pool=pool))} for f in network]
    weights = [weight] * (len(parts) - 1) + [None]
    blocks = [chained_block(part, task, tx, weight=own) for part, own in zip(parts, weights, strict=True)]
    return classifying_model("deep_supervision", blocks, parts, ["head"] * len(parts), x_spec, task)


def mono_forward(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    prediction: str = "last",
) -> Model:
    """Mono-Forward: the goodness of each class is a projection of a block's output, without bias and without pooling.

    Args:
      network, x_spec, classes: as `deep_supervision`.
      tx: any optax transform over the groups f and head, which is M.
      prediction: by the goodness of the `last` block that was run, or by the `sum` of all of them, an `ensemble`, which
        makes every projection an effective parameter.

    Returns:
      A `Model` whose every block is an exit.

    Raises:
      ValueError: for an unknown prediction.
    """
    network, task = check(network, classes, "mono_forward")
    check_known("prediction", prediction, PREDICTIONS, of="method 'mono_forward'")

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        return {**message, "x": features}, {"loss": task.loss(run("head", features), message["y"])}

    parts = [{"f": f, "head": summarised(f, classifier(task.outputs, bias=False, name="projection"))} for f in network]
    blocks = [local_block(part["f"].name, part, step, tx) for part in parts]
    heads = ["head"] * len(parts)
    model = classifying_model("mono_forward", blocks, parts, heads, x_spec, task)
    return ensemble(model, heads) if prediction == "sum" and len(parts) > 1 else model
