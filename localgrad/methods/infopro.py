"""InfoPro: every block keeps what there is to know of the image, and learns what there is to know of the class.

    loss_k = lambda1_k BCE(w_k(h_k), image) + lambda2_k (supervised contrastive loss, or cross-entropy, of a_k(h_k))
    h_k = f_k(sg(h_{k-1})); the last block has a classifier and cross-entropy alone

The lambdas go linearly from the first local block to the last but one.

References:
  Wang et al., Revisiting Locally Supervised Learning: an Alternative to End-to-End Training,
    https://arxiv.org/abs/2101.10832, section 4 and Table 8; heads and decoders as in the released code, whose bilinear
    enlarging counts pixels' centres otherwise (`align_corners`)
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from localgrad.base import Block, Key, LocalBlock, Message, Model
from localgrad.blocks.flax import from_linen
from localgrad.blocks.layers import batch_norm
from localgrad.blocks.sequences import summarised
from localgrad.losses.contrastive import normalised, supervised_contrastive
from localgrad.methods.groups import Optimizers
from localgrad.methods.heads import classifier
from localgrad.methods.parts import Run, check, classifying_model, local_block, needs_classes
from localgrad.registry import check_known
from localgrad.tasks import Task

LOSSES = ("contrast", "softmax")
# (lambda1, lambda2) of the first and of the last local block, by the number of blocks; of ResNet-32 on CIFAR-10.
PUBLISHED = {2: (5, 1, 5, 1), 4: (6, 0, 1, 2), 8: (5, 0, 0, 2), 16: (5, 0.05, 2, 0.5)}


def infopro(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    loss: str = "contrast",
    lambdas: Sequence[float] | None = None,
    temperature: float = 0.07,
    image_scale: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Model:
    """Reconstruction of the image and a supervised loss on every block but the last, which learns to classify.

    The paper trains by Nesterov momentum 0.9, decay 1e-4 and a cosine schedule after ten epochs of warm-up, 160 epochs.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.  The message carries them to every block; the ledger
        counts that.
      classes: number of classes C, of labels 0 .. C - 1; or, with `softmax`, another task, see `localgrad.tasks`.
      tx: any optax transform over the groups f, head and decoder; the last block has f and head alone.
      loss: `contrast`, supervised contrastive, or `softmax`, the task's own, which makes every block an exit.
      lambdas: four numbers: lambda1 and lambda2 of the first local block, then of the last.  None is the published row
        of the most blocks that there are not fewer of, see `PUBLISHED`.
      temperature: of the contrastive loss.
      image_scale: `(mean, std)`, one number a channel each, by which an image in [0, 1] became the input; None: the
        inputs are such images.  What is beyond [0, 1] all the same is taken as its end.

    Returns:
      A `Model` of `len(network)` blocks.

    Raises:
      ValueError: for an unknown loss, lambdas that are not four numbers from 0 up with one above 0 at either end, a
        temperature that is not positive, a scale of other channels, or inputs that are whole numbers.
    """
    network, task = check(network, classes, "infopro")
    check_known("loss", loss, LOSSES, of="method 'infopro'")
    if loss == "contrast":
        needs_classes(task, "infopro", "loss='contrast' compares labels; choose loss='softmax'")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite; got {temperature}.")
    if not jnp.issubdtype(x_spec.dtype, jnp.floating):
        raise ValueError("method 'infopro' reconstructs its input, and token ids are no quantities.")
    pairs = _pairs(len(network), lambdas)
    scale = _checked_scale(image_scale, x_spec.shape[-1])
    parts: list[dict[str, Block]] = []
    blocks: list[LocalBlock] = []
    for f, pair in zip(network, [*pairs, None], strict=True):
        own = {"f": f}
        if pair is None:
            own["head"] = summarised(f, classifier(task.outputs))
        else:
            head = _Head(128 if loss == "contrast" else task.outputs)
            own["head"] = summarised(f, from_linen(head, name=loss))
            own["decoder"] = from_linen(_Decoder(x_spec.shape[1:]), name="decoder")
        parts.append(own)
        blocks.append(_block(own, task, tx, pair, loss == "contrast", temperature, scale))
    heads = [None if loss == "contrast" else "head"] * (len(parts) - 1) + ["head"]
    model = classifying_model("infopro", blocks, parts, heads, x_spec, task, image=True)
    return model._replace(least_examples=3 if loss == "contrast" and pairs else 1)


def _block(
    parts: dict[str, Block],
    task: Task,
    tx: Optimizers,
    pair: tuple[float, float] | None,
    contrasts: bool,
    temperature: float,
    scale: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> LocalBlock:
    """A local block with its lambdas, or the last one, which has none."""

    def step(run: Run, message: Message, key: Key):
        features = run("f", message["x"])
        read = run("head", features)
        if pair is not None and contrasts:
            supervised = supervised_contrastive(normalised(read), message["y"], temperature=temperature)
            supervised = supervised + task.check(message["y"], supervised.dtype)
        else:
            supervised = task.loss(read, message["y"])
        metrics = {"loss": supervised, "supervised": supervised}
        if pair is not None:
            shown = run("decoder", features)
            entropies = optax.losses.sigmoid_binary_cross_entropy(shown, _image(message["image"], scale))
            metrics["reconstruction"] = jnp.mean(entropies)
            metrics["loss"] = pair[0] * metrics["reconstruction"] + pair[1] * supervised
        return {**message, "x": features}, metrics

    return local_block(parts["f"].name, parts, step, tx)


def _image(x: jax.Array, scale: tuple[tuple[float, ...], tuple[float, ...]] | None) -> jax.Array:
    """The image in [0, 1] that an input was made of."""
    if scale is not None:
        mean, std = (jnp.broadcast_to(jnp.asarray(numbers, x.dtype), x.shape) for numbers in scale)
        x = x * std + mean
    return jnp.clip(x, 0.0, 1.0)


def _pairs(count: int, lambdas: Sequence[float] | None) -> list[tuple[float, float]]:
    """Lambda1 and lambda2 of each block but the last of so many.

    Raises:
      ValueError: as `infopro`.
    """
    if lambdas is None:
        lambdas = PUBLISHED[max([blocks for blocks in PUBLISHED if blocks <= count], default=min(PUBLISHED))]
    numbers = isinstance(lambdas, Sequence) and all(isinstance(each, int | float) for each in lambdas)
    fine = numbers and len(lambdas) == 4 and all(0 <= each < math.inf for each in lambdas)
    if not fine or not (sum(lambdas[:2]) > 0 and sum(lambdas[2:]) > 0):
        raise ValueError(
            "lambdas are four numbers from 0 up, lambda1 and lambda2 of the first local block and of the last, of each "
            f"of which one is above 0; got {lambdas!r}."
        )
    share = lambda i: i / (count - 2) if count > 2 else 0.0
    along = lambda i, first, last: (1 - share(i)) * first + share(i) * last
    return [(along(i, lambdas[0], lambdas[2]), along(i, lambdas[1], lambdas[3])) for i in range(count - 1)]


def _checked_scale(
    scale: tuple[Sequence[float], Sequence[float]] | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The scale as numbers.

    Raises:
      ValueError: as `infopro`.
    """
    if scale is None:
        return None
    try:
        mean, std = (tuple(float(number) for number in numbers) for numbers in scale)
    except (TypeError, ValueError):
        mean = std = ()
    if not len(mean) == len(std) == channels or not all(map(math.isfinite, mean)) or not all(0 < s < 9e9 for s in std):
        raise ValueError(
            f"image_scale is (mean, std), {channels} numbers each, one a channel, deviations positive; got {scale!r}."
        )
    return mean, std


class _Decoder(nn.Module):
    """Logits of an image in [0, 1]: features enlarged to its size, two 3x3 convolutions; a dense layer of vectors."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, x, train: bool):
        if x.ndim != 4 or len(self.shape) != 3:
            x = nn.Dense(math.prod(self.shape))(x.reshape(x.shape[0], -1))
            return x.reshape(x.shape[0], *self.shape)
        x = jax.image.resize(x, (x.shape[0], *self.shape[:2], x.shape[-1]), "bilinear")
        x = nn.relu(batch_norm(train)(nn.Conv(12, (3, 3))(x)))
        return nn.Conv(self.shape[-1], (3, 3))(x)


class _Head(nn.Module):
    """Released as `1c2f`: a 3x3 convolution of stride 2, the mean over places, two dense layers; of vectors the latter.

    The convolution doubles the channels up to 64; where there are as many already it keeps them, and the size.
    """

    outputs: int

    @nn.compact
    def __call__(self, x, train: bool):
        if x.ndim == 4:
            channels = x.shape[-1]
            width, stride = (channels, 1) if channels >= 64 else (min(2 * channels, 64), 2)
            x = nn.Conv(width, (3, 3), stride, use_bias=False)(x)
            x = jnp.mean(nn.relu(batch_norm(train)(x)), axis=(1, 2))
        x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.outputs)(x)
