"""Mixed precision: a block computes in a short float, while its parameters and statistics stay as they are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Block, Key, PyTree
from localgrad.blocks.given import of_dtypes


def compute_dtype(block: Block, dtype: Any = jnp.bfloat16) -> Block:
    """A Block that computes in another float, and hands its output on in that.

    Its parameters, its batch statistics and what the optimizer keeps have the dtype of a block that is initialised with
    float32 inputs; they are cast for every pass, and gradients come back in their own dtype.  Heads, codes and losses
    see a summary in float32.  Inputs that are whole numbers, such as token ids, are not cast.

    Args:
      block: any block of float32 parameters.
      dtype: `bfloat16` or `float16`; the latter needs a scale of the loss that the library does not have.

    Raises:
      ValueError: for a dtype that is no float shorter than float32.

    Examples:
      >>> from localgrad.blocks import mlp
      >>> (block,) = mlp((4,))
      >>> short = compute_dtype(block)
      >>> params, state = short.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 3), jnp.float32))
      >>> y, _ = short.apply(params, state, jnp.ones((2, 3)), key=None, train=False)
      >>> str(jax.tree.leaves(params)[0].dtype), str(y.dtype), str(short.summary(y).dtype)
      ('float32', 'bfloat16', 'float32')
    """
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize >= 4:
        raise ValueError(f"dtype is a float shorter than float32, such as bfloat16; got {dtype.name}.")

    def init(key: Key, x_spec: jax.ShapeDtypeStruct) -> tuple[PyTree, PyTree]:
        long = jnp.float32 if jnp.issubdtype(x_spec.dtype, jnp.floating) else x_spec.dtype
        return block.init(key, jax.ShapeDtypeStruct(x_spec.shape, long))

    def apply(params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool):
        with jax.numpy_dtype_promotion("standard"):  # a norm adds its long statistics to short features
            y, moved = block.apply(_cast(params, dtype), model_state, _cast(x, dtype), key=key, train=train)
        return _cast(y, dtype), of_dtypes(moved, model_state)

    return block._replace(init=init, apply=apply, summary=lambda y: _cast(block.summary(y), np.dtype(np.float32)))


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    """Floats in another dtype; all else as it is."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
