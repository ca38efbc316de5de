"""Whether two runs trained the same network: a digest of parameters, and the largest difference of two."""

import hashlib
from collections.abc import Sequence

import jax
import numpy as np

from localgrad.base import BlockState, PyTree
from localgrad.keys import is_key


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
            array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{i}{path} {array.dtype.name} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def largest_difference(ours: PyTree, theirs: PyTree) -> float:
    """The largest absolute difference of any element of two trees of arrays; NaN if there is a NaN in either.

    Examples:
      >>> largest_difference({"a": np.array([1.0, 2.0])}, {"a": np.array([1.0, 2.5])})
      0.5
    """
    wide = lambda x: np.asarray(x, np.float64)
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    # numpy's max and not Python's, which passes over a NaN
    return float(np.max([np.max(np.abs(wide(a) - wide(b)), initial=0.0) for a, b in pairs]))
