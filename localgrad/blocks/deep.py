"""The deep image networks of the papers as lists of Blocks: VGG, residual networks and AlexNet."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

from localgrad.base import Block
from localgrad.blocks.compose import regroup
from localgrad.blocks.flax import from_linen
from localgrad.blocks.layers import ConvLayer, DenseLayer, ResidualLayer, max_pool
from localgrad.blocks.networks import Grouping, check

Pool = Literal["after", "before", "between"]
Form = Literal["he", "neco"]

# Channels of 3x3 convolutions, "pool" for 2x2 max-pooling, and ("dense", features).
VGG: dict[str, tuple[int | str | tuple[str, int], ...]] = {
    # Nokland and Eidnes, https://arxiv.org/abs/1901.06656
    "vgg8b": (128, 256, "pool", 256, 512, "pool", 512, "pool", 512, "pool", ("dense", 1024)),
    "vgg11b": (*[128] * 3, 256, "pool", 256, 512, "pool", 512, 512, "pool", 512, "pool", ("dense", 1024)),
    # Simonyan and Zisserman, https://arxiv.org/abs/1409.1556, without the two dense layers of 4096
    "vgg11": (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool"),
    # NOTES: the same layers with three poolings, so that an image of 32 x 32 ends at 4 x 4
    "vgg11c": (64, 128, "pool", 256, 256, "pool", 512, 512, 512, 512, "pool"),
    "vgg13": (64, 64, "pool", 128, 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool"),
    "vgg16": (64, 64, "pool", 128, 128, "pool", *[256] * 3, "pool", *[512] * 3, "pool", *[512] * 3, "pool"),
    "vgg19": (64, 64, "pool", 128, 128, "pool", *[256] * 4, "pool", *[512] * 4, "pool", *[512] * 4, "pool"),
}
# channels and number of residual blocks of each stage
RESNET: dict[str, tuple[tuple[int, int], ...]] = {
    "resnet18": ((64, 2), (128, 2), (256, 2), (512, 2)),
    "resnet20": ((16, 3), (32, 3), (64, 3)),
    "resnet32": ((16, 5), (32, 5), (64, 5)),
}


def vgg(
    variant: str,
    *,
    activation: str = "relu",
    norm: bool = True,
    dropout: float = 0.0,
    pool: Pool = "after",
    dense: Sequence[int] | None = None,
    width_factor: float = 1.0,
    blocks: Grouping = None,
) -> list[Block]:
    """A VGG network: 3x3 convolutions with batch norm and 2x2 max-pooling, one convolution a block.

    Args:
      variant: a key of `VGG`.
      activation, norm, dropout, blocks: as `mlp`.  The form that NECO trains is `vgg8b` with `pool="after"`,
        `dense=(1024, 1024)` and `blocks=(2, 2, 2, 2)`.
      pool: where a pooling belongs: `after` ends the block below it, `before` opens the block above it, so that a local
        loss sees the features unpooled (as the paper of `vgg8b` and `vgg11b`); `between` opens it too, and heads read
        the features pooled (`Block.summary`), but for a decoder of the image (as NOTES).  An image of one row or column
        is not pooled further.
      dense: features of the dense layers at the end, in place of the variant's own.
      width_factor: multiplies every width (rounded to whole numbers, at least 1).

    Returns:
      Blocks from images `(B, H, W, C)`.

    Raises:
      ValueError: as `mlp`, and for a factor that is not positive or an unknown place of pooling.

    Examples:
      >>> [block.name for block in vgg("vgg11", width_factor=0.25)][:3]
      ['conv16+pool', 'conv32+pool', 'conv64']
    """
    check(activation, dropout)
    _check_factor(width_factor)
    if pool not in get_args(Pool):
        raise ValueError(f"pool must be one of {', '.join(get_args(Pool))}; got {pool!r}.")
    layers: list[Block] = []
    pooled = False  # a pooling waits for the layer that it opens
    specs = VGG[variant]
    if dense is not None:
        check(activation, dropout, dense or (1,))
        specs = (*(spec for spec in specs if not isinstance(spec, tuple)), *(("dense", width) for width in dense))
    for i, spec in enumerate(specs):
        if spec == "pool":
            pooled = pool != "after"
            continue
        below_pool = specs[i + 1 : i + 2] == ("pool",)
        last = i + 2 == len(specs)  # nothing above could open with the pooling
        ends = below_pool and (pool == "after" or last)
        width = _scaled(spec[1] if isinstance(spec, tuple) else int(spec), width_factor)
        if isinstance(spec, tuple):
            module: DenseLayer | ConvLayer = DenseLayer(width, activation, norm, dropout, pool_before=pooled)
            name = f"dense{width}"
        else:
            module = ConvLayer(width, 1, activation, norm, dropout, pool_before=pooled, pool_after=ends)
            name = f"conv{width}"
        layer = from_linen(module, name="pool+" * pooled + name + "+pool" * ends)
        layers.append(layer._replace(summary=max_pool) if below_pool and not ends and pool == "between" else layer)
        pooled = False
    return regroup(layers, blocks)


def resnet(
    variant: str,
    *,
    form: Form = "he",
    activation: str | None = None,
    mean: bool | None = None,
    dropout: float = 0.0,
    width_factor: float = 1.0,
    blocks: Grouping = None,
) -> list[Block]:
    """A residual network: a 3x3 convolution, then residual blocks, one a Block.

    All keep batch norm.  NECO trains `form="neco"` of `resnet20` and `resnet32` in blocks of a stem and one a stage,
    `blocks=(1, 3, 3, 3)`: there the top bridge reads the last block's 8 x 8 x 64 features, flattened.  Its baseline by
    backpropagation is the same with `activation="relu"` and `mean=True`, under `bp_matched`.

    Args:
      variant: a key of `RESNET`.
      form: of the residual blocks, `he` or `neco`, see `ResidualLayer`.
      activation: of all layers; None is the form's own, relu or elu.
      mean: whether the last block ends in a mean over space; None is the form's own, yes in `he` and no in `neco`.
      dropout, blocks: as `mlp`.
      width_factor: as `vgg`.

    Returns:
      Blocks from images `(B, H, W, C)`.

    Raises:
      ValueError: as `vgg`, and for an unknown form or a mean that is neither yes nor no.

    References:
      He et al., Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385, sections 4.1 and 4.2;
      for images of about 32 x 32 the stem of `resnet18` is a 3x3 convolution too.
      Kao and Chen, Associated Learning, https://arxiv.org/abs/1906.05560, released code
    """
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {', '.join(get_args(Form))}; got {form!r}.")
    if mean not in (None, False, True):
        raise ValueError(f"mean is True, False or None; got {mean!r}.")
    activation = activation or {"he": "relu", "neco": "elu"}[form]
    mean = form == "he" if mean is None else mean
    check(activation, dropout)
    _check_factor(width_factor)
    stages = [(_scaled(width, width_factor), count) for width, count in RESNET[variant]]
    stem = ConvLayer(stages[0][0], 1, activation, True)
    layers = [from_linen(stem, name=f"conv{stages[0][0]}")]
    for s, (width, count) in enumerate(stages):
        for i in range(count):
            ends = mean and s == len(stages) - 1 and i == count - 1
            module = ResidualLayer(width, 2 if s and not i else 1, activation, dropout, form, pool_after=ends)
            layers.append(from_linen(module, name=f"residual{width}" + "+mean" * ends))
    return regroup(layers, blocks)


def alexnet(
    widths: Sequence[int] = (64, 192, 384, 256, 256, 4096, 4096),
    *,
    activation: str = "relu",
    norm: bool = True,
    dropout: float = 0.0,
    blocks: Grouping = None,
) -> list[Block]:
    """AlexNet for small images, with batch norm as DKP trains it.

    Five 3x3 convolutions, the first with stride 2, max-pooling after the first, second and fifth, and two dense layers.

    Args:
      widths: channels of the five convolutions and features of the dense layers.
      activation, norm, dropout, blocks: as `mlp`.

    Returns:
      Blocks from images `(B, H, W, C)`.

    Raises:
      ValueError: as `mlp`, and for fewer than six widths.

    References:
      Krizhevsky, One weird trick for parallelizing convolutional neural networks, https://arxiv.org/abs/1404.5997
    """
    check(activation, dropout, widths)
    if len(widths) < 6:
        raise ValueError(f"alexnet has five convolutions and at least one dense layer; got widths {tuple(widths)}.")
    layers = []
    for i, width in enumerate(widths[:5]):
        ends = i in (0, 1, 4)
        module = ConvLayer(width, 2 if i == 0 else 1, activation, norm, dropout, pool_after=ends)
        layers.append(from_linen(module, name=f"conv{width}" + "+pool" * ends))
    for width in widths[5:]:
        layers.append(from_linen(DenseLayer(width, activation, norm, dropout), name=f"dense{width}"))
    return regroup(layers, blocks)


DEEP: dict[str, Callable[..., list[Block]]] = {
    **{name: partial(vgg, name, pool="before" if name in ("vgg8b", "vgg11b") else "after") for name in VGG},
    **{name: partial(resnet, name) for name in RESNET},
    "alexnet": alexnet,
}


def _scaled(width: int, factor: float) -> int:
    return max(1, round(width * factor))


def _check_factor(factor: float) -> None:
    if not factor > 0:
        raise ValueError(f"width_factor must be positive; got {factor}.")
