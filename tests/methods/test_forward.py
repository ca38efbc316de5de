"""Forward-Forward restated in numpy; its pairs, its prediction, and what it refuses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.blocks import mlp
from localgrad.methods import ff
from localgrad.pipeline import sequential
from localgrad.tasks import regression

BATCH, CLASSES, RATE, THETA = 6, 3, 0.1, 0.5
SPEC = jax.ShapeDtypeStruct((BATCH, 5), jnp.float64)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(BATCH, 5)), RNG.integers(0, CLASSES, BATCH).astype(np.int32)

pytestmark = pytest.mark.usefixtures("x64")


def network() -> list:
    return mlp((4, 6), activation="tanh")


def labelled(labels: np.ndarray, scale: float = 1.0) -> np.ndarray:
    return np.concatenate([scale * np.eye(CLASSES)[labels], X[:, CLASSES:]], axis=1)


def kernels(states: tuple) -> list[tuple[np.ndarray, np.ndarray]]:
    layers = [state.params["f"]["Dense_0"] for state in states]
    return [(np.asarray(layer["kernel"]), np.asarray(layer["bias"])) for layer in layers]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def over_size(h: np.ndarray) -> np.ndarray:
    return h / np.sqrt((h**2).mean(1, keepdims=True) + 1e-8)


def test_one_step_restated(random_states: Callable, as_batches: Callable) -> None:
    """The false labels are read off what the first block hands on; everything else is written out here."""
    model = ff(network(), SPEC, CLASSES, tx=optax.sgd(RATE), threshold=THETA, label_scale=2.0)
    states = random_states(model)
    engine = sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(0)), as_batches(X[None], Y[None]))
    layers, found = kernels(states), kernels(engine.states(state))

    def after_one_step(false: np.ndarray) -> tuple[list, list]:
        x = {True: labelled(Y, 2.0), False: labelled(false, 2.0)}
        new, losses = [], []
        for w, b in layers:
            d_w, d_b, loss = np.zeros_like(w), np.zeros_like(b), 0.0
            for true in x:
                h = np.tanh(x[true] @ w + b)
                sign = -1 if true else 1
                away = sign * ((h**2).mean(1) - THETA)
                loss += np.log1p(np.exp(away)).mean()
                d_h = (sign * sigmoid(away) / BATCH)[:, None] * 2 * h / h.shape[1]
                d = d_h * (1 - h**2)
                d_w, d_b = d_w + x[true].T @ d, d_b + d.sum(0)
                x[true] = over_size(h)
            new.append((w - RATE * d_w, b - RATE * d_b))
            losses.append(loss)
        return new, losses

    matches = 0
    for code in range(2**BATCH):  # which of the two other labels each example has
        false = (Y + 1 + np.array([code >> i & 1 for i in range(BATCH)])) % CLASSES
        new, losses = after_one_step(false)
        distance = max(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(new), strict=True))
        if distance < 1e-13:
            matches += 1
            np.testing.assert_allclose([float(v["loss"][0]) for v in metrics.values], losses, rtol=1e-13)
    assert matches == 1


def test_false_labels_are_never_true_and_depend_on_the_key(random_states: Callable) -> None:
    """A block whose output is its input shows the labels."""
    model = ff(network(), SPEC, CLASSES, tx=optax.sgd(RATE))
    state = random_states(model)[0]
    identity = {"Dense_0": {"kernel": jnp.eye(5, 4) * 1e-3, "bias": jnp.zeros(4)}}
    message, run = model.enter(jnp.asarray(X), jnp.asarray(Y)), jax.jit(model.blocks[0].forward)
    seen = []
    for key in range(20):
        made = run(state._replace(params={"f": identity}), message, jax.random.key(key))
        pairs = np.asarray(made.message["x"]).reshape(BATCH, 2, 4)[..., :CLASSES].argmax(-1)
        assert (pairs[:, 0] == Y).all() and (pairs[:, 1] != Y).all()
        seen.append(pairs[:, 1])
    counts = np.bincount(((np.array(seen) - Y) % CLASSES).ravel(), minlength=CLASSES)
    assert counts[0] == 0 and min(counts[1:]) > 0.35 * counts.sum()


def test_prediction_is_the_sum_of_goodness_over_blocks(random_states: Callable) -> None:
    model = ff(network(), SPEC, CLASSES, tx=optax.sgd(RATE))
    states = random_states(model)
    expected = np.zeros((len(network()), BATCH, CLASSES))
    for label in range(CLASSES):
        x, total = labelled(np.full(BATCH, label)), np.zeros(BATCH)
        for i, (w, b) in enumerate(kernels(states)):
            h = np.tanh(x @ w + b)
            total = total + (h**2).mean(1)
            expected[i, :, label], x = total, over_size(h)
    for exit in model.exits:
        found = model.predict(states, jnp.asarray(X), exit)
        np.testing.assert_allclose(found, expected[exit - 1], rtol=1e-13)
    one = model.predict(states, jnp.asarray(X[:1]))
    np.testing.assert_allclose(one, expected[-1, :1], rtol=1e-13)
    *outputs, scores = model.features(states, jnp.asarray(X))
    assert [output.shape for output in outputs] == [(BATCH, 4), (BATCH, 6)]
    np.testing.assert_allclose(scores, expected[-1], rtol=1e-13)


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "says"),
    [
        ((BATCH, 2), jnp.float64, {}, r"labels of 3 classes into the first numbers of an input, and these are \(2,\)"),
        ((BATCH, 5), jnp.int32, {}, "of int32: it takes as many floating numbers or more"),
        ((BATCH, 5), jnp.float64, {"threshold": 0.0}, "threshold must be positive and finite; got 0.0"),
        ((BATCH, 5), jnp.float64, {"label_scale": float("inf")}, "label_scale must be positive and finite; got inf"),
    ],
)
def test_refusals(shape: tuple, dtype: type, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ff(network(), jax.ShapeDtypeStruct(shape, dtype), CLASSES, tx=optax.sgd(RATE), **options)


def test_what_has_no_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="it holds labels against false ones"):
        ff(network(), SPEC, regression(2), tx=optax.sgd(RATE))
