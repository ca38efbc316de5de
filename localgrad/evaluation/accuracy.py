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
    evaluate, first = make_scorer(model), next(iter(model.task.scores))
    return lambda states, batches: evaluate(states, batches)[first]


def make_scorer(model: Model) -> Callable[[Sequence[BlockState], EvalBatches], dict[str, np.ndarray]]:
    """Returns `(states, batches) -> scores`: by name, each of the task's as `make_evaluator` has the first."""

    @jax.jit
    def total(states: tuple[BlockState, ...], x: jax.Array, y: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
        # The encoders stand once in the compiled program: equal subexpressions of the exits are merged.
        predicted = [model.predict(states, x, exit) for exit in model.exits]

        def summed(of: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
            of = of if model.trials is None else jax.vmap(of, in_axes=(0, None))  # of each trial, on the same y
            each = jnp.stack([of(scores, y) for scores in predicted])
            return jnp.sum(jnp.where(jnp.broadcast_to(mask, each.shape), each, jnp.zeros_like(each)), axis=-1)

        return {name: summed(score.of) for name, score in model.task.scores.items()}

    def evaluate(states: Sequence[BlockState], batches: EvalBatches) -> dict[str, np.ndarray]:
        sums, count = [], 0
        for x, y, mask in batches:
            sums.append(total(tuple(states), x, y, mask))
            count += int(np.sum(mask))
        if not count:
            raise ValueError("there is nothing to evaluate: the split is empty.")
        found = jax.device_get(sums)
        return {
            name: score.shown(np.sum([each[name] for each in found], axis=0)) / count
            for name, score in model.task.scores.items()
        }

    return evaluate
