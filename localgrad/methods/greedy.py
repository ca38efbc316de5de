"""Greedy learning: every block has a classifier of its own, early exit and decoupled greedy learning (DGL).

    r_l = f_l(sg(r_{l-1}))      loss_l = cross-entropy(aux_l(r_l), y)

Early Exit reads each block with a linear classifier, DGL with an auxiliary network; the last block's is the network's
own head.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from localgrad.base import Block, Key, LocalBlock, Message, Model
from localgrad.blocks.flax import from_linen
from localgrad.blocks.sequences import summarised
from localgrad.methods.groups import Optimizers
from localgrad.methods.heads import ImageDecoder, SmallCNN, SmallMLP, classifier
from localgrad.methods.images import Image, images_of
from localgrad.methods.output import error_block
from localgrad.methods.parts import Answer, Parts, Run, check, classifying_model, local_block, waiting_block
from localgrad.registry import check_known
from localgrad.tasks import Task

# the auxiliary networks: `(classes, pool, hidden) -> Block`
AUXILIARIES: dict[str, Callable[[int, int | None, int], Block]] = {
    "mlp_sr": lambda classes, pool, hidden: from_linen(SmallMLP(classes), name="mlp_sr"),
    "mlp": lambda classes, pool, hidden: from_linen(SmallMLP(classes, places=0), name="mlp"),
    "cnn": lambda classes, pool, hidden: from_linen(SmallCNN(classes), name="cnn"),
    "hidden": lambda classes, pool, hidden: classifier(classes, hidden=(hidden,), pool=pool, name="hidden"),
}
# the network's own head, which is the auxiliary network of its last block
HEADS: dict[str, Callable[[int], Block]] = {
    "linear": classifier,
    "mlp": lambda classes: from_linen(SmallMLP(classes, places=0, dense=2), name="mlp"),
}


def early_exit(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    pool: int | None = None,
) -> Model:
    """Early Exit: a linear classifier on every block, gradients stopped between blocks.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the groups f and head.
      pool: classifiers average images down to at most so many features first; None leaves them as they are.

    Returns:
      A `Model` whose every block is an exit.

    References:
      Delog-SCL, section 3 (the baseline)
    """
    network, task = check(network, classes, "early_exit", pool)
    parts = [{"f": f, "head": summarised(f, classifier(task.outputs, pool=pool))} for f in network]
    blocks = [_classifying_block(part, task, tx) for part in parts]
    return classifying_model("early_exit", blocks, parts, ["head"] * len(parts), x_spec, task)


def dgl(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    aux: str = "mlp_sr",
    hidden: int = 512,
    head: str = "linear",
    pool: int | None = 2048,
    self_supervised: str | None = None,
    upsample: str = "transposed",
    distance: str = "l1",
    weights: Sequence[float] = (0.5, 0.5),
    last_gradient_weight: float = 0.0,
) -> Model:
    """Decoupled greedy learning: an auxiliary network on every block but the last, which has the network's own head.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the groups f and aux, and decoder where there is a self-supervised loss; the last
        block has f and aux alone.
      aux: Belilovsky's `mlp_sr` (a coarse grid, three 1x1 convolutions and three dense layers on 2x2 places), `mlp`
        (without the convolutions) or `cnn` (two 3x3 convolutions, for images), or NOTES' `hidden` (one hidden layer).
      hidden: units of `hidden`; NOTES has 256 in its first iteration and 512 on VGG16.
      head: of the last block: `linear`, or Belilovsky's `mlp` (two dense layers on 2x2 places).
      pool: `hidden` averages images down to at most so many features first.
      self_supervised: None; `reconstruct` adds the distance to the network's input to the loss of every block but the
        last; `shift` that to the input circularly shifted along both axes of the image, by 5/32 of its size in the
        first block to a half in the last.  The message carries the input to every block; the ledger counts it.  The
        decoder reads all that a block hands on, the auxiliary network its summary: with `pool="between"` of a VGG
        network the one reads before a pooling and the other behind it, as NOTES has it.
      upsample: how the decoder comes to the image's size: `transposed` convolutions, `bilinear` interpolation, or
        `none`: the image is averaged down to the features' size instead.
      distance: `l1` (NOTES) or `l2`, the mean over all elements of the absolute or squared difference.
      weights: of the classification and the self-supervised loss where there is one.  0 leaves a loss out: (0, 1)
        trains features by the image alone, and of the classifiers only the last.
      last_gradient_weight: share w of the error at the network's output in the gradient at every auxiliary network's
        scores, which is (1 - w) its own + w the top's.  Above 0 the blocks are not local any more: they wait for that
        error (`signal='top'`).

    Returns:
      A `Model` whose every block is an exit.

    Raises:
      ValueError: for an unknown form of anything, `shift` or `upsample='none'` on what is no image, or numbers out of
        range.

    References:
      Belilovsky et al., Decoupled Greedy Learning of CNNs, https://arxiv.org/abs/1901.08164
      NOTES, a researcher's log: hidden, self_supervised, last_gradient_weight
    """
    network, task = check(network, classes, "dgl", pool)
    for what, name, known in (("auxiliary network", aux, AUXILIARIES), ("head", head, HEADS)):
        check_known(what, name, known, of="method 'dgl'")
    if not isinstance(hidden, int) or hidden < 1:
        raise ValueError(f"hidden is a positive number of units; got {hidden!r}.")
    if not 0 <= last_gradient_weight <= 1:
        raise ValueError(f"last_gradient_weight is a share in [0, 1]; got {last_gradient_weight}.")
    top = len(network) - 1
    images: list[Image | None] = [None] * (top + 1)
    if self_supervised is not None:
        images[:top] = images_of(network, x_spec, self_supervised, upsample, distance, weights)
    parts: list[dict[str, Block]] = []
    blocks = []
    for i, (f, image) in enumerate(zip(network, images, strict=True)):
        reader = HEADS[head](task.outputs) if i == top else AUXILIARIES[aux](task.outputs, pool, hidden)
        parts.append({"f": f, "aux": summarised(f, reader)})
        if image is not None:
            parts[i]["decoder"] = from_linen(ImageDecoder(x_spec.shape[1:], upsample), name="decoder")
        if last_gradient_weight:
            mixing = _mixing_block(parts[i], task, tx, last_gradient_weight, image)
            blocks.append(mixing if i < top else error_block(f.name, parts[i], "aux", task, tx, ("classification",)))
        else:
            blocks.append(_classifying_block(parts[i], task, tx, "aux", image))
    heads = ["aux"] * len(parts)
    return classifying_model("dgl", blocks, parts, heads, x_spec, task, image=self_supervised is not None)


def _classifying_block(
    parts: Parts,
    task: Task,
    tx: Optimizers,
    head: str = "head",
    image: Image | None = None,
) -> LocalBlock:
    """A block that learns from its own classifier and, where it says so, from a decoder of the image."""

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        loss = classification = task.loss(run(head, features), message["y"])
        metrics = {"classification": classification}
        if image is not None:
            away = image.distance(run("decoder", features), image.target(message["image"]))
            loss = image.weights[0] * classification + image.weights[1] * away
            metrics["self_supervised"] = away
        return {**message, "x": features}, {"loss": loss, **metrics}

    return local_block(parts["f"].name, parts, step, tx)


def _mixing_block(parts: Parts, task: Task, tx: Optimizers, share: float, image: Image | None) -> LocalBlock:
    """A block of `dgl` whose auxiliary scores learn from a share of the top's error."""

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        outputs = {"scores": run("aux", features)}
        kept = {"labels": message["y"]}
        if image is not None:
            outputs["image"] = run("decoder", features)
            kept["image"] = image.target(message["image"])
        return {**message, "x": features}, outputs, kept

    def answer(params: dict, outputs: dict, kept: dict, signal: Any) -> Answer:
        loss, error = jax.value_and_grad(task.loss)(outputs["scores"], kept["labels"])
        error = (1 - share) * error + share * signal["error"]
        if image is None:
            return Answer({"scores": error}, {"loss": loss, "classification": loss})
        of_classes, of_image = image.weights
        distance, away = jax.value_and_grad(image.distance)(outputs["image"], kept["image"])
        whole = of_classes * loss + of_image * distance
        metrics = {"loss": whole, "classification": loss, "self_supervised": distance}
        return Answer({"scores": of_classes * error, "image": of_image * away}, metrics)

    return waiting_block(parts["f"].name, parts, step, answer, tx)
