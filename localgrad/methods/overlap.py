"""Overlapping local learning: the loss of each block reaches the block below it as well.

    gradient of f_k = that of its own loss + that of the loss of block k + 1, through f_{k+1}, and of no other

So neighbouring units of two blocks share one, and a block learns what the next one can use.  The gradient comes down
from the pass of the next block, which makes it of its own loss at its input.

References:
  Xiong, Ren and Urtasun, LoCo: Local Contrastive Representation Learning, https://arxiv.org/abs/2008.01342, section 3
  Laskin et al., Parallel Training of Deep Networks with Local Updates, https://arxiv.org/abs/2012.03837 (overlapping
    local updates, of supervised losses)
"""

import jax
import jax.numpy as jnp

from localgrad.base import Backward, BlockState, Forward, Key, LocalBlock, Message, Model, PyTree
from localgrad.methods.groups import transforms
from localgrad.methods.parts import MadeOf, init_of, moving_run


def overlapping(model: Model) -> Model:
    """Lets the loss of every block but the first reach the block below it too.

    Args:
      model: of a rule whose blocks wait for nothing, such as `early_exit`, `scl` or `gim`.

    Returns:
      The model, with blocks that wait for the pass of the next one (`signal='next'`), but for the last.  A stage's last
      block hears of it one batch late, or, `locked`, in time.

    Raises:
      ValueError: for other rules, whose features are handed on under another name than x (`al`), a model of several
        trials, or one with frozen blocks.
    """
    message = jax.eval_shape(model.enter, model.x_spec, model.y_spec)
    local = all(block.made_of is not None and block.signal == "none" for block in model.blocks)
    if model.trials is not None or not local or "x" not in message:
        raise ValueError(
            f"overlapping is for rules whose blocks learn from losses of their own features x, before they are frozen "
            f"or run in several trials; method {model.method!r} is not so here."
        )
    top = len(model.blocks) - 1
    blocks = tuple(_overlapping(block, i == 0, i == top) for i, block in enumerate(model.blocks))
    return model._replace(blocks=blocks)


def _overlapping(block: LocalBlock, first: bool, last: bool) -> LocalBlock:
    made_of: MadeOf = block.made_of
    parts, step, tx, fixed = made_of
    learning = tuple(group for group in parts if group not in fixed)
    own_tx = transforms(tx, learning)

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        given = jax.lax.stop_gradient(message)

        def run(params: dict[str, PyTree], x: jax.Array = given["x"]):
            run_part, model_state = moving_run(parts, {**state.params, **params}, state, key)
            passed, metrics = step(run_part, {**given, "x": x}, key)
            return {"loss": metrics["loss"], "x": passed["x"]}, (passed, model_state, metrics)

        params = {group: state.params[group] for group in learning}
        along = (params,) if first else (params, given["x"])  # nobody is below the first, which may read token ids
        made, vjp, (passed, model_state, metrics) = jax.vjp(run, *along, has_aux=True)
        grads, *below = vjp({"loss": jnp.ones_like(made["loss"]), "x": jnp.zeros_like(made["x"])})
        down = {"x": below[0]} if below else None
        passed = jax.lax.stop_gradient(passed)
        if last:
            return Forward(passed, model_state, grads, metrics, down=down)
        return Forward(passed, model_state, stash={"vjp": vjp, "metrics": metrics}, down=down)

    def backward(state: BlockState, stash: PyTree, signal: PyTree) -> Backward:
        along = {"loss": jnp.ones_like(stash["metrics"]["loss"]), "x": signal["x"]}
        return Backward(stash["vjp"](along)[0], stash["metrics"])

    init = init_of(parts, step, own_tx)
    if last:
        return LocalBlock(block.name, "none", init, forward, own_tx)
    return LocalBlock(block.name, "next", init, forward, own_tx, backward)
