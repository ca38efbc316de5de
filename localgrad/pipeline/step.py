"""One block on one batch: the step that both engines share, which is why they agree.

An `optimization_barrier` on either side keeps the compiler from fusing across blocks, so that a block's arithmetic does
not depend on what stands beside it.  All randomness comes from the batch and the block, never from where or when the
step runs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from localgrad.base import (
    EARLIER,
    GRADIENT,
    LEARNT,
    LOSS,
    NEXT,
    PARAMETERS,
    Batches,
    BlockState,
    Key,
    LocalBlock,
    Message,
    Metrics,
    Model,
    PyTree,
    Signal,
    Spec,
)
from localgrad.keys import over_keys

_barrier = jax.lax.optimization_barrier
# Half the compilation, for programs that run once.
_COMPILE_ONCE: dict[str, Any] = {"xla_backend_optimization_level": 0}

_SHORT = 4096  # numbers of an array that are looked at one by one


def fold_in(key: Key, data: jax.Array | int) -> Key:
    """`jax.random.fold_in` for one key, or for each of an array of keys (one a trial)."""
    return jax.random.fold_in(key, data) if key.ndim == 0 else over_keys(lambda one: fold_in(one, data), key)


def block_key(key: Key, batch_id: jax.Array, index: jax.Array | int, shard: jax.Array | None = None) -> Key:
    """The key of block `index` for a batch; `shard` is its place on the data axis, None where there is one."""
    key = fold_in(fold_in(key, batch_id), index)
    return key if shard is None else fold_in(key, shard)


def check_batches(model: Model, batches: Batches) -> None:
    """Refuses batches of another size than the model's, while their program is traced.

    Raises:
      TypeError: for anything but `Batches`.
      ValueError: naming both sizes.
    """
    if not isinstance(batches, Batches):
        raise TypeError(f"run takes Batches, as localgrad.data.batches or a source makes them; got {type(batches)}.")
    size = getattr(batches.fetch.func, "batch_size", model.batch_size)
    if size != model.batch_size:
        raise ValueError(
            f"batches of {size} examples for a model of batches of {model.batch_size}: make the model with an x_spec "
            f"of {size} examples, or batches of {model.batch_size}."
        )


def number(batch_id: jax.Array, counted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The number of a batch and that of the next: what the batch brings, or what was counted where it says `NEXT`."""
    batch_id = jnp.where(batch_id == NEXT, counted, batch_id)
    return batch_id, jnp.where(batch_id >= 0, batch_id + 1, counted)


def enter(model: Model, examples: tuple[jax.Array, jax.Array]) -> Message:
    """The first block's message of examples (x, y), of a batch or of a part of one.

    Raises:
      ValueError: while it is traced, for examples of another shape or dtype than the model was made for.
    """
    x, y = examples
    axis = model.batch_axis
    of_part = lambda spec: (*spec.shape[:axis], *x.shape[axis : axis + 1], *spec.shape[axis + 1 :])
    if x.shape != of_part(model.x_spec) or x.dtype != model.x_spec.dtype:
        raise ValueError(
            f"a batch of inputs is {x.dtype}{list(x.shape)}, and the model was made for {model.x_spec.dtype}"
            f"{list(model.x_spec.shape)}: give both the same shape and dtype."
        )
    if y.shape != of_part(model.y_spec) or not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(
            f"the labels of a batch are {y.dtype}{list(y.shape)}, and the model was made for whole numbers of shape "
            f"{list(of_part(model.y_spec))}, one for each example."
        )
    return _barrier(model.enter(*_barrier((x, y.astype(model.y_spec.dtype)))))


def work(block: LocalBlock, state: BlockState, message: Message, key: Key):
    """The first half of a local step: `(message, model_state, grads, metrics)`, with no effect on the state."""
    message, model_state, stash = block.forward(state, message, key)
    grads, metrics, _ = block.grads(state, stash, None)
    return message, model_state, grads, metrics


def forward(block: LocalBlock, state: BlockState, message: Message, key: Key, ok: jax.Array):
    """The forward half of a block that waits for a signal: `(message, state, stash)`; batch statistics advance here."""
    state, message = _barrier((state, message))
    message, model_state, stash = block.forward(state, message, key)
    sound = ok & finite(model_state)  # a loss that is not comes later, and what has moved here stays
    model_state = jax.tree.map(lambda new, old: jnp.where(sound, new, old), model_state, state.model_state)
    return _barrier((message, state._replace(model_state=model_state), stash))


def answer(block: LocalBlock, state: BlockState, stash: PyTree, signal: PyTree, down: bool = False):
    """The backward half: `(grads, metrics, downward)`; `downward` is None, and not worked out, unless asked for."""
    grads, metrics, downward = block.grads(*_barrier((state, stash, signal)))
    return _barrier((grads, metrics, downward if down else None))


def downward(block: LocalBlock, state: BlockState, stash: PyTree) -> PyTree:
    """What the last block hands down, alone: its gradients are not worked out."""
    state, stash = _barrier((state, stash))
    return _barrier(block.grads(state, stash, None)[2])


def take(
    block: LocalBlock, state: BlockState, grads: PyTree, metrics: dict[str, jax.Array], ok: jax.Array
) -> tuple[BlockState, jax.Array, jax.Array]:
    """The update of a block that has waited for its signal: `(state, ok, stopped)`."""
    state, grads, metrics, ok = _barrier((state, grads, metrics, ok))
    return _barrier(learn(block, state, state.model_state, grads, metrics, ok))


def forward_all(
    model: Model, states: Sequence[BlockState], message: Message, keys: Sequence[Key], ok: Sequence[jax.Array]
) -> tuple[list[BlockState], list[PyTree]]:
    """`forward` through all blocks: `(states, stashes)`; the arguments are those of `gradients`."""
    moved, stashes = [], []
    for block, state, key, moves in zip(model.blocks, states, keys, ok, strict=True):
        message, state, stash = forward(block, state, message, key, moves)
        moved.append(state)
        stashes.append(stash)
    return moved, stashes


def gradients(
    model: Model,
    states: Sequence[BlockState],
    message: Message,
    keys: Sequence[Key],
    ok: Sequence[jax.Array] | None = None,
) -> list[tuple[BlockState, PyTree, dict[str, jax.Array]]]:
    """Every block's `(state, grads, metrics)`: forward through all, then signals from above.

    Args:
      model: any model.
      states: one `BlockState` a block; those returned have learnt nothing, but their batch statistics have moved.
      message: that of the first block, see `enter`.
      keys: one a block.
      ok: of each block, whether its batch statistics may move; by default those of all.
    """
    ok = [jnp.array(True)] * len(keys) if ok is None else ok
    states, stashes = forward_all(model, states, message, keys, ok)
    found, signal = [], None
    for i, (block, state, stash) in reversed(list(enumerate(zip(model.blocks, states, stashes, strict=True)))):
        down = hands_down(model, i)
        grads, metrics, downward = answer(block, state, stash, signal, down)
        signal = downward if down else signal
        found.append((state, grads, metrics))
    return found[::-1]


def hands_down(model: Model, i: int) -> bool:
    """Whether the blocks below are given what block i hands down; otherwise the signal passes it by."""
    return i > 0 and (i == len(model.blocks) - 1 or model.blocks[i].signal == "cotangent")


def signal_of(model: Model) -> Signal:
    """The strongest need of a model's blocks for something from outside; it chooses the schedule."""
    kinds = {block.signal for block in model.blocks}
    return "cotangent" if "cotangent" in kinds else "error" if "error" in kinds else "none"


def learn(
    block: LocalBlock,
    state: BlockState,
    model_state: PyTree,
    grads: PyTree,
    metrics: dict[str, jax.Array],
    ok: jax.Array,
) -> tuple[BlockState, jax.Array, jax.Array]:
    """The second half: the update, made only while every number so far was finite; `(state, ok, stopped)`."""

    def update(state: BlockState) -> BlockState:
        updates, opt_state = _transformed(block, grads, state, metrics["loss"])
        return BlockState(optax.apply_updates(state.params, updates), model_state, opt_state)

    with jax.numpy_dtype_promotion("standard"):  # optax mixes counts and floats
        sound = {
            LOSS: jnp.all(jnp.isfinite(metrics["loss"])),
            GRADIENT: finite(grads),
            PARAMETERS: finite(model_state) & finite(jax.tree.map(_some_of, update(state).params)),
        }
        stopped = jnp.int32(LEARNT)
        for why in (PARAMETERS, GRADIENT, LOSS):
            stopped = jnp.where(sound[why], stopped, why)
        stopped = jnp.where(ok, stopped, EARLIER)
        ok = stopped == LEARNT
        if jax.default_backend() == "cpu":  # choosing arrays would copy the state; elsewhere a branch stops the host
            return jax.lax.cond(ok, update, lambda state: state, state), ok, stopped
        new = update(state)
    return jax.tree.map(lambda new, old: jnp.where(ok, new, old), new, state), ok, stopped


def _transformed(block: LocalBlock, grads: PyTree, state: BlockState, loss: jax.Array) -> tuple[PyTree, PyTree]:
    """What the block's transform makes of its gradients: `(updates, opt_state)`.

    Raises:
      ValueError: while it is traced, for a transform that wants more than the loss.
    """
    try:
        transform = optax.with_extra_args_support(block.tx)
        return transform.update(grads, state.opt_state, state.params, value=loss)
    except TypeError as error:
        raise ValueError(
            f"the optimizer of block {block.name!r} cannot be used here: {error}. It is given gradients, parameters "
            "and the loss as `value`; a line search, as lbfgs has one, evaluates the loss again, which a block that "
            "learns from one pass over a batch cannot do: choose another."
        ) from error


def finite(tree: PyTree) -> jax.Array:
    """Whether all numbers of a tree are finite, and so are their squares where a float is as long as float32.

    A sum over a whole array is slow on a CPU, but for products with a vector: one of large numbers overflows where an
    element's square would.  All that is left then goes into one sum: each operation costs something by itself.
    """

    def shortened(x: jax.Array) -> jax.Array:
        large = 1.0 if x.dtype.itemsize < 4 else float(jnp.finfo(x.dtype).max) ** 0.5
        if x.size < _SHORT:
            return large * x.reshape(-1)
        width = 256 if x.size % 256 == 0 else x.shape[-1]
        return x.reshape(-1, width) @ jnp.full((width,), large, x.dtype)

    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    kinds = {x.dtype: [shortened(y) for y in floats if y.dtype == x.dtype] for x in floats}
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(jnp.concatenate(parts))) for parts in kinds.values()], bool))


def _some_of(x: jax.Array) -> jax.Array:
    """The first elements of an array: where a rate or a factor is not finite, they are not either.

    To look at all new parameters before the old ones are given up takes a copy of them, a third of the time of a
    step; what is wrong with single ones is found after each call, see `with_parameters_checked`.
    """
    return x.reshape(-1)[:16]


def with_parameters_checked(metrics: Metrics, sound: Sequence[jax.Array]) -> Metrics:
    """Metrics that also say, on each block's last batch, if its parameters are not finite after the call.

    Args:
      metrics: of a call.
      sound: of each block, whether they are, see `finite`.
    """

    def last(stopped: jax.Array, batch_id: jax.Array, sound: jax.Array) -> jax.Array:
        places = jnp.arange(len(batch_id), dtype=jnp.int32)
        here = places == jnp.max(jnp.where(batch_id >= 0, places, -1), initial=-1)
        return jnp.where(here & ~sound & (stopped == LEARNT), PARAMETERS, stopped)

    each = zip(metrics.stopped, metrics.batch_id, sound, strict=True)
    return metrics._replace(stopped=tuple(last(*one) for one in each))


def train(
    block: LocalBlock, state: BlockState, message: Message, key: Key, ok: jax.Array
) -> tuple[BlockState, Message, dict[str, jax.Array], jax.Array, jax.Array]:
    """A whole step of a block with a local loss: `(state, message, metrics, ok, stopped)`."""
    state, message, ok = _barrier((state, message, ok))
    message, model_state, grads, metrics = work(block, state, message, key)
    state, ok, stopped = learn(block, state, model_state, grads, metrics, ok)
    return _barrier((state, message, metrics, ok, stopped))


def alone(
    block: LocalBlock, state: BlockState, message: Message, key: Key, signal: PyTree, down: bool
) -> tuple[BlockState, Message, PyTree]:
    """A block's whole step, its signal being there already, `(state, message, downward)`: what it costs by itself."""
    ok = jnp.array(True)
    if block.signal == "none":
        state, message, *_ = train(block, state, message, key, ok)
        return state, message, None
    message, state, stash = forward(block, state, message, key, ok)
    grads, metrics, downward = answer(block, state, stash, signal, down)
    state, *_ = take(block, state, grads, metrics, ok)
    return state, message, downward


def init(model: Model, key: Key) -> tuple[BlockState, ...]:
    """Initial state of every block; block i draws from `fold_in(key, i)`.

    Args:
      model: any model.
      key: a key, or an array of keys for a model with trials.

    Returns:
      One `BlockState` a block.
    """
    states: list[BlockState] = []
    programs: dict[str, Callable[[Key], BlockState]] = {}  # equal blocks are compiled once
    for i, (block, message) in enumerate(zip(model.blocks, specs(model)[1], strict=False)):
        block_key = fold_in(key, i)
        lowered = jax.jit(lambda key, block=block, message=message: block.init(key, message)).lower(block_key)
        text = lowered.as_text()
        if text not in programs:
            programs[text] = lowered.compile(_COMPILE_ONCE if jax.default_backend() == "cpu" else None)
        states.append(programs[text](block_key))
    return tuple(states)


def specs(model: Model, shards: int = 1, parts: int = 1) -> tuple[list[Spec], list[Spec]]:
    """Shapes and dtypes of `(states, messages)`: a state a block, and the message at every boundary, in to out.

    Args:
      model: any model.
      shards: over how many devices each batch is split.
      parts: into how many equal parts each shard is cut.

    Raises:
      ValueError: if the batch does not divide by `shards`.
    """
    if model.batch_size % shards:
        raise ValueError(
            f"a batch of {model.batch_size} does not divide over data_parallel={shards}: choose a batch_size that is a "
            f"multiple of {shards}."
        )

    def shard(spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = list(spec.shape)
        shape[model.batch_axis] //= shards * parts
        return jax.ShapeDtypeStruct(tuple(shape), spec.dtype)

    key = key_spec(model)
    states, messages = [], [jax.eval_shape(model.enter, shard(model.x_spec), shard(model.y_spec))]
    for block in model.blocks:
        message = messages[-1]
        states.append(jax.eval_shape(lambda key, block=block, message=message: block.init(key, message), key))
        messages.append(jax.eval_shape(block.forward, states[-1], message, key)[0])
    return states, messages


def signals(model: Model, states: list[Spec], messages: list[Spec]) -> list[Spec]:
    """Shapes and dtypes of the signal that reaches each block from above, whether it needs one or not.

    Args:
      model: any model.
      states, messages: its `specs`.
    """
    found: list[Spec] = []
    signal: Spec = None
    for i, block in reversed(list(enumerate(model.blocks))):
        found.append(signal)
        if hands_down(model, i):

            def down(state, message, key, signal, block=block):
                return block.grads(state, block.forward(state, message, key)[2], signal)[2]

            signal = jax.eval_shape(down, states[i], messages[i], key_spec(model), signal)
    return found[::-1]


def no_metrics(model: Model) -> Metrics:
    """What a call reports that trains on nothing."""
    nothing = (jnp.zeros((0,), jnp.int32),) * len(model.blocks)
    return Metrics(tuple({} for _ in model.blocks), nothing, nothing)


def key_spec(model: Model) -> Spec:
    """Spec of the key that the blocks of a model are given: one, or one a trial."""
    shape = () if model.trials is None else (model.trials,)
    return jax.eval_shape(lambda: jnp.broadcast_to(jax.random.key(0), shape))
