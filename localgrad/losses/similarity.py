"""Similarity matching: examples should be as similar in a block as their labels are."""

import chex
import jax
import jax.numpy as jnp

from localgrad.losses.elementwise import mean_squared_error

_NORM_FLOOR = 1e-8
_CHANNELS_OF_AN_INPUT = 3  # a colour image itself is compared place by place


def similarity_matrix(x: jax.Array) -> jax.Array:
    """Cosine similarities of the centred rows of a batch.

    An image `(B, H, W, C)` of more than three channels and more than one row is first reduced to the standard deviation
    over space of each channel (divided by one less than the number of places); others are flattened.  Then each row
    loses its own mean and is divided by its norm + 1e-8, and entries are clamped to [-1, 1].  Gradients are zero, not
    NaN, where a deviation or a norm is zero.

    Args:
      x: `(B, D)` or `(B, H, W, C)`.

    Returns:
      `(B, B)`.

    References:
      Nokland and Eidnes, Training neural networks with local error signals, https://arxiv.org/abs/1901.06656, Eq. 1;
      which images are reduced is as in the released code, `similarity_matrix` of
      https://github.com/anokland/local-loss
    """
    if x.ndim == 4 and x.shape[1] > 1 and x.shape[3] > _CHANNELS_OF_AN_INPUT:
        places = x.reshape(x.shape[0], -1, x.shape[-1])
        spread = places - jnp.mean(places, axis=1, keepdims=True)
        x = _sqrt(jnp.sum(spread**2, axis=1) / (places.shape[1] - 1))
    x = x.reshape(x.shape[0], -1)
    chex.assert_rank(x, 2)
    centred = x - jnp.mean(x, axis=1, keepdims=True)
    norm = _sqrt(jnp.sum(centred**2, axis=1, keepdims=True))
    unit = centred / (norm + _NORM_FLOOR)
    return jnp.clip(unit @ unit.T, -1.0, 1.0)


def similarity_matching(x: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over the B x B pairs of the squared difference of two `similarity_matrix`; batches in, a scalar out.

    Examples:
      >>> same = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> bool(similarity_matching(3.0 * same, same) < 1e-12)
      True
    """
    return mean_squared_error(similarity_matrix(x), similarity_matrix(target))


def _sqrt(x: jax.Array) -> jax.Array:
    """Square root whose gradient at zero is zero."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)
