"""How a block's own update compares with backpropagation's."""

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


def cosine(ours: PyTree, theirs: PyTree) -> jax.Array:
    """Cosine of the angle between two trees of the same structure, as one vector each; 0 where one of them is zero.

    Examples:
      >>> float(cosine({"a": jnp.array([1.0, 0.0])}, {"a": jnp.array([3.0, 0.0])}))
      1.0
    """
    dot = lambda a, b: sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    norms = jnp.sqrt(dot(ours, ours) * dot(theirs, theirs))
    return jnp.where(norms > 0, dot(ours, theirs) / jnp.where(norms > 0, norms, 1), 0)
