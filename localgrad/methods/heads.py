"""What is put on a block's features to make a loss of them: classifiers, projections, decoders."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from localgrad.base import Block
from localgrad.blocks.flax import from_linen
from localgrad.blocks.layers import LECUN, Initializer, batch_norm, pool_to


class Dense(nn.Module):
    """Dense layers on the flattened (and perhaps pooled) input, an activation after each; the last may go without."""

    widths: tuple[int, ...]
    activation: str = "linear"
    last_activation: str | None = None  # None: as the others
    features: int | None = None  # images are averaged to at most so many features first, see `pool_to`
    zero: bool = False  # the last layer begins at zero
    kernel_init: Initializer = LECUN
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        x = pool_to(x, self.features)
        for i, width in enumerate(self.widths):
            last = i == len(self.widths) - 1
            kernel_init = nn.initializers.zeros if self.zero and last else self.kernel_init
            x = nn.Dense(width, self.bias, kernel_init=kernel_init)(x)
            name = self.last_activation if last and self.last_activation is not None else self.activation
            x = x if name == "linear" else getattr(nn, name)(x)
        return x


class SmallMLP(nn.Module):
    """Belilovsky's heads of dense layers, on a coarse grid of the image; a vector is an image of one place.

    Mean over a grid of ceil(s / 4), `places` 1x1 convolutions, mean over 2x2, `dense` layers of the width that is there
    (four times the channels), each with batch norm and ReLU, and a dense layer.  MLP-SR has three and three, MLP none
    and three, the head of the last block none and two.

    References:
      Belilovsky et al., Decoupled Greedy Learning of CNNs, https://arxiv.org/abs/1901.08164, section 4.1 and released
        code (`auxiliary_nets_study`)
    """

    classes: int
    places: int = 3
    dense: int = 3

    @nn.compact
    def __call__(self, x, train: bool):
        layer = lambda x, dense: nn.relu(batch_norm(train)(dense(x)))
        x = x if x.ndim == 4 else x.reshape(x.shape[0], 1, 1, -1)
        grid = (-(-x.shape[1] // 4), -(-x.shape[2] // 4))
        x = adaptive_mean(x, grid)
        for _ in range(self.places):
            x = layer(x, nn.Dense(x.shape[-1], use_bias=False))
        x = adaptive_mean(x, (min(2, grid[0]), min(2, grid[1])))
        x = x.reshape(x.shape[0], -1)
        for _ in range(self.dense):
            x = layer(x, nn.Dense(x.shape[-1], use_bias=False))
        return nn.Dense(self.classes)(x)


class SmallCNN(nn.Module):
    """Belilovsky's head of convolutions: two of 3x3 with batch norm and ReLU, mean over 2x2, batch norm, dense layer.

    References:
      as `SmallMLP`
    """

    classes: int

    @nn.compact
    def __call__(self, x, train: bool):
        if x.ndim != 4:
            raise ValueError(
                f"the auxiliary network 'cnn' reads images (B, H, W, C), and is given {x.shape}: use 'mlp'."
            )
        for _ in range(2):
            x = nn.Conv(x.shape[-1], (3, 3), use_bias=False)(x)
            x = nn.relu(batch_norm(train)(x))
        x = batch_norm(train)(adaptive_mean(x, (min(2, x.shape[1]), min(2, x.shape[2]))))
        return nn.Dense(self.classes)(x.reshape(x.shape[0], -1))


class ImageDecoder(nn.Module):
    """An image from features: enlarged to its size and a 3x3 convolution of the channels, or a dense layer of vectors.

    `transposed` enlarges by transposed convolutions, each of which doubles the size until it is reached, `bilinear` by
    interpolating what the convolution makes; `none` leaves the features' size.

    References:
      NOTES, third iteration, technical details
    """

    shape: tuple[int, ...]
    upsample: str = "transposed"

    @nn.compact
    def __call__(self, x, train: bool):
        if x.ndim != 4:
            return nn.Dense(math.prod(self.shape))(x).reshape(x.shape[0], *self.shape)
        height, width, channels = self.shape
        while self.upsample == "transposed" and (x.shape[1] < height or x.shape[2] < width):
            x = nn.ConvTranspose(max(x.shape[-1] // 2, 8), (4, 4), strides=(2, 2), use_bias=False)(x)
            x = nn.relu(batch_norm(train)(x))
        x = nn.Conv(channels, (3, 3))(x[:, :height, :width])
        return jax.image.resize(x, (x.shape[0], *self.shape), "bilinear") if self.upsample == "bilinear" else x


class Similarity(nn.Module):
    """A 3x3 convolution of images or a dense layer of vectors, as wide as its input, without bias."""

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        return nn.Conv(width, (3, 3), use_bias=False)(x) if x.ndim == 4 else nn.Dense(width, use_bias=False)(x)


def classifier(
    classes: int,
    *,
    hidden: Sequence[int] = (),
    pool: int | None = None,
    zero: bool = False,
    bias: bool = True,
    name: str = "classifier",
) -> Block:
    """Scores of the classes: dense layers on features pooled to at most `pool`, ReLU between them."""
    return from_linen(Dense((*hidden, classes), "relu", "linear", pool, zero, bias=bias), name=name)


def adaptive_mean(x: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Means over a grid of windows that cover images `(B, H, W, C)`: window i is rows i H / n to (i + 1) H / n."""
    for axis, count in zip((1, 2), grid, strict=True):
        size = x.shape[axis]
        windows = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        means = [jax.lax.slice_in_dim(x, a, b, axis=axis).mean(axis=axis, keepdims=True) for a, b in windows]
        x = jnp.concatenate(means, axis=axis)
    return x
