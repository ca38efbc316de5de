"""Losses of a prediction against a target of the same shape."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax


def one_hot(labels: jax.Array, classes: int, dtype: Any) -> jax.Array:
    """Rows `(B, C)` of zeros and a one for labels `(B,)` in 0 .. C - 1; of NaN for others, so that nothing learns them.

    Examples:
      >>> one_hot(jnp.array([1, 2]), 2, jnp.float32).tolist()
      [[0.0, 1.0], [nan, nan]]
    """
    known = (labels >= 0) & (labels < classes)
    return jnp.where(known[:, None], jax.nn.one_hot(labels, classes, dtype=dtype), jnp.nan)


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
