"""End-to-end backpropagation, block by block: the rule that the others are held against.

Every block keeps its own optimizer and waits for the gradient of the block above (`signal='cotangent'`), so only the
sequential engine trains it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from localgrad.base import Block, BlockState, Key, LocalBlock, Message, Model, PyTree, Spec
from localgrad.blocks import mlp, output_spec
from localgrad.methods.al import DEFAULT_PROFILE, checked_profile
from localgrad.methods.heads import classifier
from localgrad.methods.output import label_loss
from localgrad.methods.parts import Parts, check, classifying_model


def bp(
    network: Sequence[Block], x_spec: jax.ShapeDtypeStruct, classes: int, *, tx: optax.GradientTransformation
) -> Model:
    """Backpropagation of one cross-entropy through a network and a linear classifier.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C; labels are integers 0 .. C - 1.
      tx: any optax transform over the groups f and, in the last block, head.  Norms and clips are per block.

    Returns:
      A `Model` whose only exit is the last block.
    """
    check(network, classes, "bp")
    parts: list[dict[str, Block]] = [{"f": f} for f in network]
    parts[-1]["head"] = classifier(classes)
    blocks = [_chained_block(part, classes, tx) for part in parts]
    heads = [None] * (len(network) - 1) + ["head"]
    return classifying_model("bp", blocks, parts, heads, x_spec, classes)


def bp_matched(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: int,
    *,
    tx: optax.GradientTransformation,
    profile: str = DEFAULT_PROFILE,
    target_width: int = 128,
    bridge: Sequence[int] | None = None,
    activation: str = "elu",
) -> Model:
    """Backpropagation on equal terms with Associated Learning: the network deepened to the same number of parameters.

    Associated Learning predicts through f_1 .. f_L, the last bridge and h_L .. h_1.  Here the bridge and the decoders
    are dense layers of the same widths, trained with the rest, as NECO deepened its baselines.

    Args:
      network, x_spec, classes, tx: as `bp`.
      profile, target_width, bridge: of the Associated Learning to match, see `al`.
      activation: of the dense layers that are added.

    Returns:
      A `Model` with as many effective parameters as `al` of the same arguments (without `pool`).

    References:
      Kao and Chen, Associated Learning, https://arxiv.org/abs/1906.05560, sections 4.5 and 5.1
    """
    check(network, classes, "bp_matched")
    hidden = checked_profile(profile, bridge).bridge
    if target_width < 1:
        raise ValueError(f"target_width must be at least 1; got {target_width}.")
    widths = [units * target_width for units in hidden] + [target_width] * len(network)
    deeper = [*network, *mlp(widths, activation=activation)]
    return bp(deeper, x_spec, classes, tx=tx)._replace(method="bp_matched")


def _chained_block(parts: Parts, classes: int, tx: optax.GradientTransformation) -> LocalBlock:
    """A block that hands its gradient down; one with a head begins the backward pass.

    The signal is `{"x": gradient of the loss at the block's output, "loss": the loss}`.
    """
    top = "head" in parts

    def init(key: Key, message: Spec) -> BlockState:
        keys = jax.random.split(key)
        params, model_state, x = {}, {}, message["x"]
        for group, own in zip(parts, keys, strict=False):
            params[group], model_state[group] = parts[group].init(own, x)
            x = output_spec(parts[group], x)
        return BlockState(params, model_state, tx.init(params))

    def forward(state: BlockState, message: Message, key: Key):
        def run(params: dict[str, PyTree], x: jax.Array):
            model_state = dict(state.model_state)
            x, model_state["f"] = parts["f"].apply(params["f"], model_state["f"], x, key=key, train=True)
            if not top:
                return x, (x, model_state)
            scores, model_state["head"] = parts["head"].apply(
                params["head"], model_state["head"], x, key=None, train=True
            )
            return label_loss(scores, message["y"], classes), (scores, model_state)

        value, vjp, (x, model_state) = jax.vjp(run, state.params, message["x"], has_aux=True)
        stash = {"vjp": vjp, **({"loss": value} if top else {})}
        return jax.lax.stop_gradient({**message, "x": x}), model_state, stash

    def grads(state: BlockState, stash: PyTree, signal: PyTree):
        if top:
            signal = {"x": jnp.ones_like(stash["loss"]), "loss": stash["loss"]}
        own, below = stash["vjp"](signal["x"])
        return own, {"loss": signal["loss"]}, {"x": below, "loss": signal["loss"]}

    return LocalBlock(parts["f"].name, "cotangent", init, forward, grads, tx)
