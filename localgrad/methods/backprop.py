"""End-to-end backpropagation, block by block: the rule that the others are held against.

Every block keeps its own optimizer and waits for the gradient of the block above (`signal='above'`).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import jax
import jax.numpy as jnp

from localgrad.base import Backward, Block, BlockState, Forward, Key, LocalBlock, Message, Model, PyTree, Spec
from localgrad.blocks import mlp, output_spec
from localgrad.blocks.sequences import summarised
from localgrad.methods.groups import Optimizers, first_states, transforms
from localgrad.methods.heads import classifier
from localgrad.methods.parts import Parts, check, classifying_model, moving_run
from localgrad.methods.profiles import DEFAULT_PROFILE, checked_profile
from localgrad.registry import check_known
from localgrad.tasks import Task

STATISTICS = ("moving", "first")


def bp(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    hidden: Sequence[int] = (),
) -> Model:
    """Backpropagation of one cross-entropy through a network and a classifier.

    Args:
      network: Blocks `(B, ...) -> (B, ...)`, without a classifier.
      x_spec: shape `(B, ...)` and dtype of a batch of inputs.
      classes: number of classes C, of labels 0 .. C - 1; or another task, see `localgrad.tasks`.
      tx: any optax transform over the groups f and, in the last block, head.  Norms and clips are per block.
      hidden: units of the classifier's hidden layers, with ReLU; none makes it linear, two are the three-layer head of
        ICLR table 6.

    Returns:
      A `Model` whose only exit is the last block.

    Raises:
      ValueError: for hidden layers of no units.
    """
    network, task = check(network, classes, "bp")
    if not isinstance(hidden, Sequence) or not all(type(units) is int and units > 0 for units in hidden):
        raise ValueError(f"hidden is a sequence of positive numbers of units, one a hidden layer; got {hidden!r}.")
    parts: list[dict[str, Block]] = [{"f": f} for f in network]
    parts[-1]["head"] = summarised(network[-1], classifier(task.outputs, hidden=hidden))
    blocks = [chained_block(part, task, tx) for part in parts]
    heads = [None] * (len(network) - 1) + ["head"]
    return classifying_model("bp", blocks, parts, heads, x_spec, task)


def bp_matched(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    profile: str = DEFAULT_PROFILE,
    target_width: int = 128,
    bridge: Sequence[int] | None = None,
    activation: str = "relu",
    norm: bool | None = None,
) -> Model:
    """Backpropagation on equal terms with Associated Learning: the network deepened to the same number of parameters.

    Associated Learning predicts through f_1 .. f_L, the last bridge and h_L .. h_1.  Here the bridge and the decoders
    are dense layers of the same widths, trained with the rest, as NECO deepened its baselines.

    Args:
      network, x_spec, classes, tx: as `bp`.
      profile, target_width, bridge: of the Associated Learning to match, see `al`.
      activation: of the dense layers that are added; ReLU in NECO's code, whatever the network's.
      norm: batch norm in them; None is as the network has it, which is how NECO's code has it.

    Returns:
      A `Model` with as many effective parameters as `al` of the same arguments (without `pool`); with batch norm, whose
      layers have a scale beside the bias, with one more for each unit added.

    Raises:
      ValueError: for a width below one, an unknown profile, bridge or activation, or a norm that is neither yes nor no.

    References:
      Kao and Chen, Associated Learning, https://arxiv.org/abs/1906.05560, sections 4.5 and 5.1
    """
    network, task = check(network, classes, "bp_matched")
    hidden = checked_profile(profile, bridge).bridge
    if target_width < 1:
        raise ValueError(f"target_width must be at least 1; got {target_width}.")
    widths = [units * target_width for units in hidden] + [target_width] * len(network)
    if norm not in (None, False, True):
        raise ValueError(f"norm is True, False or None; got {norm!r}.")
    if norm is None:
        norm = _has_model_state(network, x_spec)
    first, *others = mlp(widths, activation=activation, norm=norm)
    deeper = [*network, summarised(network[-1], first), *others]
    return bp(deeper, x_spec, task, tx=tx)._replace(method="bp_matched")


def _has_model_state(network: Sequence[Block], x_spec: jax.ShapeDtypeStruct) -> bool:
    """Whether a network keeps batch statistics."""
    for block in network:
        init = lambda key, block=block, given=x_spec: block.init(key, given)[1]
        if jax.tree.leaves(jax.eval_shape(init, jax.random.key(0))):
            return True
        x_spec = output_spec(block, x_spec)
    return False


def bp_fc(
    network: Sequence[Block],
    x_spec: jax.ShapeDtypeStruct,
    classes: Task | int,
    *,
    tx: Optimizers,
    statistics: str = "moving",
) -> Model:
    """The floor for the feedback rules: convolutions as they were drawn, dense layers by backpropagation.

    The parameters of convolutional blocks, their norms' scales too, never move.

    Args:
      network, x_spec, classes, tx: as `bp`.
      statistics: of the norms in convolutional blocks.  `moving`: those blocks run as others do, with batch statistics
        in training and running ones in prediction (the paper freezes the convolutions and says no more); `first`: they
        run as in prediction always, so that running statistics stay at their first values and nothing is dropped.

    Returns:
      A `Model` whose only exit is the last block.

    Raises:
      ValueError: for a network without convolutions, a block that has dense layers beside them, or unknown statistics.

    References:
      Webster et al., Learning the Connections in Direct Feedback Alignment (DKP), Table 1
    """
    network, task = check(network, classes, "bp_fc")
    check_known("statistics", statistics, STATISTICS, of="method 'bp_fc'")
    parts: list[dict[str, Block]] = []
    frozen = []
    given = x_spec
    for block in network:
        params = jax.eval_shape(lambda key, block=block, given=given: block.init(key, given)[0], jax.random.key(0))
        ranks = {x.ndim for x in jax.tree.leaves(params)}
        if {2, 4} <= ranks:
            raise ValueError(
                f"method 'bp_fc' freezes convolutions and trains dense layers, and block {block.name!r} has both: cut "
                "the network finer (blocks=)."
            )
        frozen.append(4 in ranks)
        parts.append({"f": _as_drawn(block, statistics == "moving") if frozen[-1] else block})
        given = output_spec(block, given)
    if not any(frozen):
        raise ValueError("method 'bp_fc' freezes convolutions, and this network has none: use bp.")
    parts.append({"head": classifier(task.outputs)})
    still = [*frozen, False]
    blocks = [
        chained_block(part, task, tx, fixed=("f",) if stays else ()) for part, stays in zip(parts, still, strict=True)
    ]
    return classifying_model("bp_fc", blocks, parts, [None] * len(network) + ["head"], x_spec, task)


def _as_drawn(block: Block, moving: bool) -> Block:
    """A Block through which no gradient flows; unless it is `moving` it does in training what it does in prediction."""

    def apply(params: PyTree, model_state: PyTree, x: jax.Array, *, key: Key | None, train: bool):
        trains = moving and train
        y, model_state = block.apply(params, model_state, x, key=key if trains else None, train=trains)
        return jax.lax.stop_gradient(y), model_state

    return block._replace(apply=apply)


def chained_block(
    parts: Parts,
    task: Task,
    tx: Optimizers,
    *,
    through: Sequence[str] | None = None,
    fixed: Sequence[str] = (),
    way_back: Callable[[PyTree], AbstractContextManager] | None = None,
    weight: float | None = None,
) -> LocalBlock:
    """A block that hands its gradient down; one with a head begins the backward pass, or adds to it.

    The signal is `{"x": gradient of the loss at the block's output, "loss": the loss}`.

    Args:
      parts: `f`, `head` or both, which run in this order, and perhaps `feedback`, which does not.
      task: what is learnt.
      tx: one optax transform over the groups, or one by groups; see `transforms`.
      through: the groups that get gradients, all by default.
      fixed: groups that do not learn.
      way_back: the block's params -> a context in which the parts run.
      weight: of the loss of a head that is not on top, whose gradient joins the one from above; None of all others.
    """
    top = "head" in parts and weight is None
    groups = tuple(parts) if through is None else through
    own_tx = transforms(tx, tuple(group for group in parts if group not in fixed))

    def init(key: Key, message: Spec) -> BlockState:
        keys = jax.random.split(key)
        params, model_state, x = {}, {}, message["x"]
        for group, own in zip(parts, keys, strict=False):
            params[group], model_state[group] = parts[group].init(own, x)
            x = output_spec(parts[group], x) if group != "feedback" else x
        return BlockState(params, model_state, first_states(own_tx, params, key))

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        def run(params: dict[str, PyTree], x: jax.Array):
            params = {**state.params, **params}
            run_part, model_state = moving_run(parts, params, state, key)
            with way_back(params) if way_back else nullcontext():
                x = run_part("f", x) if "f" in parts else x
                scores = run_part("head", x) if "head" in parts else None
            if scores is None:
                return {"x": x}, (x, model_state)
            loss = task.loss(scores, message["y"])
            return ({"loss": loss}, (scores, model_state)) if top else ({"loss": loss, "x": x}, (x, model_state))

        learning = {group: state.params[group] for group in groups}
        made, vjp, (x, model_state) = jax.vjp(run, learning, message["x"], has_aux=True)
        stash = {"vjp": vjp, **{name: value for name, value in made.items() if name == "loss"}}
        return Forward(jax.lax.stop_gradient({**message, "x": x}), model_state, stash=stash)

    def backward(state: BlockState, stash: PyTree, signal: PyTree) -> Backward:
        if top:
            along, loss = {"loss": jnp.ones_like(stash["loss"])}, stash["loss"]
        else:
            along, loss = {"x": signal["x"]}, signal["loss"]
        if weight is not None:
            along["loss"], loss = jnp.full_like(stash["loss"], weight), loss + weight * stash["loss"]
        own, below = stash["vjp"](along)
        if below.dtype == jax.dtypes.float0:  # of whole numbers: this is the first block, and nothing is below
            below = jnp.zeros(below.shape)
        return Backward(own, {"loss": loss}, {"x": below, "loss": loss})

    name = parts["f"].name if "f" in parts else "output"
    return LocalBlock(name, "above", init, forward, own_tx, backward)
