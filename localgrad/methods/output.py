"""The classifier on top of a network as a block of its own, which sees detached features."""

import jax
import optax

from localgrad.base import Key, LocalBlock, Message
from localgrad.losses import cross_entropy, unless_known
from localgrad.methods.parts import Answer, Parts, Run, local_block, waiting_block


def output_block(parts: Parts, classes: int, tx: optax.GradientTransformation, weight: float = 1.0) -> LocalBlock:
    """A block without features of its own: `weight` times the cross-entropy of its `head`."""

    def step(run: Run, message: Message, key: Key):
        scores = run("head", message["x"])
        return {**message, "x": scores}, {"loss": weight * label_loss(scores, message["y"], classes)}

    return local_block("output", parts, step, tx)


def error_block(parts: Parts, classes: int, tx: optax.GradientTransformation) -> LocalBlock:
    """The same, which also hands down `{"error": d loss / d scores (B, C), "loss": the loss}` to all blocks below."""

    def step(run: Run, message: Message, key: Key):
        scores = run("head", message["x"])
        return {**message, "x": scores}, scores, message["y"]

    def answer(params: dict, scores: jax.Array, labels: jax.Array, signal: None) -> Answer:
        loss, error = jax.value_and_grad(label_loss)(scores, labels, classes)
        return Answer(error, {"loss": loss}, downward={"error": error, "loss": loss})

    return waiting_block("output", parts, step, answer, tx)


def label_loss(scores: jax.Array, labels: jax.Array, classes: int) -> jax.Array:
    """Mean cross-entropy of scores `(B, C)` against integer labels `(B,)`, in nats."""
    loss = cross_entropy(scores, jax.nn.one_hot(labels, classes, dtype=scores.dtype))
    return loss + unless_known(labels, classes, scores.dtype)
