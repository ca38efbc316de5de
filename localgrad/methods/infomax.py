"""Greedy InfoMax: every block learns to tell which patch of an image lies below another; LoCo: so do pairs of blocks.

    z = mean over places of h_k of a patch      score = c^T W_j z      c the patch j + 1 rows above z, j = 1 .. steps
    loss_k = mean over patches and j of -log softmax(score of the true patch | those of `negatives` others)

Images are cut into patches that overlap by half; each is an example of its own to the blocks.  Others are drawn
uniformly from the patches of the batch that could lie there.  Blocks are read by linear probes on the mean over
patches, see `self_supervised.py`.

References:
  Lowe, O'Connor and Veeling, Putting An End to End-to-End: Gradient-Isolated Learning of Representations (Greedy
    InfoMax), https://arxiv.org/abs/1905.11786, Eqs. 3 and 4; skip and negatives as in the released code
  Xiong, Ren and Urtasun, LoCo: Local Contrastive Representation Learning, https://arxiv.org/abs/2008.01342, section 3
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from localgrad.base import Block, Key, Model
from localgrad.blocks import output_spec
from localgrad.blocks.flax import from_linen
from localgrad.blocks.sequences import summarised
from localgrad.methods.groups import Optimizers
from localgrad.methods.overlap import overlapping
from localgrad.methods.parts import Run, check
from localgrad.methods.self_supervised import probed
from localgrad.tasks import Task

SKIP = 1  # rows between a patch and the first that is predicted from it, which would share half of its pixels
_NEGATIVES = 0x6E656761  # sets the key of the other patches apart from those within a block


def gim(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    patch: int | None = None,
    steps: int = 5,
    negatives: int = 16,
) -> Model:
    """Greedy InfoMax of images.

    The paper has images of 64, patches of 16 that begin every 8 (7 x 7 of them), Adam at 2e-4 and a batch of 32.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier; they see patches.
      x_spec: shape `(B, H, W, C)` and dtype of a batch of images.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`: what probes learn.
      tx: any optax transform over the groups f, predict (all W_j) and probe.
      patch: side of a patch, an even number; None is a quarter of the image's height, as the paper has it.
      steps: the most rows that are predicted; where the image has fewer, as many as there are.
      negatives: patches that the true one is to be told from.

    Returns:
      A `Model` whose every block is an exit, by its probe.

    Raises:
      ValueError: for inputs that are no images, patches of an odd side or too few rows of them, or numbers below one.
    """
    network, task = check(network, classes, "gim")
    if len(x_spec.shape) != 4:
        raise ValueError(
            f"methods 'gim' and 'loco' cut images (B, H, W, C) into patches; the inputs are {x_spec.shape}."
        )
    for name, value in (("steps", steps), ("negatives", negatives)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number from 1 up; got {value!r}.")
    side = max(2, x_spec.shape[1] // 4 // 2 * 2) if patch is None else patch
    if not isinstance(side, int) or side < 2 or side % 2:
        raise ValueError(f"patch is an even number of pixels from 2 up; got {patch!r}.")
    rows, columns = ((size - side) // (side // 2) + 1 for size in x_spec.shape[1:3])
    if rows < SKIP + 2 or columns < 1:
        raise ValueError(
            f"methods 'gim' and 'loco' predict patches {SKIP + 1} rows below, and patches of {side} make "
            f"{max(rows, 0)} rows of images {x_spec.shape[1:3]}: choose smaller ones."
        )
    steps = min(steps, rows - 1 - SKIP)
    _check_reads(network, jax.ShapeDtypeStruct((x_spec.shape[0], side, side, x_spec.shape[3]), x_spec.dtype))
    own = partial(_loss, grid=(rows, columns), steps=steps, negatives=negatives)
    predict = from_linen(_Predictions(steps), name="predictions")
    parts = [{"f": f, "predict": summarised(f, predict)} for f in network]
    read = lambda features: pooled(features).reshape(-1, rows * columns, features.shape[-1]).mean(axis=1)
    cut = lambda x, train: patches(x, side, (rows, columns))
    return probed("gim", parts, own, x_spec, task, tx, read=read, entered=cut)


def loco(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    overlap: bool = True,
    patch: int | None = None,
    steps: int = 5,
    negatives: int = 16,
) -> Model:
    """LoCo: Greedy InfoMax whose losses reach two blocks each, so that neighbouring units share one.

    The paper's units begin with blocks 1 and 2; here the first block keeps a loss of its own beside that of the second,
    and the loss is that of `gim` where the paper has SimCLR's: `overlapping(simclr(...))` is that.

    Args:
      network, x_spec, classes, tx, patch, steps, negatives: as `gim`.
      overlap: False is `gim`.

    Returns:
      A `Model` whose every block is an exit, by its probe; with overlap every block but the last waits for the pass of
      the next (`signal='next'`).

    Raises:
      ValueError: as `gim`.
    """
    model = gim(network, x_spec, classes, tx=tx, patch=patch, steps=steps, negatives=negatives)
    return (overlapping(model) if overlap else model)._replace(method="loco")


def _check_reads(network: Sequence[Block], given: jax.ShapeDtypeStruct) -> None:
    """Refuses patches that a network makes nothing of.

    Raises:
      ValueError: naming the block.
    """
    side = given.shape[1]
    for f in network:
        try:
            given = output_spec(f, given)
        except Exception as error:
            raise ValueError(f"block {f.name!r} cannot read patches of {side}, {given.shape}: {error}.") from error
        if 0 in given.shape:
            raise ValueError(f"block {f.name!r} makes {given.shape} of patches of {side}: choose larger ones.")


def patches(x: jax.Array, side: int, grid: tuple[int, int]) -> jax.Array:
    """Patches of images `(B, H, W, C)`, `(B rows columns, side, side, C)`: those of the first image first, by rows.

    Examples:
      >>> patches(jnp.arange(16.0).reshape(1, 4, 4, 1), 2, (3, 3))[1, ..., 0].tolist()
      [[1.0, 2.0], [5.0, 6.0]]
    """
    stride = side // 2
    found = [
        jax.lax.slice(x, (0, i * stride, j * stride, 0), (len(x), i * stride + side, j * stride + side, x.shape[3]))
        for i in range(grid[0])
        for j in range(grid[1])
    ]
    return jnp.stack(found, axis=1).reshape(-1, side, side, x.shape[3])


def _loss(run: Run, features: jax.Array, key: Key, *, grid: tuple[int, int], steps: int, negatives: int) -> jax.Array:
    """The loss of a block's output of all patches."""
    predicted = run("predict", features)  # (N, steps, D): W_j z
    z = pooled(features).reshape(-1, *grid, predicted.shape[-1])
    predicted = predicted.reshape(-1, *grid, *predicted.shape[1:])
    total = jnp.zeros((), z.dtype)
    for j in range(steps):
        below = predicted[:, j + 1 + SKIP :, :, j]
        above = z[:, : -(j + 1 + SKIP)]
        flat = below.reshape(-1, below.shape[-1])
        draw = jax.random.fold_in(jax.random.fold_in(key, _NEGATIVES), j)
        others = flat[jax.random.randint(draw, (*above.shape[:3], negatives), 0, len(flat), jnp.int32)]
        true = jnp.sum(above * below, axis=-1, keepdims=True)
        false = jnp.einsum("brcd,brcnd->brcn", above, others)
        log_shares = jax.nn.log_softmax(jnp.concatenate([true, false], axis=-1))
        total = total - jnp.mean(log_shares[..., 0])
    return total / steps


def pooled(features: jax.Array) -> jax.Array:
    """The mean over places of images `(N, H, W, C)`, `(N, C)`; others flattened."""
    return features.mean(axis=(1, 2)) if features.ndim == 4 else features.reshape(len(features), -1)


class _Predictions(nn.Module):
    """All W_j z of patches, `(N, steps, D)`, without bias."""

    steps: int

    @nn.compact
    def __call__(self, x):
        z = pooled(x)
        return nn.Dense(self.steps * z.shape[-1], use_bias=False)(z).reshape(len(z), self.steps, -1)
