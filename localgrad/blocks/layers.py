"""The Flax modules that the networks are made of, each one layer with what belongs to it."""

from collections.abc import Callable

import jax
from flax import linen as nn

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "elu": nn.elu, "relu": nn.relu, "leaky_relu": nn.leaky_relu, "gelu": nn.gelu, "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
}  # fmt: skip
Initializer = nn.initializers.Initializer
HE: Initializer = nn.initializers.he_normal()
LECUN: Initializer = nn.linear.default_kernel_init  # Flax's own: a half of He's variance


class DenseLayer(nn.Module):
    """(max-pool) -> dense -> (batch norm) -> activation -> (dropout) -> (plus its input, layer norm).

    Flattens its input, which is added where it is as wide.
    """

    features: int
    activation: str = "elu"
    norm: bool = False
    dropout: float = 0.0
    pool_before: bool = False
    skip: bool = False

    @nn.compact
    def __call__(self, x, train: bool):
        x = max_pool(x) if self.pool_before else x
        x = x.reshape(x.shape[0], -1)
        y = _finish(self, nn.Dense(self.features, use_bias=not self.norm, kernel_init=HE)(x), train)
        if not self.skip:
            return y
        return nn.LayerNorm()(x + y if x.shape == y.shape else y)


class ConvLayer(nn.Module):
    """(max-pool) -> convolution -> (batch norm) -> activation -> (dropout) -> (pool), on images (B, H, W, C)."""

    features: int
    stride: int = 1
    activation: str = "elu"
    norm: bool = False
    dropout: float = 0.0
    kernel: int = 3
    pool_before: bool = False
    pool_after: bool = False
    pool: str = "max"  # of `POOLS`, the one after

    @nn.compact
    def __call__(self, x, train: bool):
        x = max_pool(x) if self.pool_before else x
        size = (self.kernel, self.kernel)
        x = nn.Conv(self.features, size, strides=self.stride, use_bias=not self.norm, kernel_init=HE)(x)
        x = _finish(self, x, train)
        return POOLS[self.pool](x) if self.pool_after else x


class ResidualLayer(nn.Module):
    """activation(shortcut(x) + two 3x3 convolutions with batch norm), on images (B, H, W, C).

    The shortcut is the identity, or a 1x1 convolution where the shape changes.  He et al. (`form="he"`) put batch norm
    on that and no activation between the second norm and the sum; NECO's code an activation and no norm.

    References:
      He et al., Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385, Figure 2
      Kao and Chen, Associated Learning, https://arxiv.org/abs/1906.05560, released code
    """

    features: int
    stride: int = 1
    activation: str = "relu"
    dropout: float = 0.0
    form: str = "he"
    pool_after: bool = False  # the mean over space that ends a residual network

    @nn.compact
    def __call__(self, x, train: bool):
        def convolution(x: jax.Array, size: int, stride: int, norm: bool = True) -> jax.Array:
            x = nn.Conv(self.features, (size, size), strides=stride, use_bias=not norm, kernel_init=HE)(x)
            return batch_norm(train)(x) if norm else x

        activation = ACTIVATIONS[self.activation]
        y = activation(convolution(x, 3, self.stride))
        y = convolution(y, 3, 1)
        y = activation(y) if self.form == "neco" else y
        if x.shape != y.shape:
            x = convolution(x, 1, self.stride, norm=self.form == "he")
        x = activation(x + y)
        x = nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout else x
        return x.mean(axis=(1, 2)) if self.pool_after else x


def batch_norm(train: bool) -> nn.BatchNorm:
    """Batch norm whose running averages keep 0.9 of their value a batch, as the papers' PyTorch does (Flax: 0.99)."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9)


def max_pool(x: jax.Array) -> jax.Array:
    """2x2 max-pooling of images (B, H, W, C) with stride 2; those of one row or column stay as they are."""
    return nn.max_pool(x, (2, 2), strides=(2, 2)) if min(x.shape[1:3]) > 1 else x


def wide_max_pool(x: jax.Array) -> jax.Array:
    """3x3 max-pooling of images (B, H, W, C) with stride 2, windows centred on every other pixel."""
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def wide_mean_pool(x: jax.Array) -> jax.Array:
    """The same of means; what lies outside of the image counts as zeros, as PyTorch has it."""
    return nn.avg_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "max": max_pool,
    "wide_max": wide_max_pool,
    "wide_mean": wide_mean_pool,
}


def pool_to(x: jax.Array, features: int | None) -> jax.Array:
    """Flattens to `(B, D)`; images are averaged until D is at most `features`, or the channels if those are more.

    None averages nothing.  The window doubles in height, then in width, then in height again, padded with zeros where
    it does not divide.

    References:
      Nokland and Eidnes, https://arxiv.org/abs/1901.06656, released code
    """
    if x.ndim == 4 and features is not None:
        _, height, width, channels = x.shape
        window = [1, 1]
        size = lambda: -(-height // window[0]) * -(-width // window[1]) * channels
        axis = 0
        while size() > features and (window[0] < height or window[1] < width):
            window[axis] = min(2 * window[axis], 2 * (height, width)[axis])
            axis = 1 - axis
        if window != [1, 1]:
            shape = (window[0], window[1])
            x = nn.avg_pool(x, shape, strides=shape, padding="SAME")
    return x.reshape(x.shape[0], -1)


# A layer with batch norm has no bias of its own: the norm cancels it, and Adam would make steps of rounding errors.
def _finish(layer: DenseLayer | ConvLayer, x: jax.Array, train: bool) -> jax.Array:
    if layer.norm:
        x = batch_norm(train)(x)
    x = ACTIVATIONS[layer.activation](x)
    return nn.Dropout(layer.dropout, deterministic=not train)(x) if layer.dropout else x
