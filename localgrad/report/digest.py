"""A digest of trained parameters: two runs that print the same one trained the same network."""

import hashlib
from collections.abc import Sequence

import jax
import numpy as np

from localgrad.base import BlockState


def params_sha256(states: Sequence[BlockState]) -> str:
    """SHA-256 over params and model state of every block.

    For each block in order, for each leaf by sorted key path: path, dtype, shape, and little-endian bytes.

    Args:
      states: one `BlockState` a block.

    Returns:
      The digest, in hexadecimal.
    """
    digest = hashlib.sha256()
    for i, state in enumerate(states):
        tree = {"params": state.params, "model_state": state.model_state}
        leaves = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
        for path, leaf in sorted(leaves, key=lambda pair: pair[0]):
            array = np.asarray(leaf)
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{i}{path} {array.dtype.name} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
