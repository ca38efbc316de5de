"""Synthetic gradients: every block learns at once from a guess of its gradient (`dni`, `cdni`).

    h_i = f_i(h_{i-1})            ghat_i = G_i(h_i)   or, cdni, G_i(h_i, y)
    f_i descends ghat_i           at once: its gradient is J_i^T ghat_i
    G_i descends 1/B sum |G_i(h_i) - sg(J_{i+1}^T ghat_{i+1})|^2       when the next block has passed

The target is bootstrapped: the next block's own vjp of its own synthetic gradient.  The last block has the network's
classifier, and its gradient is the true one.  ghat is the gradient of an example's own loss, B times its share in that
of the mean, so that neither the size of a batch nor the number of shards is part of what G learns; the papers leave
that open.

References:
  Jaderberg et al., Decoupled Neural Interfaces using Synthetic Gradients, https://arxiv.org/abs/1608.05343
  NOTES, a researcher's log, first iteration
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from localgrad.base import Block, Key, LocalBlock, Message, Model
from localgrad.blocks.flax import from_linen
from localgrad.blocks.layers import batch_norm
from localgrad.blocks.sequences import summarised
from localgrad.methods.groups import Optimizers
from localgrad.methods.heads import classifier
from localgrad.methods.parts import Parts, Run, check, classifying_model
from localgrad.methods.relayed import relay_block
from localgrad.registry import check_known
from localgrad.tasks import Task

PROFILES = ("released", "notes")


class Synthesizer(nn.Module):
    """G: three layers of the kind of the block's output, which is also the shape of what they give.

    Layer, batch norm, ReLU, layer, batch norm, ReLU, layer; layers are convolutions of images `(B, H, W, C)` and dense
    layers of all else, at every place of a sequence.  The last begins at zero, weights and bias.  NOTES has no ReLUs.

    Attributes:
      context: of the input's last channels so many are the label's code, which a linear map adds behind the first
        layer, before its norm.
      hidden: width of the hidden layers; None is the output's.
      kernel: size of the convolutions.
      relu: whether there are ReLUs.
    """

    context: int = 0
    hidden: int | None = None
    kernel: int = 5
    relu: bool = True

    @nn.compact
    def __call__(self, x, train: bool):
        h, context = jnp.split(x, [x.shape[-1] - self.context], axis=-1)
        size = (self.kernel, self.kernel)
        layer = lambda features, **how: nn.Conv(features, size, **how) if x.ndim == 4 else nn.Dense(features, **how)
        width = h.shape[-1]
        hidden, y = self.hidden or width, h
        for turn in range(2):
            y = layer(hidden, use_bias=False)(y)
            if self.context and turn == 0:
                y = y + nn.Dense(hidden, use_bias=False, name="context")(context)
            y = batch_norm(train)(y)
            y = nn.relu(y) if self.relu else y
        return layer(width, kernel_init=nn.initializers.zeros)(y)


def dni(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    profile: str = "released",
    hidden: int | None = None,
    kernel: int = 5,
) -> Model:
    """Decoupled neural interfaces: a synthesizer on every block but the last predicts its gradient from its output.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the groups f and synthesizer, of which each gets a state of its own; the last block
        has f and head.  Published: Adam at 3e-5 for all; plain SGD does not converge.
      profile: of the synthesizers: `released` has ReLUs behind its norms, `notes` (NOTES) has none.
      hidden: width of a synthesizer's two hidden layers; None is that of the block's output.
      kernel: size of a synthesizer's convolutions.

    Returns:
      A `Model` whose only exit is the last block.

    Raises:
      ValueError: for an unknown profile, or sizes below 1.

    References:
      Jaderberg et al., https://arxiv.org/abs/1608.05343, sections 2.1 and 3.1, appendix C
    """
    return _synthetic("dni", network, x_spec, classes, tx, profile, hidden, kernel, labels=False)


def cdni(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    profile: str = "released",
    hidden: int | None = None,
    kernel: int = 5,
) -> Model:
    """`dni` whose synthesizers are told the target: a linear map of its code is added behind their first layer.

    Args:
      network, x_spec, classes, tx, profile, hidden, kernel: as `dni`.

    Raises:
      ValueError: as `dni`.

    References:
      as `dni`, section 3.1 (cDNI)
    """
    return _synthetic("cdni", network, x_spec, classes, tx, profile, hidden, kernel, labels=True)


def _synthetic(
    method: str,
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    tx: Optimizers,
    profile: str,
    hidden: int | None,
    kernel: int,
    labels: bool,
) -> Model:
    network, task = check(network, classes, method)
    check_known("profile", profile, PROFILES, of=f"method {method!r}")
    for name, size in (("hidden", hidden), ("kernel", kernel)):
        if size is not None and (type(size) is not int or size < 1):
            raise ValueError(f"{name} of method {method!r} is a whole number of at least 1; got {size!r}.")
    context = task.outputs if labels else 0
    parts: list[dict[str, Block]] = []
    for f in network[:-1]:
        guess = Synthesizer(context, hidden, kernel, profile == "released")
        parts.append({"f": f, "synthesizer": from_linen(guess, name="synthesizer")})
    parts.append({"f": network[-1], "head": summarised(network[-1], classifier(task.outputs))})
    blocks = [synthetic_block(part, task, tx, labels=labels) for part in parts[:-1]]
    blocks.append(_last_block(parts[-1], task, tx))
    return classifying_model(method, blocks, parts, [None] * len(blocks[:-1]) + ["head"], x_spec, task)


def synthetic_block(parts: Parts, task: Task, tx: Optimizers, *, labels: bool) -> LocalBlock:
    """A block that learns from its synthesizer, and hands down the gradient that this makes at its input.

    Its loss at once is the mean over examples of the product of output and synthetic gradient, whose gradient the rule
    is: it says nothing of how well the block does.

    Args:
      parts: `f` and `synthesizer`, of the output and, with labels, of that and the code of y as more channels.
      task, tx: as for every method.
      labels: the synthesizer is told y.
    """

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        kept = jax.lax.stop_gradient({"features": features, "y": message["y"]})
        guessed = jax.lax.stop_gradient(guess(run, kept))
        return {**message, "x": features}, {"loss": jnp.sum(guessed * features) / len(features)}, kept

    def guess(run: Run, kept: dict[str, jax.Array]) -> jax.Array:
        return run("synthesizer", _given(kept["features"], kept["y"], task if labels else None))

    def learn(run: Run, kept: dict[str, jax.Array], signal: jax.Array):
        away = jnp.sum(jnp.square(guess(run, kept) - signal)) / len(signal)
        return {"loss": away, "synthesizer": away}

    return relay_block(parts["f"].name, parts, step, _of_examples, tx, later={"synthesizer": learn})


def _last_block(parts: Parts, task: Task, tx: Optimizers) -> LocalBlock:
    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        return {**message, "x": features}, {"loss": task.loss(run("head", features), message["y"])}, ()

    return relay_block(parts["f"].name, parts, step, _of_examples, tx)


def _of_examples(kept: object, gradient: jax.Array | None) -> jax.Array | None:
    """The gradient of each example's own loss, of that of their mean."""
    return None if gradient is None else gradient * len(gradient)


def _given(features: jax.Array, y: jax.Array, task: Task | None) -> jax.Array:
    """What a synthesizer reads: the features, with the code of y as more channels at every place if there is a task."""
    if task is None:
        return features
    code = task.encode(y, features.dtype)
    places = (*features.shape[:-1], task.outputs)
    code = code.reshape(places) if task.per_token else jnp.expand_dims(code, range(1, features.ndim - 1))
    code = jnp.broadcast_to(code, places)
    return jnp.concatenate([features, code], axis=-1)
