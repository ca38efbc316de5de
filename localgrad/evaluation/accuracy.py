"""Accuracy at every exit."""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import BlockState, Model

EvalBatches = Iterable[tuple[jax.Array, jax.Array, jax.Array]]


def make_evaluator(model: Model) -> Callable[[Sequence[BlockState], EvalBatches], np.ndarray]:
    """Returns `(states, batches) -> accuracy`, float64 `(exits,)` in percent, or `(exits, trials)`.

    Batches are `(x (B, ...), y (B,), mask (B,))`; examples whose mask is False do not count.
    """

    @jax.jit
    def correct(states: tuple[BlockState, ...], x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
        # The encoders stand once in the compiled program: equal subexpressions of the exits are merged.
        guesses = jnp.stack([jnp.argmax(model.predict(states, x, exit), axis=-1) for exit in model.exits])
        labels = jnp.broadcast_to(y, guesses.shape)
        return jnp.sum((guesses == labels) & jnp.broadcast_to(mask, guesses.shape), axis=-1)

    def evaluate(states: Sequence[BlockState], batches: EvalBatches) -> np.ndarray:
        counts, total = [], 0
        for x, y, mask in batches:
            counts.append(correct(tuple(states), x, y, mask))
            total += int(np.sum(mask))
        if not total:
            raise ValueError("there is nothing to evaluate: the split is empty.")
        return 100.0 * np.sum(jax.device_get(counts), axis=0) / total

    return evaluate
