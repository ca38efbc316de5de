"""Forward-Forward: every block learns to be strongly active on true pairs of input and label, and weakly on false ones.

    g = mean h^2, of each example          h = f(x / rms x)     the first block's x is an input with its label in it
    loss = mean softplus(theta - g(true pairs)) + mean softplus(g(false pairs) - theta)
    prediction: the label whose goodness, summed over blocks, is the largest

References:
  Hinton, The Forward-Forward Algorithm, https://arxiv.org/abs/2212.13345, sections 2 and 3.3
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from localgrad.base import Block, BlockState, Key, LocalBlock, Message, Model
from localgrad.methods.groups import Optimizers, check_kernels
from localgrad.methods.parts import (
    Parts,
    Run,
    check,
    checked_exit,
    local_block,
    names_of,
    needs_classes,
    runs_of,
    summaries_of,
)
from localgrad.tasks import Task

_FALSE = 0x66616C73  # sets the key of the false labels apart from those within a block
_FLOOR = 1e-8


def ff(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    threshold: float = 2.0,
    label_scale: float = 1.0,
) -> Model:
    """Forward-Forward with labels in the input.

    The first block draws a false label for each example, uniformly over the others, and hands on both passes; so a
    block sees 2 B examples, each true pair before its false one, and batch norms see them together.  What a block hands
    on is divided by its root mean square, so that goodness is nothing that the next one can read off.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs, of which the first C numbers give way to the label.
      classes: number of classes C, of labels 0 .. C - 1.
      tx: any optax transform over the group f.
      threshold: theta.  The paper leaves it open (of the sum of squares, as many as there are units, would be 1 here);
        2 is usual where goodness is a mean.
      label_scale: what stands in the label's place, where others are 0; the paper has the largest pixel.

    Returns:
      A `Model` whose every block is an exit: the C scores are the goodness of each label, summed over the blocks up to
      it.  Prediction takes C passes.  (The paper leaves the first block out of the sum; an exit there would have none.)

    Raises:
      ValueError: for inputs of fewer numbers than classes, or whole ones; numbers that are not positive and finite.
    """
    network, task = check(network, classes, "ff")
    needs_classes(task, "ff", "it holds labels against false ones")
    if not jnp.issubdtype(x_spec.dtype, jnp.floating) or math.prod(x_spec.shape[1:]) < task.outputs:
        raise ValueError(
            f"method 'ff' writes labels of {task.outputs} classes into the first numbers of an input, and these are "
            f"{x_spec.shape[1:]} of {x_spec.dtype}: it takes as many floating numbers or more."
        )
    for name, value in (("threshold", threshold), ("label_scale", label_scale)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite; got {value}.")
    labelled = partial(_labelled, classes=task.outputs, scale=label_scale)
    parts: list[Parts] = [{"f": f} for f in network]
    blocks = [_block(part, task, tx, threshold, labelled if i == 0 else None) for i, part in enumerate(parts)]
    exits = tuple(range(1, len(parts) + 1))

    def enter(x: jax.Array, y: jax.Array) -> Message:
        return {"x": x, "y": y}

    def path(states: tuple[BlockState, ...], x: jax.Array, top: int, keys: Sequence[Key] | None = None):
        """The outputs of f up to a block for no label in particular, and the goodness of each label."""
        count, outputs = len(x), []
        labels = jnp.tile(jnp.eye(task.outputs, dtype=x.dtype), (count, 1))
        no_label = labelled(x, jnp.full((count, task.outputs), 1 / task.outputs, x.dtype))
        pairs = jnp.concatenate([no_label, labelled(jnp.repeat(x, task.outputs, axis=0), labels)])
        total = jnp.zeros((count, task.outputs), x.dtype)
        runs = runs_of(parts[:top], states[:top], None if keys is None else keys[:top])
        for i, (part, run) in enumerate(zip(parts, runs, strict=False)):
            pairs = run("f", _normalised(pairs) if i else pairs)
            outputs.append(pairs[:count])
            total = total + _goodness(part["f"].summary(pairs[count:])).reshape(count, -1)
        return outputs, total

    def predict(states: tuple[BlockState, ...], x: jax.Array, exit: int | None = None) -> jax.Array:
        return path(states, x, checked_exit(exits, exit))[1]

    def features(states: tuple[BlockState, ...], x: jax.Array, keys: Sequence[Key] | None = None) -> list[jax.Array]:
        outputs, scores = path(states, x, len(parts), keys)
        return [*summaries_of(parts, outputs), scores]

    used = (frozenset({"f"}),) * len(parts)
    names = (*names_of(parts), "scores")
    y_spec = task.y_spec(x_spec)
    check_kernels(blocks, set().union(*parts))
    return Model("ff", tuple(blocks), x_spec, y_spec, task, enter, predict, features, exits, used, path=names)


def _block(parts: Parts, task: Task, tx: Optimizers, threshold: float, labelled: Callable | None = None) -> LocalBlock:
    """A block; the first is given `labelled`, and makes pairs."""

    def step(run: Run, message: Message, key: Key):
        x, y = message["x"], message["y"]
        if labelled is not None:
            other = jax.random.randint(jax.random.fold_in(key, _FALSE), y.shape, 1, task.outputs, y.dtype)
            labels = jnp.stack([y, (y + other) % task.outputs], axis=1).reshape(-1)
            x = labelled(jnp.repeat(x, 2, axis=0), task.encode(labels, x.dtype))
        features = run("f", x)
        true, false = _goodness(parts["f"].summary(features)).reshape(-1, 2).T
        loss = jnp.mean(jax.nn.softplus(threshold - true)) + jnp.mean(jax.nn.softplus(false - threshold))
        metrics = {"loss": loss + task.check(y, loss.dtype), "true": jnp.mean(true), "false": jnp.mean(false)}
        return {**message, "x": _normalised(features)}, metrics

    return local_block(parts["f"].name, parts, step, tx)


def _labelled(x: jax.Array, labels: jax.Array, *, classes: int, scale: float) -> jax.Array:
    """Inputs `(N, ...)` whose first C numbers are labels `(N, C)`, of an image those of its first rows."""
    flat = x.reshape(len(x), -1)
    return jnp.concatenate([scale * labels, flat[:, classes:]], axis=1).reshape(x.shape)


def _goodness(features: jax.Array) -> jax.Array:
    """`(N,)`: the mean square of each example's features."""
    return jnp.mean(features.reshape(len(features), -1) ** 2, axis=1)


def _normalised(features: jax.Array) -> jax.Array:
    """Each example's features over their root mean square."""
    size = jnp.sqrt(_goodness(features) + _FLOOR)
    return features / size.reshape(-1, *[1] * (features.ndim - 1))
