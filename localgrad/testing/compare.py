"""Two trees that should be the same, and words for where they are not."""

from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import DivergedError, Metrics, Model, PyTree
from localgrad.keys import is_key
from localgrad.pipeline import specs

DOUBLE, SINGLE = 1e-12, 1e-4  # how far apart two programs may be in float64, and in float32


def name_of(model: Model, i: int) -> str:
    """What messages call a block."""
    return f"block {i + 1} ({model.blocks[i].name!r})"


def tolerance_of(model: Model) -> float:
    """How far apart two programs may be: `1e-12` where all of a model is float64, otherwise `1e-4`."""
    leaves = [leaf for leaf in jax.tree.leaves(specs(model)[0]) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return DOUBLE if all(leaf.dtype == jnp.float64 for leaf in leaves) else SINGLE


def assert_same(ours: PyTree, theirs: PyTree, tolerance: float, where: str, advice: str) -> None:
    """Both trees are equal, to a tolerance.

    Args:
      ours, theirs: trees of arrays.
      tolerance: the largest absolute difference; at 0 every bit is the same.
      where: whose trees they are, and what was done to get them.
      advice: what to do.

    Raises:
      AssertionError: naming the leaf that is furthest off, and by how much.
    """
    try:
        chex.assert_trees_all_equal_structs(ours, theirs)
        if tolerance:
            chex.assert_trees_all_close(ours, theirs, rtol=0, atol=tolerance)
        else:
            chex.assert_trees_all_equal(ours, theirs)
    except AssertionError as error:
        raise AssertionError(f"{where}: {furthest(ours, theirs)}. {advice}") from error


def assert_same_states(
    model: Model, ours: Sequence[Any], theirs: Sequence[Any], tolerance: float, where: str, advice: str
) -> None:
    """The states of every block are the same; names the first block from the input up that is not."""
    for i, pair in enumerate(zip(ours, theirs, strict=True)):
        assert_same(*pair, tolerance, f"{name_of(model, i)}, {where}", advice)


def assert_same_reports(
    model: Model, ours: Metrics, theirs: Metrics, tolerance: float, where: str, advice: str
) -> None:
    """The metrics of every batch are the same, each reported once; in whatever order."""
    for i, (mine, other) in enumerate(zip(by_batch(ours), by_batch(theirs), strict=True)):
        name = f"{name_of(model, i)}, {where}"
        assert sorted(mine) == sorted(other), (
            f"{name}: the batches {sorted(mine)} are reported by one and {sorted(other)} by the other."
        )
        for batch, values in mine.items():
            assert_same(values, other[batch], tolerance, f"{name}, metrics of batch {batch}", advice)


def assert_finite(tree: PyTree, where: str, advice: str) -> None:
    """Every number of a tree is finite.

    Raises:
      AssertionError: naming the first leaf that holds a number that is not.
    """
    try:
        chex.assert_tree_all_finite(tree)
    except AssertionError as error:
        bad = [path for path, leaf in leaves_of(tree) if not np.all(np.isfinite(_numbers(leaf)))]
        raise AssertionError(f"{where}: {bad[0] if bad else 'a leaf'} is not finite. {advice}") from error


def assert_learnt(model: Model, metrics: Metrics) -> None:
    """Every block has learnt from every batch: an engine keeps the last sound state of one that has not.

    Raises:
      AssertionError: naming the first batch on which a block had to do with a number that is not finite.
    """
    try:
        metrics.check([block.name for block in model.blocks])
    except DivergedError as error:
        advice = "Lower the rate, or look for a division or a logarithm that needs a small number added."
        raise AssertionError(f"{name_of(model, error.block)}: {error}. {advice}") from error


def furthest(ours: PyTree, theirs: PyTree) -> str:
    """A sentence on the leaf in which two trees differ most."""
    mine, other = dict(leaves_of(ours)), dict(leaves_of(theirs))
    alone = [path for path in (*mine, *other) if path not in mine or path not in other]
    if alone:
        return f"{alone[0]} is in one of the two alone"
    for path, leaf in mine.items():
        if kind_of(leaf) != kind_of(other[path]):
            return f"{path} is {kind_of(leaf)} in one and {kind_of(other[path])} in the other"
    apart = {path: _apart(leaf, other[path]) for path, leaf in mine.items()}
    worst = max(apart, key=lambda path: (np.isnan(apart[path]), apart[path]), default="")
    return f"{worst} differs by {apart[worst]:.1e}" if worst else "the structures differ"


def by_batch(metrics: Metrics) -> list[dict[int, dict[str, Any]]]:
    """Of each block, what it reported of each batch.

    Raises:
      AssertionError: if a block reported a batch twice.
    """
    found: list[dict[int, dict[str, Any]]] = []
    for i, (values, ids) in enumerate(zip(metrics.values, metrics.batch_id, strict=True)):
        numbers = [int(b) for b in np.asarray(ids) if b >= 0]
        assert len(set(numbers)) == len(numbers), f"block {i + 1} reported a batch twice: {numbers}."
        rows = [(int(b), at) for at, b in enumerate(np.asarray(ids)) if b >= 0]
        found.append({b: {name: np.asarray(x)[at] for name, x in values.items()} for b, at in rows})
    return found


def leaves_of(tree: PyTree) -> list[tuple[str, Any]]:
    """`(path, leaf)` of a tree, paths as one writes them in Python."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path).removeprefix(".") or "the value", leaf) for path, leaf in found]


def kind_of(leaf: Any) -> str:
    """Dtype and shape of a leaf, such as `float32[8, 3]`, with what makes jax compile again."""
    weak = "weakly typed " if getattr(leaf, "weak_type", False) else ""
    return f"{weak}{getattr(leaf, 'dtype', type(leaf).__name__)}{list(np.shape(leaf))}"


def _numbers(leaf: Any) -> np.ndarray:
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf, np.float64)


def _apart(ours: Any, theirs: Any) -> float:
    mine, other = _numbers(ours), _numbers(theirs)
    return float(np.max(np.where(np.isnan(mine) & np.isnan(other), 0, np.abs(mine - other)), initial=0.0))
