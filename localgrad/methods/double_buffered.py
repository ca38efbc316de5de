"""Backpropagation with two versions of the weights (PipeDream-2BW): late by the same everywhere, on any stages.

    W(t + 1) = W(t) - rate * gradient of batch t at W(t - 1)        W(-1) = W(0)

A batch t of the rule is M batches of the engine, its micro-batches: their gradients are averaged, and weights learn
once in M of them.  Its passes use the weights before the last update, and so does their way back, so two versions are
kept.  Stages that stream micro-batches without a bubble have all M gradients of batch t - 1 before batch t + 1 begins
if M is at least twice the number of stages between; then which stage a block is on changes nothing.

PipeDream itself needs no transform: `spmd(model, asynchronous="stashed")` learns from each batch, late by as much as
the stage is away from the last.

References:
  Narayanan et al., Memory-Efficient Pipeline-Parallel DNN Training (PipeDream-2BW), https://arxiv.org/abs/2006.09503,
    section 3.1 (semantics of an update)
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from localgrad.base import BlockState, Forward, Key, LocalBlock, Message, Model, PyTree
from localgrad.descent import Around, descending
from localgrad.methods.groups import first_states

_PASSES = "passes"  # in the batch statistics: how many micro-batches have passed


class Buffered(NamedTuple):
    """The state of an optimizer of two versions.

    Attributes:
      seen: gradients of the batch under way, int32.
      version: updates so far, int32.
      mean: of these gradients.
      inner: the optimizer's own.
      previous: the parameters before the last update.
    """

    seen: jax.Array
    version: jax.Array
    mean: PyTree
    inner: PyTree
    previous: PyTree


def double_buffered(model: Model, batches: int) -> Model:
    """Lets a rule of the kind of backpropagation learn once in so many batches, with weights that are one update old.

    On the sequential engine and on a pipeline of any stages the numbers are the same, where
    `batches >= 2 * (stages - 1)`; with `spmd(..., asynchronous="stashed")` there is no bubble, either.

    Args:
      model: of a rule whose gradients come down block by block, such as `bp`.
      batches: M, the batches of the engine that one update is the mean of.  Of a number that M does not divide, the
        last ones change nothing.

    Returns:
      The model.  Prediction uses the newest weights.  A block that has not got the gradients that it must have by then
      has a loss that is not finite.

    Raises:
      ValueError: for fewer than one batch, other rules, or a model of several trials: make trials of what this returns.
    """
    if batches < 1:
        raise ValueError(f"an update is of at least one batch; got {batches}.")
    if model.trials is not None or any(block.signal != "above" for block in model.blocks):
        raise ValueError(
            "double_buffered is for rules whose gradients come down block by block, such as bp, before they are run in "
            f"several trials; method {model.method!r} is not so here."
        )
    return model._replace(blocks=tuple(_buffered(block, batches) for block in model.blocks))


def _buffered(block: LocalBlock, batches: int) -> LocalBlock:
    tx = {key: _every(one, batches) for key, one in block.tx.items()}

    def init(key: Key, message: Message) -> BlockState:
        state = block.init(key, message)
        moved = {**state.model_state, _PASSES: jnp.int32(0)}
        return BlockState(state.params, moved, first_states(tx, state.params, key))

    def forward(state: BlockState, message: Message, key: Key) -> Forward:
        moved = dict(state.model_state)
        passes = moved.pop(_PASSES)
        version = jnp.maximum(passes // batches - 1, 0)
        params = _older(state, version) if state.opt_state else state.params  # nobody learns who tries the pass alone
        found = block.forward(BlockState(params, moved, ()), message, key)
        return found._replace(model_state={**found.model_state, _PASSES: passes + 1})

    return block._replace(init=init, forward=forward, tx=tx, made_of=None)


def _older(state: BlockState, version: jax.Array) -> dict[str, PyTree]:
    """The parameters as they were after so many updates, the last or the one before; NaN if it is neither."""
    params: dict[str, PyTree] = dict(state.params)
    for names, kept in state.opt_state.items():
        now, before = kept.version == version, kept.version == version + 1
        for group in names.split("+"):
            choose = lambda new, old, now=now, before=before: jnp.where(now, new, jnp.where(before, old, jnp.nan))
            params[group] = jax.tree.map(choose, state.params[group], kept.previous[group])
    return params


def _every(inner: optax.GradientTransformation, batches: int) -> Around:
    """A transform that updates by the mean of so many gradients, and keeps the parameters before the last update."""
    own = descending(inner)

    def init(params: Mapping[str, PyTree]) -> Buffered:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Buffered(jnp.int32(0), jnp.int32(0), zeros, own.init(params), params)

    def update(grads: PyTree, state: Buffered, params: PyTree = None, **extra: jax.Array) -> tuple[PyTree, Buffered]:
        seen = state.seen + 1
        mean = jax.tree.map(lambda old, new: old + (new - old) / seen.astype(old.dtype), state.mean, grads)
        nothing = jax.tree.map(jnp.zeros_like, mean)

        def learn() -> tuple[PyTree, Buffered]:
            updates, new = own.update(mean, state.inner, params, **extra)
            return updates, Buffered(jnp.int32(0), state.version + 1, nothing, new, params)

        def wait() -> tuple[PyTree, Buffered]:
            return nothing, state._replace(seen=seen, mean=mean)

        return jax.lax.cond(seen == batches, learn, wait)

    return Around(init, update)
