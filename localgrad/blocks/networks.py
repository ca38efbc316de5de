"""Plain networks as lists of Blocks: layers of one kind after another."""

from collections.abc import Sequence

from localgrad.base import Block
from localgrad.blocks.compose import regroup
from localgrad.blocks.flax import from_linen
from localgrad.blocks.layers import ACTIVATIONS, ConvLayer, DenseLayer
from localgrad.registry import check_known

Grouping = int | Sequence[int] | None


def mlp(
    widths: Sequence[int] = (256, 256, 256, 256),
    *,
    activation: str = "elu",
    norm: bool = False,
    dropout: float = 0.0,
    skip: bool = False,
    blocks: Grouping = None,
) -> list[Block]:
    """A multi-layer perceptron: one dense layer a block.

    Args:
      widths: features of each layer.
      activation: elu (with He-normal initialisation, as NECO, https://arxiv.org/abs/1906.05560), relu, leaky_relu,
        gelu, tanh or sigmoid.
      norm: batch norm before the activation.
      dropout: rate after the activation.
      skip: each layer adds its input to what it gives, where both are equally wide, and ends in a layer norm: for
        dozens of blocks, whose features would otherwise grow more alike, or larger, with the depth.
      blocks: how layers are grouped, see `regroup`.

    Returns:
      Blocks `(B, ...) -> (B, widths[i])`.

    Raises:
      ValueError: for an unknown activation, no widths, a width below 1, a rate outside [0, 1), or a grouping that does
        not fit.

    Examples:
      >>> [block.name for block in mlp((64, 32))]
      ['dense64', 'dense32']
    """
    check(activation, dropout, widths)
    layers = [
        from_linen(DenseLayer(width, activation, norm, dropout, skip=skip), name=f"dense{width}") for width in widths
    ]
    return regroup(layers, blocks)


def cnn(
    widths: Sequence[int] = (16, 16, 32, 32, 64, 64),
    *,
    activation: str = "elu",
    norm: bool = False,
    dropout: float = 0.0,
    blocks: Grouping = None,
) -> list[Block]:
    """A plain convolutional network: one 3x3 convolution a block, with stride 2 wherever the width grows.

    Args:
      widths: channels of each layer.
      activation, norm, dropout, blocks: as `mlp`.

    Returns:
      Blocks `(B, H, W, C) -> (B, H', W', widths[i])`.

    Raises:
      ValueError: as `mlp`.
    """
    check(activation, dropout, widths)
    strides = [2 if width > last else 1 for last, width in zip((widths[0], *widths), widths, strict=False)]
    return regroup(_convolutions(widths, strides, activation, norm, dropout), blocks)


def vanilla_cnn(
    widths: Sequence[int] = (32, 32, 32, 32, 64, 64, 64, 64),
    *,
    activation: str = "elu",
    norm: bool = False,
    dropout: float = 0.0,
    blocks: Grouping = None,
) -> list[Block]:
    """NECO's convolutional network: eight 3x3 convolutions, stride 2 at the fourth and the last.

    Its dense layers are Associated Learning's bridge and decoders; `bp_matched` adds the same ones to backpropagation.
    The released code trains pairs, `blocks=(2, 2, 2, 2)`; the paper counts six components, of which the last holds the
    middle layers, `blocks=(1, 1, 1, 1, 1, 3)`.

    Args:
      widths: channels of each layer; stride 2 in the middle and at the end.
      activation, norm, dropout, blocks: as `mlp`.

    Returns:
      Blocks `(B, H, W, C) -> (B, H', W', widths[i])`.

    Raises:
      ValueError: as `mlp`.

    References:
      Kao and Chen, Associated Learning, https://arxiv.org/abs/1906.05560, released code
    """
    check(activation, dropout, widths)
    reduced = (len(widths) // 2 - 1, len(widths) - 1)
    strides = [2 if i in reduced else 1 for i in range(len(widths))]
    return regroup(_convolutions(widths, strides, activation, norm, dropout), blocks)


def convnet(
    widths: Sequence[int] = (128, 256, 512),
    *,
    activation: str = "relu",
    norm: bool = False,
    dropout: float = 0.0,
    blocks: Grouping = None,
) -> list[Block]:
    """Delog-SCL's convolutional network: three 3x3 convolutions that keep the size of the image.

    The paper's listing states the padding, 1, and not the size of the kernel; 3 is what keeps the image's size.

    Args:
      widths: channels of each layer.
      activation, norm, dropout, blocks: as `mlp`.

    Returns:
      Blocks `(B, H, W, C) -> (B, H, W, widths[i])`.

    Raises:
      ValueError: as `mlp`.

    References:
      Delog-SCL, Algorithm 2
    """
    check(activation, dropout, widths)
    return regroup(_convolutions(widths, [1] * len(widths), activation, norm, dropout), blocks)


def two_conv(
    widths: Sequence[int] = (32, 32, 128),
    *,
    activation: str = "relu",
    norm: bool = True,
    dropout: float = 0.0,
    blocks: Grouping = None,
) -> list[Block]:
    """DKP's small network: two 3x3 convolutions, max-pooling and a dense layer, with batch norm.

    Args:
      widths: channels of the two convolutions and features of the dense layer.
      activation, norm, dropout, blocks: as `mlp`.

    Returns:
      Three Blocks; the pooling opens the dense one.

    Raises:
      ValueError: as `mlp`, and unless there are three widths.

    References:
      Webster et al., Direct Kolen-Pollack learning, Table 3
    """
    check(activation, dropout, widths)
    if len(widths) != 3:
        raise ValueError(f"two_conv has three widths, of two convolutions and a dense layer; got {tuple(widths)}.")
    *convolutions, dense = widths
    layers = _convolutions(convolutions, (1, 1), activation, norm, dropout)
    top = DenseLayer(dense, activation, norm, dropout, pool_before=True)
    return regroup([*layers, from_linen(top, name=f"pool+dense{dense}")], blocks)


def basic_cnn(
    widths: Sequence[int] = (128, 128, 128, 256),
    *,
    activation: str = "relu",
    norm: bool = True,
    pool: str = "wide",
    dropout: float = 0.0,
    blocks: Grouping = None,
) -> list[Block]:
    """The small network of synthetic gradients and of the NOTES: 5x5 convolutions, pooling after each, a dense layer.

    The dense layer has no batch norm.  The NOTES train three blocks, the last with the dense layer: `blocks=(1, 1, 2)`.

    Args:
      widths: channels of the convolutions, and features of the dense layer.
      activation, norm, dropout, blocks: as `mlp`; the norm is the convolutions'.
      pool: `wide` is 3x3 with stride 2, of maxima after the first convolution and of means after the others, as in the
        code of synthetic gradients that the NOTES build on; `max` is 2x2 max-pooling, as the NOTES have it for `dgl`.

    Returns:
      Blocks from images `(B, H, W, C)`.

    Raises:
      ValueError: as `mlp`, and for fewer than two widths or an unknown pooling.

    References:
      NOTES, a researcher's log, first and second iteration (BasicCNN)
      Jaderberg et al., Decoupled Neural Interfaces using Synthetic Gradients, https://arxiv.org/abs/1608.05343
    """
    check(activation, dropout, widths)
    if len(widths) < 2:
        raise ValueError(f"basic_cnn has at least one convolution and a dense layer; got widths {tuple(widths)}.")
    if pool not in ("wide", "max"):
        raise ValueError(f"pool must be one of wide, max; got {pool!r}.")
    *convolutions, dense = widths
    layers = []
    for i, width in enumerate(convolutions):
        own = "max" if pool == "max" else "wide_mean" if i else "wide_max"
        module = ConvLayer(width, 1, activation, norm, dropout, kernel=5, pool_after=True, pool=own)
        layers.append(from_linen(module, name=f"conv{width}+pool"))
    layers.append(from_linen(DenseLayer(dense, activation, False, dropout), name=f"dense{dense}"))
    return regroup(layers, blocks)


def check(activation: str, dropout: float, widths: Sequence[int] = (1,)) -> None:
    """Refuses what no network here can be made of.

    Raises:
      ValueError: naming the argument.
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"widths must be positive whole numbers, one a layer; got {tuple(widths)}.")
    check_known("activation", activation, ACTIVATIONS)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is a rate in [0, 1); got {dropout}.")


def _convolutions(
    widths: Sequence[int], strides: Sequence[int], activation: str, norm: bool, dropout: float
) -> list[Block]:
    return [
        from_linen(ConvLayer(width, stride, activation, norm, dropout), name=f"conv{width}")
        for width, stride in zip(widths, strides, strict=True)
    ]
