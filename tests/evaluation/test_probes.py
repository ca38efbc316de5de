"""Linear probes find what is linear in the features, as ridge regression restated in numpy does, and nothing else."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad.evaluation import linear_probe, probe_floors

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


@cache
def model() -> lg.Model:
    """One for all tests: the library looks at it once."""
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


def test_floors_are_those_of_the_network_as_it_is_drawn_and_of_the_inputs() -> None:
    built, key = model(), jax.random.key(1)
    floors = probe_floors(built, key, batches(X, Y), batches(X, Y))
    assert list(floors) == ["inputs", *built.path]
    drawn = linear_probe(built, lg.init(built, key), batches(X, Y), batches(X, Y))
    assert {name: floors[name] for name in built.path} == drawn
    moved = X + np.float32(9) * np.eye(FEATURES, dtype=np.float32)[Y]  # told apart by the inputs themselves
    assert probe_floors(built, key, batches(moved, Y), batches(moved, Y))["inputs"] == 100
    h = X.astype(np.float64) - X.mean(0)
    code = np.eye(CLASSES)[Y]
    kernel = np.linalg.solve(
        h.T @ h + 1e-3 * np.trace(h.T @ h) / FEATURES * np.eye(FEATURES), h.T @ (code - code.mean(0))
    )
    right = np.argmax(h @ kernel + code.mean(0), axis=1) == Y
    assert floors["inputs"] == pytest.approx(100 * right.mean())


def test_token_ids_are_no_floor() -> None:
    spec = jax.ShapeDtypeStruct((BATCH, 3), jnp.int32)
    texts = lg.early_exit(lg.embedding(words=9, embed_width=4), spec, CLASSES, tx=optax.sgd(0.1))
    given = batches(RNG.integers(0, 9, (COUNT, 3)).astype(np.int32), Y)
    assert list(probe_floors(texts, jax.random.key(0), given, given)) == list(texts.path)


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
