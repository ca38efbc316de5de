"""How good predictions are at every exit."""

import warnings
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
    """Returns `(states, batches) -> scores`: by name, each of the task's as `make_evaluator` has the first.

    The first batch of all is predicted twice, the second time with its first example in all places of its second half:
    a UserWarning tells of an exit that predicts the others otherwise then, because its figures depend on the batches.
    """

    @jax.jit
    def total(
        states: tuple[BlockState, ...], x: jax.Array, y: jax.Array, mask: jax.Array
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        # The encoders stand once in the compiled program: equal subexpressions of the exits are merged.
        predicted = [model.predict(states, x, exit) for exit in model.exits]

        def summed(of: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
            of = of if model.trials is None else jax.vmap(of, in_axes=(0, None))  # of each trial, on the same y
            each = jnp.stack([of(scores, y) for scores in predicted])
            return jnp.sum(jnp.where(jnp.broadcast_to(mask, each.shape), each, jnp.zeros_like(each)), axis=-1)

        examples = 1 if model.trials is None else 2  # the first axes of what is predicted
        means = jnp.stack([jnp.mean(scores**2, axis=tuple(range(examples, scores.ndim))) for scores in predicted])
        return {name: summed(score.of) for name, score in model.task.scores.items()}, means

    looked = False

    def evaluate(states: Sequence[BlockState], batches: EvalBatches) -> dict[str, np.ndarray]:
        nonlocal looked
        sums, count = [], 0
        for x, y, mask in batches:
            summed, means = total(tuple(states), x, y, mask)
            sums.append(summed)
            if not looked and len(x) > 1:
                looked, some = True, len(x) // 2
                others = np.array(x)
                others[some:] = others[0]
                _tell_of_neighbours(model, some, means, total(tuple(states), jnp.asarray(others), y, mask)[1])
            count += int(np.sum(mask))
        if not count:
            raise ValueError("there is nothing to evaluate: the split is empty.")
        found = jax.device_get(sums)
        return {
            name: score.shown(np.sum([each[name] for each in found], axis=0)) / count
            for name, score in model.task.scores.items()
        }

    return evaluate


def _tell_of_neighbours(model: Model, some: int, means: jax.Array, among_others: jax.Array) -> None:
    """Warns of exits whose predictions of the first examples are others, now that the rest of the batch is another."""
    one, two = (np.asarray(each, np.float64)[..., :some] for each in jax.device_get((means, among_others)))
    apart = np.abs(one - two).reshape(len(one), -1).max(axis=1)  # a NaN is told of elsewhere
    found = [exit for exit, far in zip(model.exits, apart, strict=True) if far > 1e-4 * (1 + np.abs(one).max())]
    if found:
        warnings.warn(
            f"exit {found[0]} predicts an example by those beside it in its batch, so that scores and predictions "
            "depend on the size and the order of batches. A module that is told `train=False` must normalise by what "
            "training has gathered, and not by the batch: `localgrad.testing.check_block` tells which block it is.",
            stacklevel=3,
        )
