"""No gradient crosses a block."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Batches, Model
from localgrad.pipeline import signal_of
from localgrad.pipeline.jaxprs import reached
from localgrad.testing.compare import name_of
from localgrad.testing.examples import States, block_keys, first_message, or_first, or_random
from localgrad.testing.passes import losses

_ADVICE = (
    "Detach the message, by `jax.lax.stop_gradient`, where the block reads it and where it hands it on; blocks of "
    "`local_block` do both."
)


def check_isolation(model: Model, batches: Batches | None = None, *, states: States | None = None) -> None:
    """The loss of each block has no derivative along the parameters of another, by value and by jaxpr.

    By value alone, a gradient that is zero by chance would pass; by jaxpr alone, one whose path is cut by a product
    with zero would not.  Models whose blocks wait for an error from above are not looked at: there gradients cross.

    Args:
      model: any model.
      batches: random ones by default; the first is used.
      states: by default those of `init`.

    Raises:
      AssertionError: naming the block whose loss it is, the block whose parameters it reaches, and the derivative;
        or a block whose own loss does not depend on its own parameters.

    Examples:
      >>> import localgrad as lg, optax
      >>> model = lg.dgl(lg.mlp((4, 4)), jax.ShapeDtypeStruct((8, 5), jnp.float32), 3, tx=optax.sgd(0.1))
      >>> check_isolation(model)
    """
    if signal_of(model) not in ("none", "next"):
        return
    message = first_message(model, or_random(model, batches))
    first, keys = or_first(model, states), block_keys(model, 3)
    params, rng = tuple(state.params for state in first), np.random.default_rng(3)
    for j in range(len(params)):
        leaves, tree = jax.tree.flatten(params[j])
        moving = [k for k, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

        def along(direction: list[jax.Array], j: int = j, leaves: Any = leaves, tree: Any = tree, moving: Any = moving):
            def one(changed: list[jax.Array]) -> list[jax.Array]:
                whole = list(leaves)
                for k, leaf in zip(moving, changed, strict=True):
                    whole[k] = leaf
                return losses(
                    model, first, (*params[:j], jax.tree.unflatten(tree, whole), *params[j + 1 :]), message, keys
                )

            return jax.jvp(one, ([leaves[k] for k in moving],), (direction,))[1]

        direction = [jnp.asarray(rng.normal(size=leaves[k].shape), leaves[k].dtype) for k in moving]
        slopes = [float(jnp.sum(jnp.abs(slope))) for slope in jax.jit(along)(direction)]
        program = jax.make_jaxpr(along)(direction)
        _compare(model, j, slopes, reached(program, [True] * len(moving)))


def _compare(model: Model, j: int, slopes: list[float], depends: list[bool]) -> None:
    """The loss of block i depends on the parameters of block j if they are one block, and otherwise does not."""
    for i, (slope, does) in enumerate(zip(slopes, depends, strict=True)):
        ours, theirs = name_of(model, i), name_of(model, j)
        if i != j:
            assert slope == 0, (
                f"the loss of {ours} has the derivative {slope:.1e} along the parameters of {theirs}: a gradient "
                f"crosses. {_ADVICE}"
            )
            assert not does, (
                f"the loss of {ours} depends on the parameters of {theirs} through a gradient that is zero here by "
                f"chance: a gradient crosses. {_ADVICE}"
            )
        else:
            assert does and slope != 0, (
                f"the loss of {ours} has no derivative along its own parameters: nothing would be learnt. Look for a "
                "`stop_gradient` that cuts it off, or a loss that does not use them."
            )
