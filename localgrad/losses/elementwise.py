"""Losses of a prediction against a target of the same shape."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax


def unless_known(labels: jax.Array, classes: int, dtype: Any) -> jax.Array:
    """What a loss adds so that nothing is learnt from labels `(B,)` outside of 0 .. C - 1: zero, or NaN if one is.

    It is a constant beside the loss, so that the gradient is computed as without it, to the bit.

    Examples:
      >>> [float(unless_known(jnp.array([1, label]), 2, jnp.float32)) for label in (0, 2)]
      [0.0, nan]
    """
    known = jnp.all((labels >= 0) & (labels < classes))
    return jax.lax.stop_gradient(jnp.where(known, 0, jnp.nan).astype(dtype))


def mean_squared_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over every element of (prediction - target)^2; two arrays of one shape, a scalar out.

    Examples:
      >>> float(mean_squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
      2.0
    """
    chex.assert_equal_shape((prediction, target))
    return jnp.mean(optax.losses.squared_error(prediction, target))


def mean_absolute_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over every element of |prediction - target|; two arrays of one shape, a scalar out.

    Examples:
      >>> float(mean_absolute_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
      1.0
    """
    chex.assert_equal_shape((prediction, target))
    return jnp.mean(jnp.abs(prediction - target))


def cross_entropy(scores: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over rows of -sum(target * log softmax(scores)), in nats; scores and target `(B, C)`, a scalar out.

    On scores from a tanh, in [-1, 1], it cannot fall below log(1 + (C - 1) e^-2).

    Examples:
      >>> round(float(cross_entropy(jnp.array([[1.0, -1.0]]), jnp.array([[1.0, 0.0]]))), 3)
      0.127
    """
    chex.assert_rank(scores, 2)
    chex.assert_equal_shape((scores, target))
    return jnp.mean(optax.losses.softmax_cross_entropy(scores, target))
