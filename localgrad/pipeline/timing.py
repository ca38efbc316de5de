"""What each block costs by the clock, for cuts where FLOPs do not tell the time.

On a CPU an early convolution, which is bound by memory, takes twice the time of a late one of as many FLOPs.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import BlockState, Key, Message, Model, PyTree, Spec
from localgrad.pipeline import step
from localgrad.pipeline.drawing import completed, drawn
from localgrad.pipeline.jaxprs import text_of
from localgrad.pipeline.specs import signals, specs

TURNS = 4  # of a call: what a call costs by itself is spread over them, as in an engine's call of many batches


def block_seconds(model: Model, *, parts: int = 1, repetitions: int = 5) -> tuple[float, ...]:
    """Seconds of a training step of each block, alone on one device: the median of several calls, taken in turns.

    Heads and optimizer are included.  Blocks that are one program are measured once.  The machine should do nothing
    else meanwhile; two measurements differ, so choose cuts once, and give the same to every process and every run.

    Args:
      model: any model.
      parts: into how many micro-batches a batch is cut; the seconds are those of one part and one update.
      repetitions: calls of each.

    Returns:
      One value a block, to be given to `balance`.

    Examples:
      >>> import optax
      >>> from localgrad import bp, mlp
      >>> from localgrad.pipeline import balance
      >>> model = bp(mlp((16, 16)), jax.ShapeDtypeStruct((8, 4), jnp.float32), 3, tx=optax.sgd(0.1))
      >>> cuts = balance(block_seconds(model), stages=2)
    """
    key = _key(model)
    states = drawn(model, key)
    state_specs, messages = specs(model, 1, parts)
    given_from_above = signals(model, state_specs, messages)
    programs: dict[str, Callable[[], None]] = {}
    texts = []
    for i, state in enumerate(states):
        given = (state, *map(small, (messages[i], given_from_above[i])))
        traced = jax.jit(_turns(model, i), donate_argnums=0).trace(*given, key)
        lowered = traced.lower()
        texts.append(text_of(traced, lowered, i))
        if texts[-1] not in programs:
            programs[texts[-1]] = _call(lowered.compile(), *given, key)
    seconds: dict[str, list[float]] = {text: [] for text in programs}
    for _ in range(repetitions):
        for text, program in programs.items():
            began = time.perf_counter()
            program()
            seconds[text].append(time.perf_counter() - began)
    return tuple(float(np.median(seconds[text])) / TURNS for text in texts)


def completing_seconds(model: Model) -> float | None:
    """Seconds that completing the first states of all blocks takes, once compiled; None where nothing does.

    Examples:
      >>> import optax
      >>> from localgrad import al, mlp
      >>> given = mlp((8, 8)), jax.ShapeDtypeStruct((8, 4), jnp.float32), 3
      >>> completing_seconds(al(*given, tx=optax.sgd(0.1), codes="learned"))
      >>> completing_seconds(al(*given, tx=optax.sgd(0.1), codes="fixed")) > 0
      True
    """
    if model.complete is None:
        return None
    key = _key(model)
    states, seconds = drawn(model, key), 0.0
    for _ in range(2):
        began = time.perf_counter()
        jax.block_until_ready(completed(model, key, states))
        seconds = time.perf_counter() - began
    return seconds


def _key(model: Model) -> Key:
    return jax.random.key(0) if model.trials is None else jax.random.split(jax.random.key(0), model.trials)


def small(spec: Spec) -> Any:
    """Small numbers, or labels, of the shapes of a spec."""
    fill = lambda x: 0.01 if jnp.issubdtype(x.dtype, jnp.floating) else 1
    return jax.tree.map(lambda x: jnp.full(x.shape, fill(x), x.dtype), spec)


def _turns(model: Model, i: int) -> Callable[..., tuple[BlockState, PyTree]]:
    """Some steps of block i on one message; what it hands on is returned, so that none of the work is left out."""

    def turns(state: BlockState, message: Message, signal: PyTree, key: Key) -> tuple[BlockState, PyTree]:
        def one(state: BlockState) -> tuple[BlockState, PyTree]:
            state, *out = step.alone(model, i, state, message, key, signal)
            return state, tuple(out)

        out = small(jax.eval_shape(lambda state: one(state)[1], state))
        return jax.lax.fori_loop(0, TURNS, lambda _, carry: one(carry[0]), (state, out))

    return turns


def _call(compiled: Callable[..., Any], state: BlockState, *rest: Any) -> Callable[[], None]:
    """A call that goes on from the state that the last one left; it has run once."""

    def call() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(compiled(state, *rest))

    call()
    return call
