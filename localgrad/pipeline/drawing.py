"""The first states of a model, drawn from a key by programs that equal blocks share."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax

from localgrad.base import BlockState, Key, Model
from localgrad.keys import fold_in
from localgrad.pipeline.jaxprs import calls_host
from localgrad.pipeline.loading import check_key
from localgrad.pipeline.specs import key_spec, once_a_model, specs

# The programs that drew the last states.
_DRAWN: dict[tuple[str, Any], Callable[[Key], BlockState]] = {}
_DRAWN_AT_MOST = 64
# Half the compilation, for programs that run once.
_COMPILE_ONCE: dict[str, Any] = {"xla_backend_optimization_level": 0}


def init(model: Model, key: Key) -> tuple[BlockState, ...]:
    """Initial state of every block; block i draws from `fold_in(key, i)`, and what completes them all from the next.

    Args:
      model: any model.
      key: a key, or an array of keys for a model with trials.

    Returns:
      One `BlockState` a block.

    Raises:
      ValueError: for no typed key, or another number of keys than the model has trials.
    """
    return completed(model, key, drawn(model, key))


def completed(model: Model, key: Key, states: tuple[BlockState, ...]) -> tuple[BlockState, ...]:
    """`init` with states that are there already, drawn or trained."""
    return states if model.complete is None else model.complete(fold_in(key, len(model.blocks)), states)


def drawn(model: Model, key: Key) -> tuple[BlockState, ...]:
    """The state of every block as its own `init` draws it: `init` without what completes them all."""
    own = check_key(model, key)
    return tuple(draw(fold_in(own, i)) for i, draw in enumerate(_drawing(model)))


@once_a_model  # for another key nothing is traced anew
def _drawing(model: Model) -> list[Callable[[Key], BlockState]]:
    """Each block's `init`, compiled; equal blocks, of whatever models, share a program."""
    options = _COMPILE_ONCE if jax.default_backend() == "cpu" else None
    found = []
    for block, message in zip(model.blocks, specs(model)[1], strict=False):
        draw = jax.jit(lambda key, block=block, message=message: block.init(key, message), compiler_options=options)
        traced = draw.trace(key_spec(model))
        found.append(draw if calls_host(traced.jaxpr) else _DRAWN.setdefault(_program(traced), draw))
        while len(_DRAWN) > _DRAWN_AT_MOST:
            _DRAWN.pop(next(iter(_DRAWN)))
    return found


def _program(traced: Any) -> tuple[str, Any]:
    """What two programs have in common that do the same: a digest of their text, and the structure of their results."""
    return hashlib.sha256(traced.lower().as_text().encode()).hexdigest(), jax.tree.structure(traced.out_info)
