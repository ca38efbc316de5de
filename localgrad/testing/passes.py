"""One batch through the blocks of a model, without an engine: what the checks of single blocks look at."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from localgrad.base import BlockState, Key, Message, Model, PyTree
from localgrad.pipeline import specs
from localgrad.pipeline.specs import key_spec, passes, signals


class Visit(NamedTuple):
    """What a block is given, as shapes and dtypes, at its two moments.

    Attributes:
      forward: `(state, message, key)`.
      backward: `(state, stash, signal)`; None of blocks that wait for nothing.
    """

    forward: tuple[Any, Any, Any]
    backward: tuple[Any, Any, Any] | None


def visits(model: Model) -> list[Visit]:
    """What each block of a model is given; nothing is computed."""
    states, messages = specs(model)
    passed, given = passes(model, states, messages), signals(model, states, messages)
    return [
        Visit(
            (states[i], messages[i], key_spec(model)),
            None if block.backward is None else (states[i], passed[i].stash, given[i]),
        )
        for i, block in enumerate(model.blocks)
    ]


def losses(
    model: Model, states: Sequence[BlockState], params: Sequence[PyTree], message: Message, keys: Sequence[Key]
) -> list[jax.Array]:
    """The loss of each block on a batch, at its pass or once its signal has come.

    Args:
      model: whose blocks wait for nothing, or for the pass of the next one.
      states: of which `params` take the place of the parameters.
      params: of each block.
      message: of the first block.
      keys: one a block.
    """
    used = [state._replace(params=own) for state, own in zip(states, params, strict=True)]
    passed = []
    for block, state, key in zip(model.blocks, used, keys, strict=True):
        passed.append(block.forward(state, message, key))
        message = passed[-1].message
    found = []
    for i, (block, state, each) in enumerate(zip(model.blocks, used, passed, strict=True)):
        own = [each.metrics["loss"]] if "loss" in each.metrics else []
        if block.backward is not None and block.signal == "next":
            down = jax.lax.stop_gradient(passed[i + 1].down)  # the signal is what a block may learn from
            own.append(block.backward(state, each.stash, down).metrics["loss"])
        found.append(sum(own[1:], own[0]))
    return found
