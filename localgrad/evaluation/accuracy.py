"""How good predictions are at every exit."""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import BlockState, Model

EvalBatches = Iterable[tuple[jax.Array, jax.Array, jax.Array]]


def make_evaluator(model: Model) -> Callable[[Sequence[BlockState], EvalBatches], np.ndarray]:
    """Returns `(states, batches) -> score`, float64 `(exits,)` or `(exits, trials)`: the mean of the task's first.

    Of a classification that is its accuracy in percent.  Batches are `(x (B, ...), y (B, ...), mask (B,))`; examples
    whose mask is False do not count.
    """
    score = next(iter(model.task.scores.values()))
    of = score.of if model.trials is None else jax.vmap(score.of, in_axes=(0, None))  # of each trial, on the same y

    @jax.jit
    def total(states: tuple[BlockState, ...], x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
        # The encoders stand once in the compiled program: equal subexpressions of the exits are merged.
        each = jnp.stack([of(model.predict(states, x, exit), y) for exit in model.exits])
        return jnp.sum(jnp.where(jnp.broadcast_to(mask, each.shape), each, jnp.zeros_like(each)), axis=-1)

    def evaluate(states: Sequence[BlockState], batches: EvalBatches) -> np.ndarray:
        sums, count = [], 0
        for x, y, mask in batches:
            sums.append(total(tuple(states), x, y, mask))
            count += int(np.sum(mask))
        if not count:
            raise ValueError("there is nothing to evaluate: the split is empty.")
        return (100.0 if score.percent else 1.0) * np.sum(jax.device_get(sums), axis=0) / count

    return evaluate
