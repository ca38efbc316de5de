"""A trainable block that learns at two moments: in its own pass, and once the next block has passed (`signal='next'`).

Synthetic gradients and local critics are of this kind: the features learn at once, from a loss that a small network
beside them stands for, and that network learns one hop later from what the next block makes of the message.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from localgrad.base import Backward, BlockState, Forward, Key, LocalBlock, Message, PyTree
from localgrad.methods.groups import Optimizers, transforms
from localgrad.methods.parts import Parts, Run, init_of, moving_run

Metrics = dict[str, jax.Array]
RelayStep = Callable[[Run, Message, Key], tuple[Message, Metrics, PyTree]]
Later = Callable[[Run, PyTree, PyTree], Metrics]
HandDown = Callable[[PyTree, jax.Array | None], PyTree]


def relay_block(
    name: str,
    parts: Parts,
    step: RelayStep,
    down: HandDown,
    tx: Optimizers,
    *,
    later: Mapping[str, Later] | None = None,
    fixed: Sequence[str] = (),
) -> LocalBlock:
    """Makes a LocalBlock that learns from a loss of its own at once, and in some groups from the next block's pass.

    Args:
      name, parts, tx, fixed: as `local_block`.
      step: `(run, message, key) -> (message, metrics, kept)`: `metrics["loss"]` is what the groups that learn at once
        descend, and `kept` are arrays that is all that `later` and `down` need.  Messages are detached.
      down: `(kept, gradient) -> what the block below may wait for`; `gradient` is that of the loss along the message's
        x, or None where x is of whole numbers.
      later: none for a block that waits for nothing, as the last one; or one entry, group -> `(run, kept, signal) ->
        metrics`, whose `loss` that group descends, at the parameters that it has by then.  Its part must not draw.

    Raises:
      ValueError: for more groups that learn later than one.
    """
    later = later or {}
    if len(later) > 1:
        raise ValueError(f"one group of a relay_block learns later; got {', '.join(later)}.")
    now = tuple(group for group in parts if group not in (*later, *fixed))
    own_tx = transforms(tx, now, tuple(later))

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        message = jax.lax.stop_gradient(message)

        def loss(params: dict[str, PyTree], x: jax.Array):
            run, model_state = moving_run(parts, {**state.params, **params}, state, key)
            passed, metrics, kept = step(run, {**message, "x": x}, key)
            return metrics["loss"], (passed, metrics, kept, model_state)

        params, x = {group: state.params[group] for group in now}, message["x"]
        smooth = jnp.issubdtype(x.dtype, jnp.floating)
        gradients = jax.grad(loss, (0, 1) if smooth else (0,), has_aux=True)
        along, (passed, metrics, kept, model_state) = gradients(params, x)
        handed = down(kept, along[1] if smooth else None)
        return Forward(
            jax.lax.stop_gradient(passed),
            model_state,
            along[0],
            metrics,
            stash=jax.lax.stop_gradient(kept) if later else (),
            down=jax.lax.stop_gradient(handed),
        )

    def backward(state: BlockState, stash: PyTree, signal: PyTree) -> Backward:
        ((group, learn),) = later.items()

        def loss(params: PyTree):
            run = lambda group, x: parts[group].apply(params, state.model_state[group], x, key=None, train=True)[0]
            metrics = learn(run, stash, signal)
            return metrics["loss"], metrics

        grads, metrics = jax.grad(loss, has_aux=True)(state.params[group])
        return Backward({group: grads}, metrics)

    waits = bool(later)
    init = init_of(parts, step, own_tx)
    return LocalBlock(name, "next" if waits else "none", init, forward, own_tx, backward if waits else None)
