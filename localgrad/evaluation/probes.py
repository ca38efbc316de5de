"""Linear probes: how well a linear classifier reads the classes off what each block makes, exits or no exits."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import BlockState, Key, Model
from localgrad.blocks.layers import pool_to
from localgrad.evaluation.accuracy import EvalBatches
from localgrad.pipeline import drawn


def linear_probe(
    model: Model,
    states: Sequence[BlockState],
    fit: EvalBatches,
    test: EvalBatches,
    *,
    ridge: float = 1e-3,
    pool: int | None = 2048,
) -> dict[str, float]:
    """Accuracy in percent of a linear classifier on each of the model's features, which stay as they are.

    A classifier is ridge regression of the classes' codes on the features, both less their means, in closed form: W =
    (C + ridge tr(C) / D I)^-1 S with the covariance C `(D, D)` and S `(D, classes)`.  It needs one pass over the split
    and has neither a rate nor a seed, so that probes of two networks differ by their features alone.

    Args:
      model: a model of a classification, without trials.
      states: one `BlockState` a block.
      fit: batches to fit on, as `make_evaluator` takes them.
      test: batches that accuracy is of.
      ridge: share of the mean variance that is added to each.
      pool: images are averaged to at most so many features first, see `pool_to`; None takes them all.

    Returns:
      A number for each name of `model.path`: `f 1`, `f 2` and so on, and last `scores`.

    Raises:
      ValueError: for a model of trials or of another task, a ridge that is not above 0, a pool below 1, or an empty
        split.
    """
    _check(model, ridge, pool)
    read = lambda states, x: [pool_to(feature, pool) for feature in model.features(states, x)]
    return dict(zip(model.path, _accuracies(read, model, states, fit, test, ridge), strict=True))


def probe_floors(
    model: Model,
    key: Key,
    fit: EvalBatches,
    test: EvalBatches,
    *,
    ridge: float = 1e-3,
    pool: int | None = 2048,
) -> dict[str, float]:
    """What `linear_probe` finds where nothing has been learnt: the floors that learnt features have to beat.

    Args:
      model, fit, test, ridge, pool: as `linear_probe`.
      key: of the initialisation.

    Returns:
      As `linear_probe`, of the features of the network as it is drawn; and before them `inputs`, of the inputs
      themselves, but of texts, whose inputs are no quantities.

    Raises:
      ValueError: as `linear_probe`.

    References:
      NOTES, a researcher's log, third iteration: lower bounds of self-supervised blocks
    """
    _check(model, ridge, pool)
    numbers = jnp.issubdtype(model.x_spec.dtype, jnp.floating)
    names = (*(["inputs"] if numbers else []), *model.path)

    def read(states: tuple[BlockState, ...], x: jax.Array) -> list[jax.Array]:
        return [pool_to(each, pool) for each in (*([x] if numbers else []), *model.features(states, x))]

    return dict(zip(names, _accuracies(read, model, drawn(model, key), fit, test, ridge), strict=True))


def _check(model: Model, ridge: float, pool: int | None) -> None:
    """Refuses what cannot be probed.

    Raises:
      ValueError: see `linear_probe`.
    """
    task = model.task
    if task.classes is None or task.per_token or model.trials is not None:
        what = f"of {model.trials} trials" if model.trials is not None else f"for {task.name}"
        raise ValueError(f"a linear probe reads the classes of one classification, and this model is {what}.")
    if not ridge > 0 or (pool is not None and pool < 1):
        raise ValueError(f"ridge is above 0, and pool at least 1 or None; got {ridge} and {pool}.")


def _accuracies(
    read: Callable[[tuple[BlockState, ...], jax.Array], list[jax.Array]],
    model: Model,
    states: Sequence[BlockState],
    fit: EvalBatches,
    test: EvalBatches,
    ridge: float,
) -> list[float]:
    """Accuracy in percent of a classifier on each of the arrays `(B, D)` that are read."""
    task = model.task

    @jax.jit
    def sums(states: tuple[BlockState, ...], x: jax.Array, y: jax.Array, mask: jax.Array):
        """Of each feature h with a 1 behind it: sums over examples of h^T h and of h^T code."""
        found = []
        for h in read(states, x):
            kept = mask.astype(h.dtype)[:, None]
            h = jnp.concatenate([h, jnp.ones((len(h), 1), h.dtype)], axis=1) * kept
            found.append((h.T @ h, h.T @ (task.encode(y, h.dtype) * kept)))
        return found

    @jax.jit
    def right(states: tuple[BlockState, ...], maps: list, x: jax.Array, y: jax.Array, mask: jax.Array):
        pairs = zip(read(states, x), maps, strict=True)
        scores = [(h - mean[None]) @ kernel + bias[None] for h, (mean, kernel, bias) in pairs]
        return jnp.stack([jnp.sum((jnp.argmax(each, axis=1).astype(y.dtype) == y) & mask) for each in scores])

    dtypes = [feature.dtype for feature in jax.eval_shape(read, tuple(states), model.x_spec)]
    totals = _total(lambda *batch: sums(tuple(states), *batch), fit)
    maps = [
        tuple(each.astype(dtype) for each in _fitted(own[0], own[1], ridge))
        for own, dtype in zip(totals, dtypes, strict=True)
    ]
    hits = _total(lambda *batch: right(tuple(states), maps, *batch), test)
    count = sum(int(np.sum(mask)) for *_, mask in test)
    return (100.0 * hits / count).tolist()


def _total(of: Callable, batches: EvalBatches):
    """Sums of trees over the batches of a split, in float64.

    Raises:
      ValueError: for a split of no batches.
    """
    total = None
    for batch in batches:
        found = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(of(*batch)))
        total = found if total is None else jax.tree.map(np.add, total, found)
    if total is None:
        raise ValueError("there is nothing to probe: the split is empty.")
    return total


def _fitted(gram: np.ndarray, cross: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(mean, kernel, bias)` of the regression, of the sums over features with a 1 behind them."""
    count, mean, target = gram[-1, -1], gram[-1, :-1] / gram[-1, -1], cross[-1] / gram[-1, -1]
    covariance = gram[:-1, :-1] / count - np.outer(mean, mean)
    size = len(covariance)
    added = ridge * max(np.trace(covariance) / size, np.finfo(np.float32).tiny)
    kernel = np.linalg.solve(covariance + added * np.eye(size), cross[:-1] / count - np.outer(mean, target))
    return mean, kernel, target
