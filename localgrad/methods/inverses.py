"""The inverses of target propagation, and what its forms share."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from localgrad.base import PyTree
from localgrad.blocks.layers import ACTIVATIONS
from localgrad.methods.parts import Parts
from localgrad.registry import check_known


class Inverse(nn.Module):
    """G: from a block's output to its input, one layer.

    A dense layer, or, from images to images, the nearest enlargement to their size and a 3x3 convolution; then an
    activation.

    Attributes:
      shape: of what it gives, without the batch.
      activation: a key of `ACTIVATIONS`, or `linear`.
    """

    shape: tuple[int, ...]
    activation: str

    @nn.compact
    def __call__(self, x):
        if x.ndim == 4 and len(self.shape) == 3:
            x = jax.image.resize(x, (len(x), *self.shape[:2], x.shape[-1]), "nearest")
            x = nn.Conv(self.shape[-1], (3, 3))(x)
        else:
            x = nn.Dense(math.prod(self.shape))(x.reshape(len(x), -1)).reshape(len(x), *self.shape)
        return x if self.activation == "linear" else ACTIVATIONS[self.activation](x)


def check_numbers(method: str, activation: str, eta: float, noise: float = 0.0) -> None:
    """Refuses options of target propagation that cannot be.

    Raises:
      ValueError: naming the option, and what it may be.
    """
    known = ("linear", *ACTIVATIONS)
    check_known("activation", activation, known, of=f"method {method!r}")
    if not 0 < eta < math.inf or not 0 <= noise < math.inf:
        raise ValueError(f"eta of method {method!r} is above 0, and noise at least 0; got {eta} and {noise}.")


def squares(away: jax.Array) -> jax.Array:
    """Sum over units, mean over examples."""
    return jnp.sum(jnp.square(away)) / len(away)


def undone(parts: Parts, params: PyTree, x: jax.Array) -> jax.Array:
    """G, which has no state and draws nothing."""
    return parts["inverse"].apply(params, {}, x, key=None, train=True)[0]
