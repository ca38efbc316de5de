"""How a block's own update compares with backpropagation's, and its feedback with the way forward."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from localgrad.base import BlockState, Key, Model, PyTree


def true_gradients(
    model: Model, states: Sequence[BlockState], x: jax.Array, y: jax.Array, keys: Sequence[Key]
) -> list[PyTree]:
    """The gradient of the network's own loss along the parameters of each block's `f`, gradients flowing end to end.

    The loss is the task's, of the scores at the last exit as the training step of this batch makes them: with its own
    batch statistics and the same dropout.  So what a step's update differs by is the rule alone, and for
    backpropagation it is nothing.

    Args:
      model: a model without trials.
      states: one `BlockState` a block.
      x, y: a batch as `model.enter` takes it.
      keys: the keys of that step, one a block.

    Returns:
      A tree for each block, None where it has no `f`.
    """

    def loss(params: list[PyTree]) -> jax.Array:
        own = [
            state if f is None else state._replace(params={**state.params, "f": f})
            for state, f in zip(states, params, strict=True)
        ]
        scores = model.features(tuple(own), x, keys)[-1]
        views = 1 if model.task.per_token else len(scores) // len(y)
        return model.task.loss(scores, jnp.repeat(y, views, axis=0))

    return jax.grad(loss)([state.params.get("f") for state in states])


def projection_cosines(
    model: Model, states: Sequence[BlockState], x: jax.Array, keys: Sequence[Key] | None = None
) -> list[jax.Array | None]:
    """How well each feedback B_l undoes the network above it: the cosine of a_l B_l^T with the output's pre-activation.

    Args:
      model: a model without trials, with dense feedback or none.
      states: one `BlockState` a block.
      x: a batch `(B, ...)`.
      keys: those of a training step of this batch, whose a_l and output are then measured; None measures prediction's.

    Returns:
      A cosine for each block, of all `(B, C)` numbers as one vector; None where a block has no dense feedback from the
      scores.

    References:
      Webster et al., Learning the Connections in Direct Feedback Alignment (DKP), Figure 2
    """
    *outputs, scores = model.features(tuple(states), x, keys)
    found: list[jax.Array | None] = [None] * len(states)
    if not _is_direct(states):
        return found
    for i, (state, output) in enumerate(zip(states, outputs, strict=False)):
        matrix = _kernel(state.params.get("feedback"))
        if matrix is not None and matrix.shape == (model.task.outputs, *output.shape[1:]):
            axes = list(range(1, output.ndim))
            found[i] = cosine(jnp.tensordot(output, matrix, (axes, axes)), scores)
    return found


def weight_cosines(states: Sequence[BlockState]) -> list[jax.Array | None]:
    """The cosine of each feedback with the transposed weights that it stands for.

    Feedback of FA and KP stands for the block's own kernel.  Direct feedback stands for all that is above its block,
    which is one matrix for the last hidden block alone: the classifier's kernel.

    Args:
      states: one `BlockState` a block, of a model without trials.

    Returns:
      A cosine for each block, or None where there is no such pair, or it is of different shapes.
    """
    found: list[jax.Array | None] = [None] * len(states)
    if _is_direct(states):
        feedback = _kernel(states[-2].params["feedback"])
        if feedback is not None and "f" not in states[-1].params:
            # of an image, its places and channels flattened as the classifier reads them
            found[-2] = _cosine_of_kernels(feedback.reshape(len(feedback), -1).T, _kernel(states[-1].params["head"]))
        return found
    for i, state in enumerate(states):
        own = state.params.get("f", state.params.get("head"))
        found[i] = _cosine_of_kernels(_kernel(state.params.get("feedback")), _kernel(own))
    return found


def _is_direct(states: Sequence[BlockState]) -> bool:
    """Whether feedback comes from the scores; of FA and KP the first block, below which is nobody, has none."""
    return "feedback" in states[0].params


def _cosine_of_kernels(ours: jax.Array | None, theirs: jax.Array | None) -> jax.Array | None:
    return None if ours is None or theirs is None or ours.shape != theirs.shape else cosine(ours, theirs)


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
