"""A trainable block from named parts: what the methods are written in.

A block is a dict of Blocks, one a parameter group, and a function that runs them on a message.  It names a loss, or it
names outputs and what becomes of them once the error at the network's output is known.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from localgrad.base import Block, BlockState, Features, Key, LocalBlock, Message, Model, PyTree, Spec
from localgrad.blocks.given import check_blocks

Parts = Mapping[str, Block]
Run = Callable[[str, jax.Array], jax.Array]
Step = Callable[[Run, Message, Key], tuple[dict[str, jax.Array], dict[str, jax.Array]]]

_HEADS = 0x68656164  # sets the keys of heads apart from those within the first part


class Answer(NamedTuple):
    """What a block makes of a signal.

    Attributes:
      cotangents: the gradient along the outputs of its step, which the block's own vjp takes on to its parameters.
      metrics: a dict of scalars with at least `loss`.
      grads: gradients of groups that the step's outputs do not depend on.
      downward: the signal for the blocks below, or None.
    """

    cotangents: PyTree
    metrics: dict[str, jax.Array]
    grads: Mapping[str, PyTree] = MappingProxyType({})
    downward: PyTree = None


def local_block(name: str, parts: Parts, step: Step, tx: optax.GradientTransformation) -> LocalBlock:
    """Makes a LocalBlock with a loss of its own.

    Args:
      name: the name in tables.
      parts: a Block for each parameter group; the first, alone, draws from the step's key itself.
      step: `(run, message, key) -> (message, metrics)`, where `run(group, x)` applies a part and `metrics["loss"]` is
        what the block learns from.  The message it is given, and the one it returns, are detached.
      tx: an optax transform over the groups.
    """

    def loss(params: dict[str, PyTree], state: BlockState, message: Message, key: Key):
        run, model_state = _running(parts, params, state, key)
        message, metrics = step(run, jax.lax.stop_gradient(message), key)
        return metrics["loss"], (message, model_state, metrics)

    def forward(state: BlockState, message: Message, key: Key):
        grads, (message, model_state, metrics) = jax.grad(loss, has_aux=True)(state.params, state, message, key)
        return jax.lax.stop_gradient(message), model_state, {"grads": grads, "metrics": metrics}

    def grads(state: BlockState, stash: PyTree, signal: PyTree):
        return stash["grads"], stash["metrics"], None

    return LocalBlock(name, "none", _init_of(parts, step, tx), forward, grads, tx)


def waiting_block(
    name: str,
    parts: Parts,
    step: Callable[[Run, Message, Key], tuple[dict[str, jax.Array], PyTree, PyTree]],
    answer: Callable[[dict[str, PyTree], PyTree, PyTree, PyTree], Answer],
    tx: optax.GradientTransformation,
    *,
    through: Sequence[str] | None = None,
) -> LocalBlock:
    """Makes a LocalBlock that learns from the error at the network's output (`signal='error'`).

    Args:
      name, parts, tx: as `local_block`.
      step: `(run, message, key) -> (message, outputs, kept)`: outputs that gradients flow through, and other arrays
        that the answer needs.
      answer: `(params, outputs, kept, signal) -> Answer`; the last block's signal is None.
      through: the groups that the outputs depend on, all by default; the others learn from the answer alone, or not.
    """
    groups = tuple(parts) if through is None else through

    def forward(state: BlockState, message: Message, key: Key):
        def outputs_of(params: dict[str, PyTree]):
            run, model_state = _running(parts, {**state.params, **params}, state, key)
            passed, outputs, kept = step(run, jax.lax.stop_gradient(message), key)
            return outputs, (passed, kept, model_state)

        params = {group: state.params[group] for group in groups}
        outputs, vjp, (passed, kept, model_state) = jax.vjp(outputs_of, params, has_aux=True)
        stash = {"vjp": vjp, "outputs": outputs, "kept": kept}
        return jax.lax.stop_gradient(passed), model_state, stash

    def grads(state: BlockState, stash: PyTree, signal: PyTree):
        found = answer(state.params, stash["outputs"], stash["kept"], signal)
        (own,) = stash["vjp"](found.cotangents)
        return {**own, **found.grads}, found.metrics, found.downward

    return LocalBlock(name, "error", _init_of(parts, step, tx), forward, grads, tx)


def _init_of(parts: Parts, step: Callable, tx: optax.GradientTransformation) -> Callable[[Key, Spec], BlockState]:
    def init(key: Key, message: Spec) -> BlockState:
        keys = dict(zip(parts, jax.random.split(key, len(parts)), strict=True))
        variables: dict[str, tuple[PyTree, PyTree]] = {}
        inputs: dict[str, jax.ShapeDtypeStruct] = {}

        def run(group: str, x: jax.Array) -> jax.Array:
            inputs[group] = jax.ShapeDtypeStruct(x.shape, x.dtype)
            params, model_state = parts[group].init(keys[group], inputs[group])
            return parts[group].apply(params, model_state, x, key=keys[group], train=True)[0]

        jax.eval_shape(lambda message: step(run, message, key), message)  # shapes of what each part is given
        for group, x_spec in inputs.items():
            variables[group] = parts[group].init(keys[group], x_spec)
        params = {group: variables[group][0] for group in parts}
        return BlockState(params, {group: variables[group][1] for group in parts}, tx.init(params))

    return init


def _running(parts: Parts, params: dict[str, PyTree], state: BlockState, key: Key) -> tuple[Run, dict[str, PyTree]]:
    """`run(group, x)` as it is while training, and the model state that it moves on."""
    model_state = dict(state.model_state)

    def run(group: str, x: jax.Array) -> jax.Array:
        index = list(parts).index(group)
        own_key = jax.random.fold_in(key, _HEADS + index) if index else key
        x, model_state[group] = parts[group].apply(params[group], model_state[group], x, key=own_key, train=True)
        return x

    return run, model_state


def apply(parts: Parts, state: BlockState, group: str, x: jax.Array) -> jax.Array:
    """A part as it is used in prediction: no dropout, running statistics."""
    return parts[group].apply(state.params[group], state.model_state[group], x, key=None, train=False)[0]


def classifying_model(
    method: str,
    blocks: Sequence[LocalBlock],
    parts: Sequence[Parts],
    heads: Sequence[str | None],
    x_spec: jax.ShapeDtypeStruct,
    classes: int,
    *,
    views: int = 1,
    image: bool = False,
) -> Model:
    """A Model of blocks `f`, some of which a classifier reads: `predict(exit=k)` is head k of f_k(...f_1(x)).

    The message is `{"x": features, "y": labels (B,)}`.

    Args:
      method: the method's name.
      blocks, parts: what each block is made of; a block without an `f` passes its input on.
      heads: for each block the group that gives scores of the classes, or None where there is none; the last has one.
      x_spec, classes: as for every method.
      views: number of views of each example; with two, x is `(B, 2, ...)` and the message holds 2 B examples.
      image: the message carries the input of the network to every block, as `image`.
    """
    exits = tuple(i + 1 for i, head in enumerate(heads) if head is not None)

    def enter(x: jax.Array, y: jax.Array) -> Message:
        if views > 1:
            x, y = x.reshape(-1, *x.shape[2:]), jnp.repeat(y, views, axis=0)
        message = {"x": x, "y": y}
        return {**message, "image": x} if image else message

    def predict(states: tuple[BlockState, ...], x: jax.Array, exit: int | None = None) -> jax.Array:
        top = checked_exit(exits, exit)
        x = [x, *outputs_of(parts[:top], states[:top], x)][-1]
        return apply(parts[top - 1], states[top - 1], str(heads[top - 1]), x)

    used = [frozenset({"f"} & set(part)) for part in parts]
    used[-1] |= {str(heads[-1])}
    if views > 1:
        x_spec = jax.ShapeDtypeStruct((x_spec.shape[0], views, *x_spec.shape[1:]), x_spec.dtype)
    y_spec = jax.ShapeDtypeStruct(x_spec.shape[:1], jnp.int32)
    return Model(method, tuple(blocks), x_spec, y_spec, classes, enter, predict, features_of(parts), exits, tuple(used))


def features_of(parts: Sequence[Parts]) -> Features:
    """`Model.features` of blocks whose part `f`, where there is one, makes the features: what heads read of them."""
    summaries = [part["f"].summary for part in parts if "f" in part]

    def features(states: tuple[BlockState, ...], x: jax.Array) -> list[jax.Array]:
        found = outputs_of(parts, states, x)
        return [summary(y) for y, summary in zip(found, summaries, strict=True)]

    return features


def outputs_of(parts: Sequence[Parts], states: Sequence[BlockState], x: jax.Array) -> list[jax.Array]:
    """What every part `f` hands to the next in prediction."""
    found = []
    for part, state in zip(parts, states, strict=True):
        if "f" in part:
            x = apply(part, state, "f", x)
            found.append(x)
    return found


def checked_exit(exits: Sequence[int], exit: int | None) -> int:
    """An exit that exists; the last for None.

    Raises:
      ValueError: naming those that do.
    """
    exit = exits[-1] if exit is None else exit
    if exit not in exits:
        raise ValueError(f"exit {exit} does not exist: this model has exits {', '.join(map(str, exits))}.")
    return exit


def check(network: Sequence[Block], classes: int, method: str, pool: int | None = None) -> None:
    """Refuses an empty network, fewer than two classes and a pool that is no number of features.

    Raises:
      ValueError: naming the method.
      TypeError: for a network of anything but Blocks, such as bare Flax modules.
    """
    check_blocks(network, "network")
    if not network:
        raise ValueError(f"method {method!r} needs a network of at least one block; got none.")
    if classes < 2:
        raise ValueError(f"classes must be at least 2; got {classes}.")
    if pool is not None and (not isinstance(pool, int) or pool < 1):
        raise ValueError(f"pool is a positive number of features, or None; got {pool!r}.")
