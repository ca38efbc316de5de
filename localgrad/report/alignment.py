"""How a block's own update compares with backpropagation's, and its feedback with the way forward."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from localgrad.base import BlockState, Model, PyTree


def true_gradients(model: Model, states: Sequence[BlockState], x: jax.Array, y: jax.Array) -> list[PyTree]:
    """The gradient of the network's own loss along the parameters of each block's `f`, gradients flowing end to end.

    The loss is the mean cross-entropy of `model.predict` at the last exit, hence with running statistics and without
    dropout.

    Args:
      model: a model without trials.
      states: one `BlockState` a block.
      x, y: a batch `(B, ...)` and its labels `(B,)`.

    Returns:
      A tree for each block, None where it has no `f`.
    """

    def loss(params: list[PyTree]) -> jax.Array:
        own = [
            state if f is None else state._replace(params={**state.params, "f": f})
            for state, f in zip(states, params, strict=True)
        ]
        scores = model.predict(tuple(own), x)
        return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(scores, y))

    return jax.grad(loss)([state.params.get("f") for state in states])


def projection_cosines(model: Model, states: Sequence[BlockState], x: jax.Array) -> list[jax.Array | None]:
    """How well each feedback B_l undoes the network above it: the cosine of a_l B_l^T with the output's pre-activation.

    Args:
      model: a model without trials, with dense feedback or none.
      states: one `BlockState` a block.
      x: a batch `(B, ...)`.

    Returns:
      A cosine for each block, of all `(B, C)` numbers as one vector; None where there is no feedback from the scores.

    References:
      Webster et al., Learning the Connections in Direct Feedback Alignment (DKP), Figure 2
    """
    scores, found = model.predict(tuple(states), x), list[jax.Array | None]()
    features = iter(model.features(tuple(states), x))
    for state in states:
        output = next(features) if "f" in state.params else None
        matrix = _kernel(state.params.get("feedback"))
        if output is None or matrix is None or matrix.shape != (model.classes, *output.shape[1:]):
            found.append(None)
            continue
        axes = list(range(1, output.ndim))
        found.append(cosine(jnp.tensordot(output, matrix, (axes, axes)), scores))
    return found


def weight_cosines(states: Sequence[BlockState]) -> list[jax.Array | None]:
    """The cosine of each feedback with the transposed weights that it stands for, where their shapes agree.

    Feedback of FA and KP stands for the block's own kernel, direct feedback for the kernel of the block above.

    Args:
      states: one `BlockState` a block, of a model without trials.

    Returns:
      A cosine for each block, or None.
    """
    own = [_kernel(state.params.get("f", state.params.get("head"))) for state in states]
    direct = "feedback" in states[0].params  # nothing comes down from the first block, so FA and KP have none there
    found = []
    for i, state in enumerate(states):
        matrix = _kernel(state.params.get("feedback"))
        weights = own[i] if not direct else own[i + 1] if i + 1 < len(own) else None
        if matrix is not None and direct:
            matrix = matrix.T
        agree = matrix is not None and weights is not None and matrix.shape == weights.shape
        found.append(cosine(matrix, weights) if agree else None)
    return found


def _kernel(params: PyTree) -> jax.Array | None:
    """The one array named kernel in a tree."""
    named = [x for path, x in jax.tree_util.tree_leaves_with_path(params) if "kernel" in jax.tree_util.keystr(path)]
    return named[0] if len(named) == 1 else None


def cosine(ours: PyTree, theirs: PyTree) -> jax.Array:
    """Cosine of the angle between two trees of the same structure, as one vector each; 0 where one of them is zero.

    Examples:
      >>> float(cosine({"a": jnp.array([1.0, 0.0])}, {"a": jnp.array([3.0, 0.0])}))
      1.0
    """
    dot = lambda a, b: sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    norms = jnp.sqrt(dot(ours, ours) * dot(theirs, theirs))
    return jnp.where(norms > 0, dot(ours, theirs) / jnp.where(norms > 0, norms, 1), 0)
