"""How each block's own update, and its feedback, stand to backpropagation's, on one batch."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import BlockState, Model, PyTree
from localgrad.keys import block_key
from localgrad.pipeline.step import gradients
from localgrad.report import projection_cosines, true_gradients, weight_cosines

Cosines = list[float | None]  # one a block
_KEY = 0  # seeds dropout, the same in the update and in what it is compared with


def aligner(model: Model) -> Callable[[Sequence[BlockState], jax.Array, jax.Array], dict[str, Cosines]]:
    """Returns `(states, x, y) -> cosines`, compiled once; all of it is of one and the same training step.

    - `update`: of each block's gradient of `f`, before its optimizer, with that of the network's loss end to end; None
      where a block has no `f`, or one of the two is zero, as where blocks are frozen.
    - `projection`: of a B^T with the scores, see `projection_cosines`.
    - `weights`: of B^T with the weights that it stands for, see `weight_cosines`.

    Args:
      model: a model without trials.  One of two views is shown the same one twice.
    """

    @jax.jit
    def step(states: tuple[BlockState, ...], x: jax.Array, y: jax.Array):
        keys = [block_key(jax.random.key(_KEY), jnp.int32(0), i) for i in range(len(model.blocks))]
        if x.ndim < model.x_spec.ndim:
            x = jnp.stack([x, x], axis=1)
        ours = [grads.get("f") for _, grads, _ in gradients(model, states, model.enter(x, y), keys)]
        theirs = true_gradients(model, states, x, y, keys)
        return list(zip(ours, theirs, strict=True)), projection_cosines(model, states, x, keys), weight_cosines(states)

    def measure(states: Sequence[BlockState], x: jax.Array, y: jax.Array) -> dict[str, Cosines]:
        pairs, projection, weights = step(tuple(states), x, y)
        numbers = lambda values: [None if value is None else float(value) for value in values]
        return {
            "update": [exact_cosine(*pair) for pair in pairs],
            "projection": numbers(projection),
            "weights": numbers(weights),
        }

    return measure


def exact_cosine(ours: PyTree, theirs: PyTree) -> float | None:
    """Cosine of two trees of arrays, summed in float64: sums of a million float32 would round by more than 1e-6.

    Returns:
      None if a tree is None, or zero.

    Examples:
      >>> exact_cosine({"a": np.array([1.0, 1.0])}, {"a": np.array([2.0, 2.0])}) - 1 < 1e-15
      True
    """
    flat = [
        np.concatenate([np.zeros(0), *(np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree))])
        for tree in (ours, theirs)
    ]
    dot = lambda a, b: np.sum(a * b)  # in pairs; what BLAS does differs by machine, and may add one after another
    norms = [float(np.sqrt(dot(vector, vector))) for vector in flat]
    return float(np.clip(dot(flat[0] / norms[0], flat[1] / norms[1]), -1, 1)) if all(norms) else None
