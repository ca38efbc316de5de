"""Greedy learning: every block has a classifier of its own, early exit and decoupled greedy learning (DGL).

    r_l = f_l(sg(r_{l-1}))      loss_l = cross-entropy(aux_l(r_l), y)

Early Exit reads each block with a linear classifier, DGL with an auxiliary network; the last block's is the network's
own head.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from localgrad.base import Block, Key, LocalBlock, Message, Model
from localgrad.blocks.flax import from_linen
from localgrad.blocks.sequences import summarised
from localgrad.losses import mean_squared_error
from localgrad.methods.heads import ImageDecoder, SmallCNN, SmallMLP, classifier
from localgrad.methods.output import label_loss
from localgrad.methods.parts import Answer, Parts, Run, check, classifying_model, local_block, waiting_block

AUXILIARIES: dict[str, Callable[[int, int | None], Block]] = {
    "mlp_sr": lambda classes, pool: from_linen(SmallMLP(classes), name="mlp_sr"),
    "mlp": lambda classes, pool: classifier(classes, hidden=(512,), pool=pool, name="mlp"),
    "cnn": lambda classes, pool: from_linen(SmallCNN(classes, pool), name="cnn"),
}
SELF_SUPERVISED = ("reconstruct", "shift")
_SHIFTS = (5 / 32, 16 / 32)  # of the first and the last shifted target, in units of the image


def early_exit(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: int,
    *,
    tx: optax.GradientTransformation,
    pool: int | None = None,
) -> Model:
    """Early Exit: a linear classifier on every block, gradients stopped between blocks.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C; labels are integers 0 .. C - 1.
      tx: any optax transform over the groups f and head.
      pool: classifiers average images down to at most so many features first; None leaves them as they are.

    Returns:
      A `Model` whose every block is an exit.

    References:
      Delog-SCL, section 3 (the baseline)
    """
    check(network, classes, "early_exit", pool)
    parts = [{"f": f, "head": summarised(f, classifier(classes, pool=pool))} for f in network]
    blocks = [_classifying_block(part, classes, tx) for part in parts]
    return classifying_model("early_exit", blocks, parts, ["head"] * len(parts), x_spec, classes)


def dgl(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: int,
    *,
    tx: optax.GradientTransformation,
    aux: str = "mlp_sr",
    pool: int | None = 2048,
    self_supervised: str | None = None,
    last_gradient_weight: float = 0.0,
) -> Model:
    """Decoupled greedy learning: an auxiliary network on every block but the last, which has the network's own head.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C; labels are integers 0 .. C - 1.
      tx: any optax transform over the groups f and aux, and decoder where there is a self-supervised loss; the last
        block has f and aux alone.
      aux: `mlp_sr` (pooled to a coarse grid, six small layers), `mlp` (one hidden layer of 512) or `cnn` (two 3x3
        convolutions, for images).
      pool: `mlp` and `cnn` average images down to at most so many features before their first or last dense layer.
      self_supervised: None; `reconstruct` adds the squared error of reconstructing the network's input to every block
        but the last; `shift` that of predicting it circularly shifted along both axes of the image, by 5/32 of its
        size in the first block to a half in the last.  Both losses then count a half.  The message carries the input
        to every block; the ledger counts it.
      last_gradient_weight: share w of the error at the network's output in the gradient at every auxiliary network's
        scores, which is (1 - w) its own + w the top's.  Above 0 the blocks are not local any more: they wait for that
        error (`signal='error'`).

    Returns:
      A `Model` whose every block is an exit.

    Raises:
      ValueError: for an unknown auxiliary network or self-supervised loss, `shift` on inputs that are no images, or a
        weight outside [0, 1].

    References:
      Belilovsky et al., Decoupled Greedy Learning of CNNs, https://arxiv.org/abs/1901.08164
    """
    check(network, classes, "dgl", pool)
    if aux not in AUXILIARIES:
        raise ValueError(f"unknown auxiliary network {aux!r} of method 'dgl'; there are {', '.join(AUXILIARIES)}.")
    if self_supervised is not None and self_supervised not in SELF_SUPERVISED:
        known = ", ".join(SELF_SUPERVISED)
        raise ValueError(f"unknown self_supervised loss {self_supervised!r} of method 'dgl'; there are {known}.")
    if self_supervised is not None and not jnp.issubdtype(x_spec.dtype, jnp.floating):
        raise ValueError(f"self_supervised={self_supervised!r} predicts the input, and word numbers are no quantities.")
    if self_supervised == "shift" and len(x_spec.shape) != 4:
        raise ValueError(f"self_supervised='shift' moves images (B, H, W, C); the inputs are {x_spec.shape}.")
    if not 0 <= last_gradient_weight <= 1:
        raise ValueError(f"last_gradient_weight is a share in [0, 1]; got {last_gradient_weight}.")
    top = len(network) - 1
    parts: list[dict[str, Block]] = []
    blocks = []
    for i, f in enumerate(network):
        head = classifier(classes) if i == top else AUXILIARIES[aux](classes, pool)
        part = {"f": f, "aux": summarised(f, head)}
        target = None
        if self_supervised and i < top:
            part["decoder"] = from_linen(ImageDecoder(x_spec.shape[1:]), name="decoder")
            target = _target(self_supervised, i / max(top - 1, 1))
        parts.append(part)
        if last_gradient_weight:
            share = None if i == top else last_gradient_weight
            blocks.append(_mixing_block(part, classes, tx, share, target))
        else:
            blocks.append(_classifying_block(part, classes, tx, "aux", target))
    heads = ["aux"] * len(parts)
    return classifying_model("dgl", blocks, parts, heads, x_spec, classes, image=self_supervised is not None)


def _classifying_block(
    parts: Parts,
    classes: int,
    tx: optax.GradientTransformation,
    head: str = "head",
    target: Callable[[jax.Array], jax.Array] | None = None,
) -> LocalBlock:
    """A block that learns from its own classifier and, where there is a target, from a decoder of the image."""

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        loss = classification = label_loss(run(head, features), message["y"], classes)
        metrics = {"classification": classification}
        if target is not None:
            image = message["image"]
            metrics["self_supervised"] = mean_squared_error(run("decoder", features), target(image))
            loss = 0.5 * classification + 0.5 * metrics["self_supervised"]
        return {**message, "x": features}, {"loss": loss, **metrics}

    return local_block(parts["f"].name, parts, step, tx)


def _mixing_block(
    parts: Parts,
    classes: int,
    tx: optax.GradientTransformation,
    share: float | None,
    target: Callable[[jax.Array], jax.Array] | None,
) -> LocalBlock:
    """A block of `dgl` whose auxiliary scores learn from a share of the top's error; None is the top itself."""

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        outputs = {"scores": run("aux", features)}
        kept = {"labels": message["y"]}
        if target is not None:
            outputs["image"] = run("decoder", features)
            kept["image"] = target(message["image"])
        return {**message, "x": features}, outputs, kept

    def answer(params: dict, outputs: dict, kept: dict, signal: Any) -> Answer:
        loss, error = jax.value_and_grad(label_loss)(outputs["scores"], kept["labels"], classes)
        if share is None:
            return Answer({"scores": error}, {"loss": loss, "classification": loss}, downward={"error": error})
        error = (1 - share) * error + share * signal["error"]
        if target is None:
            return Answer({"scores": error}, {"loss": loss, "classification": loss})
        distance, away = jax.value_and_grad(mean_squared_error)(outputs["image"], kept["image"])
        metrics = {"loss": 0.5 * loss + 0.5 * distance, "classification": loss, "self_supervised": distance}
        return Answer({"scores": 0.5 * error, "image": 0.5 * away}, metrics)

    return waiting_block(parts["f"].name, parts, step, answer, tx)


def _target(kind: str, depth: float) -> Callable[[jax.Array], jax.Array]:
    """What a decoder at a relative depth in [0, 1] predicts of the image."""
    if kind == "reconstruct":
        return lambda image: image
    share = _SHIFTS[0] + depth * (_SHIFTS[1] - _SHIFTS[0])
    return lambda image: jnp.roll(image, [round(share * size) for size in image.shape[1:3]], axis=(1, 2))
