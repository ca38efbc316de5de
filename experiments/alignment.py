"""How each block's own update stands to backpropagation's, on one batch."""

import jax
import jax.numpy as jnp

from localgrad.base import BlockState, Model
from localgrad.pipeline.step import gradients
from localgrad.report import cosine, true_gradients


def update_cosines(model: Model, states: tuple[BlockState, ...], x: jax.Array, y: jax.Array) -> list[float | None]:
    """Cosine of each block's update of `f` with backpropagation's gradient; None where a block has no `f`."""
    views = model.x_spec.ndim - x.ndim  # a method of two views is shown the same one twice
    message = model.enter(jnp.stack([x, x], axis=1) if views else x, y)
    keys = list(jax.random.split(jax.random.key(0), len(model.blocks)))
    ours = [grads for _, grads, _ in jax.jit(lambda states: gradients(model, states, message, keys))(states)]
    theirs = jax.jit(lambda states: true_gradients(model, states, x, y))(states)
    return [None if t is None else float(cosine(g["f"], t)) for g, t in zip(ours, theirs, strict=True)]
