"""A trainable block from named parts: what every method with local losses is written in.

A block is a dict of Blocks, one a parameter group, and a function that runs them on a message and names a loss.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from localgrad.base import Block, BlockState, Features, Key, LocalBlock, Message, Model, PyTree, Spec

Parts = Mapping[str, Block]
Run = Callable[[str, jax.Array], jax.Array]
Step = Callable[[Run, Message, Key], tuple[dict[str, jax.Array], dict[str, jax.Array]]]

_HEADS = 0x68656164  # sets the keys of heads apart from those within the first part


def local_block(name: str, parts: Parts, step: Step, tx: optax.GradientTransformation) -> LocalBlock:
    """Makes a LocalBlock with a loss of its own.

    Args:
      name: the name in tables.
      parts: a Block for each parameter group; the first, alone, draws from the step's key itself.
      step: `(run, message, key) -> (message, metrics)`, where `run(group, x)` applies a part and `metrics["loss"]` is
        what the block learns from.  The message it is given, and the one it returns, are detached.
      tx: an optax transform over the groups.
    """
    indices = {group: i for i, group in enumerate(parts)}

    def own_key(group: str, key: Key) -> Key:
        return jax.random.fold_in(key, _HEADS + indices[group]) if indices[group] else key

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

    def loss(params: dict[str, PyTree], state: BlockState, message: Message, key: Key):
        model_state = dict(state.model_state)

        def run(group: str, x: jax.Array) -> jax.Array:
            x, model_state[group] = parts[group].apply(
                params[group], model_state[group], x, key=own_key(group, key), train=True
            )
            return x

        message, metrics = step(run, jax.lax.stop_gradient(message), key)
        return metrics["loss"], (message, model_state, metrics)

    def forward(state: BlockState, message: Message, key: Key):
        grads, (message, model_state, metrics) = jax.grad(loss, has_aux=True)(state.params, state, message, key)
        return jax.lax.stop_gradient(message), model_state, {"grads": grads, "metrics": metrics}

    def grads(state: BlockState, stash: PyTree, signal: PyTree):
        return stash["grads"], stash["metrics"], None

    return LocalBlock(name, "none", init, forward, grads, tx)


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
        x = [x, *features_of(parts[:top])(states[:top], x)][-1]
        return apply(parts[top - 1], states[top - 1], str(heads[top - 1]), x)

    used = [frozenset({"f"} & set(part)) for part in parts]
    used[-1] |= {str(heads[-1])}
    if views > 1:
        x_spec = jax.ShapeDtypeStruct((x_spec.shape[0], views, *x_spec.shape[1:]), x_spec.dtype)
    y_spec = jax.ShapeDtypeStruct(x_spec.shape[:1], jnp.int32)
    return Model(method, tuple(blocks), x_spec, y_spec, classes, enter, predict, features_of(parts), exits, tuple(used))


def features_of(parts: Sequence[Parts]) -> Features:
    """`Model.features` of blocks whose part `f`, where there is one, makes the features."""

    def features(states: tuple[BlockState, ...], x: jax.Array) -> list[jax.Array]:
        found = []
        for part, state in zip(parts, states, strict=True):
            if "f" in part:
                x = apply(part, state, "f", x)
                found.append(x)
        return found

    return features


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
    """
    if not network:
        raise ValueError(f"method {method!r} needs a network of at least one block; got none.")
    if classes < 2:
        raise ValueError(f"classes must be at least 2; got {classes}.")
    if pool is not None and (not isinstance(pool, int) or pool < 1):
        raise ValueError(f"pool is a positive number of features, or None; got {pool!r}.")
