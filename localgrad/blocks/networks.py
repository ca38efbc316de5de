"""Networks as lists of Blocks, and the registry that gives them names."""

from collections.abc import Callable, Sequence

import jax
from flax import linen as nn

from localgrad.base import Block
from localgrad.blocks.flax import from_linen

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "elu": nn.elu, "relu": nn.relu, "gelu": nn.gelu, "tanh": nn.tanh, "sigmoid": nn.sigmoid,
}  # fmt: skip
_HE = nn.initializers.he_normal()


class DenseLayer(nn.Module):
    """Dense -> (batch norm) -> activation -> (dropout); flattens its input."""

    features: int
    activation: str = "elu"
    norm: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(self.features, use_bias=not self.norm, kernel_init=_HE)(x.reshape(x.shape[0], -1))
        return _finish(self, x, train)


class ConvLayer(nn.Module):
    """3x3 convolution -> (batch norm) -> activation -> (dropout), on images (B, H, W, C)."""

    features: int
    stride: int = 1
    activation: str = "elu"
    norm: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Conv(self.features, (3, 3), strides=self.stride, use_bias=not self.norm, kernel_init=_HE)(x)
        return _finish(self, x, train)


# A layer with batch norm has no bias of its own: the norm cancels it, and Adam would make steps of rounding errors.
def _finish(layer: DenseLayer | ConvLayer, x: jax.Array, train: bool) -> jax.Array:
    if layer.norm:
        x = nn.BatchNorm(use_running_average=not train)(x)
    x = _ACTIVATIONS[layer.activation](x)
    return nn.Dropout(layer.dropout, deterministic=not train)(x) if layer.dropout else x


def mlp(
    widths: Sequence[int] = (256, 256, 256, 256), *, activation: str = "elu", norm: bool = False, dropout: float = 0.0
) -> list[Block]:
    """A multi-layer perceptron: one dense layer a block.

    Args:
      widths: features of each block.
      activation: elu (with He-normal initialisation, as NECO, https://arxiv.org/abs/1906.05560), relu, gelu, tanh or
        sigmoid.
      norm: batch norm before the activation.
      dropout: rate after the activation.

    Returns:
      `len(widths)` Blocks, `(B, ...) -> (B, widths[i])`.

    Raises:
      ValueError: for an unknown activation, no widths, a width below 1, or a rate outside [0, 1).

    Examples:
      >>> [block.name for block in mlp((64, 32))]
      ['dense64', 'dense32']
    """
    _check(widths, activation, dropout)
    return [from_linen(DenseLayer(width, activation, norm, dropout), name=f"dense{width}") for width in widths]


def cnn(
    widths: Sequence[int] = (16, 16, 32, 32, 64, 64),
    *,
    activation: str = "elu",
    norm: bool = False,
    dropout: float = 0.0,
) -> list[Block]:
    """A plain convolutional network: one 3x3 convolution a block, with stride 2 wherever the width grows.

    Args:
      widths: channels of each block.
      activation: as `mlp`.
      norm: batch norm before the activation.
      dropout: rate after the activation.

    Returns:
      `len(widths)` Blocks, `(B, H, W, C) -> (B, H', W', widths[i])`.

    Raises:
      ValueError: as `mlp`.
    """
    _check(widths, activation, dropout)
    below = (widths[0], *widths)
    return [
        from_linen(ConvLayer(width, 2 if width > last else 1, activation, norm, dropout), name=f"conv{width}")
        for last, width in zip(below, widths, strict=False)
    ]


NETWORKS: dict[str, Callable[..., list[Block]]] = {"mlp": mlp, "cnn": cnn}


def _check(widths: Sequence[int], activation: str, dropout: float) -> None:
    if not widths or min(widths) < 1:
        raise ValueError(f"widths must be positive whole numbers, one a block; got {tuple(widths)}.")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; there are {', '.join(_ACTIVATIONS)}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is a rate in [0, 1); got {dropout}.")
