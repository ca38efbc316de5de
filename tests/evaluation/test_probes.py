"""Linear probes find what is linear in the features, as ridge regression restated in numpy does, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad.evaluation import linear_probe

CLASSES, FEATURES, COUNT, BATCH = 3, 4, 60, 16
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(COUNT, FEATURES)).astype(np.float32), RNG.integers(0, CLASSES, COUNT).astype(np.int32)


def batches(x: np.ndarray, y: np.ndarray) -> list:
    """Batches of one shape, the last masked, and filled with what would be seen if it were not."""
    found = []
    for start in range(0, len(x), BATCH):
        missing = BATCH - len(x[start : start + BATCH])
        pad = lambda a, missing=missing: np.concatenate([a, np.full((missing, *a.shape[1:]), 1, a.dtype)])
        found.append((pad(x[start : start + BATCH]), pad(y[start : start + BATCH]), np.arange(BATCH) < BATCH - missing))
    return found


def model() -> lg.Model:
    spec = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float32)
    return lg.dni(lg.mlp((6, 5)), spec, CLASSES, tx=optax.sgd(0.1))  # a method without exits below the last


def test_probes_are_ridge_regression() -> None:
    built = model()
    states = lg.init(built, jax.random.key(0))
    x, y = RNG.normal(size=(40, FEATURES)).astype(np.float32), RNG.integers(0, CLASSES, 40).astype(np.int32)
    found = linear_probe(built, states, batches(X, Y), batches(x, y), ridge=0.1)
    assert tuple(found) == built.path == ("f 1", "f 2", "scores")
    features = lambda x: [np.asarray(h, np.float64) for h in built.features(states, jnp.asarray(x))]
    for name, h, seen in zip(found, features(X), features(x), strict=True):
        mean, code = h.mean(0), np.eye(CLASSES)[Y]
        h = h - mean
        added = 0.1 * np.trace(h.T @ h) / h.shape[1]
        kernel = np.linalg.solve(h.T @ h + added * np.eye(h.shape[1]), h.T @ (code - code.mean(0)))
        right = np.argmax((seen - mean) @ kernel + code.mean(0), axis=1) == y
        assert found[name] == pytest.approx(100 * right.mean())


def test_a_probe_sees_classes_that_are_there() -> None:
    """Clouds that do not overlap are told apart by any block of a random network; labels drawn by lot by none."""
    built = model()
    states = lg.init(built, jax.random.key(1))
    centres = 4 * np.eye(FEATURES)[:CLASSES]
    clouds = (centres[Y] + 0.1 * X).astype(np.float32)
    seen = linear_probe(built, states, batches(clouds, Y), batches(clouds, Y))
    by_lot = linear_probe(built, states, batches(X, Y), batches(X, RNG.permutation(Y)))
    assert seen["f 1"] == 100 and max(by_lot.values()) < 60


def test_what_cannot_be_probed_is_refused() -> None:
    built = model()
    states = lg.init(built, jax.random.key(0))
    given = batches(X, Y)
    with pytest.raises(ValueError, match="this model is of 2 trials"):
        linear_probe(lg.trials(built, 2), states, given, given)
    with pytest.raises(ValueError, match="this model is for regression"):
        linear_probe(built._replace(task=lg.regression(2)), states, given, given)
    with pytest.raises(ValueError, match="ridge is above 0, and pool at least 1 or None; got 0.0 and 2048"):
        linear_probe(built, states, given, given, ridge=0.0)
    with pytest.raises(ValueError, match="there is nothing to probe"):
        linear_probe(built, states, [], given)
