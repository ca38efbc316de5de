"""What shows in the programs of blocks alone: whether data shards agree about their states, and what never moves.

Floats that shards make of their examples are averaged.  A whole number or a truth value cannot be: a count of steps is
the same on every shard, and a count of examples is another on each, of which one would be kept.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from localgrad import target
from localgrad.base import BlockState, LocalBlock, Model, PyTree, Spec
from localgrad.pipeline.jaxprs import reached
from localgrad.pipeline.specs import key_spec, passes, signals


def check_shards(model: Model, states: Sequence[Spec], messages: Sequence[Spec], data_parallel: int) -> None:
    """Refuses what is another on each data shard, and no float that could be averaged.

    Args:
      model: any model.
      states, messages: its `specs` for a shard.
      data_parallel: the number of shards, for the message.

    Raises:
      ValueError: for a leaf of a block's model state, or a metric, of whole numbers, truth values or keys, that
        depends on the examples or on random draws.
    """
    passed, given = passes(model, states, messages), signals(model, states, messages)
    for i, (block, found) in enumerate(zip(model.blocks, passed, strict=True)):
        if _no_floats((found.model_state, found.metrics)):
            once = lambda state, others, block=block: block.forward(state, *others)
            others = messages[i], key_spec(model)
            told = lambda found: {"model state": found.model_state, "metrics": dict(found.metrics)}
            _check(block, i, once, told, states[i], others, data_parallel)
        if block.backward is not None:
            then = lambda state, others, block=block: block.backward(state, *others)
            others = found.stash, given[i]
            metrics = jax.eval_shape(then, states[i], others).metrics
            if _no_floats(metrics):
                told = lambda found: {"metrics": dict(found.metrics)}
                _check(block, i, then, told, states[i], others, data_parallel)


def _check(block: LocalBlock, i: int, run: Any, told: Any, state: Spec, others: Spec, data_parallel: int) -> None:
    """Refuses what a block tells that depends on `others`; `told` chooses it from what `run` gives."""
    of = target.traced(lambda state, others: told(run(state, others)), target.platform())
    jaxpr, shapes = jax.make_jaxpr(of, return_shape=True)(state, others)
    live = [False] * len(jax.tree.leaves(state)) + [True] * len(jax.tree.leaves(others))
    leaves = jax.tree_util.tree_flatten_with_path(shapes)[0]
    for (path, leaf), differs in zip(leaves, reached(jaxpr, live), strict=True):
        if differs and _no_floats(leaf):
            where = f"{path[0].key}{jax.tree_util.keystr(path[1:])}"
            raise ValueError(
                f"data_parallel={data_parallel}: {where} of block {i + 1} ({block.name}) is {leaf.dtype} and depends "
                "on a shard's examples or random draws, so it is another on each shard, and only floats are averaged: "
                "keep a float, such as a mean over the examples."
            )


def _no_floats(tree: PyTree) -> bool:
    """Whether a tree has any leaf that cannot be averaged."""
    return any(not jnp.issubdtype(x.dtype, jnp.inexact) for x in jax.tree.leaves(tree))


def constants(model: Model, states: Sequence[Spec], messages: Sequence[Spec]) -> tuple[tuple[bool, ...], ...]:
    """Of each block, which leaves of its model state a pass hands on as they are.

    Args:
      model: any model.
      states, messages: its `specs` for a shard.
    """
    found: list[tuple[bool, ...]] = []
    for block, state, message in zip(model.blocks, states, messages, strict=False):
        if not jax.tree.leaves(state.model_state):
            found.append(())
            continue
        moved = lambda own, state, *given, block=block: (
            block.forward(state._replace(model_state=own), *given).model_state
        )
        traced = target.traced(moved, target.platform())
        jaxpr = jax.make_jaxpr(traced)(state.model_state, state, message, key_spec(model)).jaxpr
        outs = zip(jaxpr.outvars, jaxpr.invars, strict=False)  # the model state comes first
        found.append(tuple(new is old for new, old in outs))
    return tuple(found)


def kept(constant: Sequence[bool], moved: PyTree, state: BlockState) -> PyTree:
    """A new model state whose constant leaves are those of the old one, not the mean of the shards' copies."""
    leaves, structure = jax.tree.flatten(moved)
    old = jax.tree.leaves(state.model_state)
    return jax.tree.unflatten(structure, [b if same else a for same, a, b in zip(constant, leaves, old, strict=True)])
