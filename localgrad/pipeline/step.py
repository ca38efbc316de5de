"""One block on one batch: the step that all engines share, which is why they agree.

An `optimization_barrier` on either side keeps the compiler from fusing across blocks, so that a block's arithmetic does
not depend on what stands beside it.  All randomness comes from the batch and the block, never from where or when the
step runs.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from localgrad import target
from localgrad.base import (
    EARLIER,
    GRADIENT,
    LEARNT,
    LOSS,
    MODEL_STATE,
    PARAMETERS,
    Backward,
    BlockState,
    Forward,
    Key,
    LocalBlock,
    Message,
    Model,
    PyTree,
)
from localgrad.pipeline.finite import finite, some_of
from localgrad.pipeline.specs import asked_in_pass, asked_on_way_back
from localgrad.pipeline.transformed import transformed

_barrier = jax.lax.optimization_barrier


class Passed(NamedTuple):
    """What a block's pass over a batch leaves: see `Forward`.

    Attributes:
      state: with the groups that learn at once, and batch statistics, moved on.
      ok: whether every number so far was finite.
      stopped: what `Metrics.stopped` says.
    """

    state: BlockState
    message: Message
    metrics: Mapping[str, jax.Array]
    ok: jax.Array
    stopped: jax.Array
    stash: PyTree
    down: PyTree


def forward(
    block: LocalBlock, state: BlockState, message: Message, key: Key, ok: jax.Array, asked: bool = False
) -> Passed:
    """The pass of a block over a batch, and what it learns at once.

    Args:
      block, state, message, key: see `LocalBlock.forward`.
      ok: whether the block may learn.
      asked: somebody waits for what it hands down.
    """
    state, message, ok = _barrier((state, message, ok))
    found = block.forward(state, message, key)
    state, ok, stopped = settle(block, state, found.model_state, found.grads, found.metrics, ok)
    down = found.down if asked else None
    return _barrier(Passed(state, found.message, found.metrics, ok, stopped, found.stash, down))


def work(block: LocalBlock, state: BlockState, message: Message, key: Key) -> Forward:
    """The pass alone, with no effect on the state: over data shards its results are averaged before any is used."""
    state, message = _barrier((state, message))
    return _barrier(block.forward(state, message, key))


def pass_part(block: LocalBlock, state: BlockState, message: Message, key: Key, ok: jax.Array) -> Forward:
    """The pass over a part of a batch: batch statistics move, but nothing learns before all parts are through."""
    state, message = _barrier((state, message))
    found = block.forward(state, message, key)
    return _barrier(found._replace(model_state=_moved(state, found.model_state, ok)))


def settle(
    block: LocalBlock,
    state: BlockState,
    model_state: PyTree,
    grads: Mapping[str, PyTree],
    metrics: Mapping[str, jax.Array],
    ok: jax.Array,
) -> tuple[BlockState, jax.Array, jax.Array]:
    """What a pass changes of a block: `(state, ok, stopped)`; batch statistics alone where nothing learns at once."""
    if grads:
        return learn(block, state, model_state, grads, metrics, ok)
    state = state._replace(model_state=_moved(state, model_state, ok))
    return state, ok, jnp.where(ok, jnp.int32(LEARNT), EARLIER)


def _moved(state: BlockState, model_state: PyTree, ok: jax.Array) -> PyTree:
    """New batch statistics, or the old ones where they are not finite: then the loss that comes later is not either."""
    sound = ok & finite(_changed(model_state, state))
    return jax.tree.map(lambda new, old: jnp.where(sound, new, old), model_state, state.model_state)


def _changed(model_state: PyTree, state: BlockState) -> list[jax.Array]:
    """The floats of a new model state but for those that are the old one's very arrays: a mask may hold -inf."""
    pairs = zip(jax.tree.leaves(model_state), jax.tree.leaves(state.model_state), strict=True)
    return [new for new, old in pairs if new is not old and jnp.issubdtype(new.dtype, jnp.inexact)]


def backward(block: LocalBlock, state: BlockState, stash: PyTree, signal: PyTree, asked: bool = False) -> Backward:
    """What a block makes of the signal that it has waited for; see `LocalBlock.backward`."""
    assert block.backward is not None
    found = block.backward(*_barrier((state, stash, signal)))
    return _barrier(found if asked else found._replace(down=None))


def take(
    block: LocalBlock, state: BlockState, grads: Mapping[str, PyTree], metrics: Mapping[str, jax.Array], ok: jax.Array
) -> tuple[BlockState, jax.Array, jax.Array]:
    """The update after a signal: `(state, ok, stopped)`."""
    state, grads, metrics, ok = _barrier((state, grads, metrics, ok))
    return _barrier(learn(block, state, state.model_state, grads, metrics, ok))


def learn(
    block: LocalBlock,
    state: BlockState,
    model_state: PyTree,
    grads: Mapping[str, PyTree],
    metrics: Mapping[str, jax.Array],
    ok: jax.Array,
) -> tuple[BlockState, jax.Array, jax.Array]:
    """An update, made only while every number so far was finite: `(state, ok, stopped)`."""

    def update(state: BlockState) -> BlockState:
        params, opt_state = dict(state.params), dict(state.opt_state)
        for names in block.tx:
            own = {group: grads[group] for group in names.split("+") if group in grads}
            if own:
                old = {group: params[group] for group in own}
                updates, opt_state[names] = transformed(block, names, own, opt_state[names], old, metrics["loss"])
                params |= optax.apply_updates(old, updates)
        return BlockState(params, model_state, opt_state)

    with jax.numpy_dtype_promotion("standard"):  # optax mixes counts and floats
        sound = {
            LOSS: jnp.all(jnp.isfinite(metrics["loss"])),
            GRADIENT: finite(grads),
            PARAMETERS: finite(jax.tree.map(some_of, update(state).params)),
        }
        stopped = jnp.int32(LEARNT)
        if moved := _changed(model_state, state):
            stopped = jnp.where(finite(moved), stopped, MODEL_STATE)
        for why in (PARAMETERS, GRADIENT, LOSS):
            stopped = jnp.where(sound[why], stopped, why)
        stopped = jnp.where(ok, stopped, EARLIER)
        ok = stopped == LEARNT
        if target.platform() == "cpu":  # choosing arrays would copy the state; elsewhere a branch stops the host
            return jax.lax.cond(ok, update, lambda state: state, state), ok, stopped
        new = update(state)
    return jax.tree.map(lambda new, old: jnp.where(ok, new, old), new, state), ok, stopped


def merged(
    first: tuple[Mapping[str, jax.Array], jax.Array], then: tuple[Mapping[str, jax.Array], jax.Array]
) -> tuple[dict[str, jax.Array], jax.Array]:
    """What a block reports of a batch from which it learnt at two moments, each `(metrics, stopped)`.

    Its loss is the sum of both, and what stopped it is what did so first.
    """
    metrics = {**first[0], **then[0]}
    if "loss" in first[0] and "loss" in then[0]:
        metrics["loss"] = first[0]["loss"] + then[0]["loss"]
    return metrics, jnp.where(first[1] == LEARNT, then[1], first[1])


def alone(
    model: Model, i: int, state: BlockState, message: Message, key: Key, signal: PyTree
) -> tuple[BlockState, Message, PyTree]:
    """Block i's whole step, its signal being there already, `(state, message, down)`: what it costs by itself."""
    block = model.blocks[i]
    passed = forward(block, state, message, key, jnp.array(True), asked_in_pass(model, i))
    if block.signal == "none":
        return passed.state, passed.message, passed.down
    found = backward(block, passed.state, passed.stash, signal, asked_on_way_back(model, i))
    state, *_ = take(block, passed.state, found.grads, found.metrics, passed.ok)
    return state, passed.message, found.down if block.signal == "above" else passed.down


def forward_all(
    model: Model, states: Sequence[BlockState], message: Message, keys: Sequence[Key], ok: Sequence[jax.Array]
) -> list[Passed]:
    """`forward` of all blocks, one after another; the arguments are one a block, and `message` is the first one's."""
    passed = []
    for i, (block, state, key, own) in enumerate(zip(model.blocks, states, keys, ok, strict=True)):
        passed.append(forward(block, state, message, key, own, asked_in_pass(model, i)))
        message = passed[-1].message
    return passed


def gradients(
    model: Model, states: Sequence[BlockState], message: Message, keys: Sequence[Key]
) -> list[tuple[BlockState, dict[str, PyTree], dict[str, jax.Array]]]:
    """Every block's `(state, grads, metrics)` of both moments, from one set of parameters.

    Args:
      model: any model.
      states: one `BlockState` a block; those returned have learnt nothing, but their batch statistics have moved.
      message: that of the first block, see `localgrad.pipeline.feeding.enter`.
      keys: one a block.
    """
    passed: list[Forward] = []
    for block, state, key in zip(model.blocks, states, keys, strict=True):
        passed.append(work(block, state, message, key))
        message = passed[-1].message
    found, above = [], None
    downs = [*(each.down for each in passed[1:]), None]
    for i, (block, state, each, down) in reversed(
        list(enumerate(zip(model.blocks, states, passed, downs, strict=True)))
    ):
        grads, metrics = dict(each.grads), dict(each.metrics)
        state = state._replace(model_state=each.model_state)
        if block.signal != "none":
            signal = {"above": above, "next": down, "top": passed[-1].down}[block.signal]
            made = backward(block, state, each.stash, signal, asked_on_way_back(model, i))
            above = made.down
            grads |= made.grads
            metrics = merged((metrics, jnp.int32(LEARNT)), (made.metrics, jnp.int32(LEARNT)))[0]
        found.append((state, grads, metrics))
    return found[::-1]
