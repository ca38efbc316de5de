"""Blocks from Blocks: several in a row as one, a network cut as finely as asked for, and one that keeps less."""

from collections.abc import Sequence

import jax
import numpy as np

from localgrad.base import Block, Key, PyTree, Spec
from localgrad.blocks.given import check_block, check_blocks


def chain(blocks: Sequence[Block], *, name: str | None = None) -> Block:
    """Runs several Blocks in a row as one.

    Its params and model state are dicts with one entry a part: `"0"`, `"1"`, ...

    Args:
      blocks: at least one Block, from the input up; a single one is returned as it is.
      name: the name in tables; the parts' names joined by `+` by default.

    Raises:
      ValueError: if there is none.
      TypeError: for anything but Blocks.

    Examples:
      >>> from localgrad.blocks import mlp
      >>> chain(mlp((8, 4))).name
      'dense8+dense4'
    """
    check_blocks(blocks, "chain")
    if not blocks:
        raise ValueError("a chain needs at least one Block; got none.")
    if len(blocks) == 1:
        return blocks[0]

    def init(key: Key, x_spec: jax.ShapeDtypeStruct) -> tuple[PyTree, PyTree]:
        params, model_state = {}, {}
        for i, (block, own) in enumerate(zip(blocks, jax.random.split(key, len(blocks)), strict=True)):
            params[str(i)], model_state[str(i)] = block.init(own, x_spec)
            x_spec = output_spec(block, x_spec)
        return params, model_state

    def apply(params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool):
        moved = {}
        for i, block in enumerate(blocks):
            own = None if key is None else jax.random.fold_in(key, i)
            x, moved[str(i)] = block.apply(params[str(i)], model_state[str(i)], x, key=own, train=train)
        return x, moved

    return Block(init, apply, name or "+".join(block.name for block in blocks), blocks[-1].summary)


def regroup(layers: Sequence[Block], blocks: int | Sequence[int] | None) -> list[Block]:
    """Cuts a network anew: contiguous layers become one Block.

    Args:
      layers: the finest Blocks of a network.
      blocks: how many Blocks, of as equal numbers of layers as can be; or the number of layers of each; None leaves
        the layers as they are.

    Raises:
      ValueError: if the numbers are not positive or do not add up to the number of layers.
      TypeError: for anything but Blocks.

    Examples:
      >>> from localgrad.blocks import mlp
      >>> [block.name for block in regroup(mlp((8, 4, 2)), (1, 2))]
      ['dense8', 'dense4+dense2']
      >>> len(regroup(mlp((8, 4, 2)), 2))
      2
    """
    check_blocks(layers, "layers")
    if blocks is None:
        return list(layers)
    if isinstance(blocks, int):
        if not 1 <= blocks <= len(layers):
            raise ValueError(f"blocks={blocks} of a network of {len(layers)} layers: choose 1 to {len(layers)}.")
        sizes = [len(part) for part in np.array_split(np.arange(len(layers)), blocks)]
    else:
        sizes = list(blocks)
        if min(sizes, default=0) < 1 or sum(sizes) != len(layers):
            given = ",".join(map(str, sizes))
            raise ValueError(
                f"blocks={given} are the layers of each block, so they must be positive and add up to the "
                f"{len(layers)} layers of the network: {', '.join(layer.name for layer in layers)}."
            )
    ends = np.cumsum(sizes)
    return [chain(layers[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def remat(block: Block) -> Block:
    """A Block that keeps nothing but its input for the way back, and runs forward a second time there.

    Outputs and gradients are the same, random draws and batch statistics included.  It saves memory where a gradient
    comes from above (`bp`): a block with a loss of its own keeps nothing for later as it is.

    Args:
      block: any Block; a `chain` keeps the input of its first part.

    Raises:
      TypeError: for anything but a Block.

    References:
      Chen et al., Training Deep Nets with Sublinear Memory Cost, https://arxiv.org/abs/1604.06174

    Examples:
      >>> from localgrad.blocks import mlp
      >>> [block.name for block in map(remat, mlp((8, 4)))]
      ['dense8', 'dense4']
    """

    check_block(block, "remat")

    def apply(params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool):
        run = lambda params, model_state, x, key: block.apply(params, model_state, x, key=key, train=train)
        return jax.checkpoint(run)(params, model_state, x, key)

    return block._replace(apply=apply)


def output_spec(block: Block, x_spec: Spec) -> Spec:
    """Shape and dtype of what a Block makes of a batch `x_spec`."""

    def run(key: Key, x: jax.Array) -> jax.Array:
        params, model_state = block.init(key, x_spec)
        return block.apply(params, model_state, x, key=key, train=True)[0]

    return jax.eval_shape(run, jax.eval_shape(lambda: jax.random.key(0)), x_spec)
