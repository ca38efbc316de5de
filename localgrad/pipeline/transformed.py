"""What an optax transform makes of a block's gradients, and which transforms a block cannot have."""

import jax
import optax

from localgrad.base import LocalBlock, PyTree
from localgrad.descent import ClimbError, descending


def transformed(
    block: LocalBlock, names: str, grads: PyTree, opt_state: PyTree, params: PyTree, loss: jax.Array
) -> tuple[PyTree, PyTree]:
    """What one of a block's transforms makes of its gradients: `(updates, opt_state)`.

    Args:
      block: whose transform it is.
      names: of the groups that it is for, a key of `block.tx`.
      grads, params: of these groups.
      opt_state: the transform's state.
      loss: of the batch, for transforms that want it.

    Raises:
      ValueError: while it is traced, for a transform of groups that learn at different moments; one that wants more
        than the loss; one that leaves other parameters in the block than those that it has learnt; or one whose updates
        point along the gradient.
    """
    missing = set(names.split("+")) - set(grads)
    if missing:
        raise ValueError(
            f"the optimizer {names!r} of block {block.name!r} spans groups that learn at different moments: there are "
            f"gradients of {sorted(grads)} now and none of {sorted(missing)}. Give each moment one of its own."
        )
    cannot = f"the optimizer of block {block.name!r} cannot be used here: "
    if _is_schedule_free(opt_state):
        raise ValueError(
            f"{cannot}the parameters of a schedule-free one are not those that it has learnt, which "
            "`schedule_free_eval_params` makes of its state, and evaluation, checkpoints and exports would be of the "
            "wrong ones: choose another."
        )
    try:
        return descending(block.tx[names]).update(grads, opt_state, params, value=loss)
    except ClimbError as error:
        raise ValueError(f"{cannot}{error}") from None
    except Exception as error:
        raise ValueError(
            f"{cannot}{str(error).rstrip('.')}. It is given gradients, parameters and the loss as `value`; what "
            "evaluates the loss again, as the line search of lbfgs and sam do, wants the gradient of each example, or "
            "keeps parameters of its own, as lookahead does, a block that learns from one pass over a batch cannot "
            "have: choose another."
        ) from error


def _is_schedule_free(opt_state: PyTree) -> bool:
    kind = optax.contrib.ScheduleFreeState
    return any(isinstance(x, kind) for x in jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind)))
