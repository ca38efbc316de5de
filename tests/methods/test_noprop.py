"""NoProp restated in numpy; its blocks learn in any order, and its prediction is the chain that it says."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import Key, Model
from localgrad.blocks import mlp
from localgrad.keys import block_key
from localgrad.methods import noprop
from localgrad.methods.noprop import signals
from localgrad.pipeline import sequential
from localgrad.pipeline.step import forward

BATCH, CLASSES, RATE, STEPS, HIDDEN = 6, 3, 0.1, 3, 7
SPEC = jax.ShapeDtypeStruct((BATCH, 5), jnp.float64)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, BATCH, 5)), RNG.integers(0, CLASSES, (2, BATCH)).astype(np.int32)

pytestmark = pytest.mark.usefixtures("x64")


def make(steps: int = STEPS, **options) -> Model:
    network = mlp((4, 6), activation="tanh")
    return noprop(network, SPEC, CLASSES, tx=optax.sgd(RATE), steps=steps, hidden=HIDDEN, **options)


def dense(x: np.ndarray, layer: dict) -> np.ndarray:
    return x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


def step_key(block: int) -> Key:
    """The key of a block on the first batch, whose noise is drawn from it under its own number."""
    return block_key(jax.random.key(4), jnp.int32(0), block)


@pytest.mark.parametrize(("weights", "steps"), [("snr", STEPS), ("one", 2)])
def test_one_step_restated(weights: str, steps: int, random_states: Callable, as_batches: Callable) -> None:
    model = make(steps, weights=weights, eta=0.2)
    states = random_states(model)
    engine = sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(4)), as_batches(X[:1], Y[:1]))
    signal, target = signals(steps), np.eye(CLASSES)[Y[0]]
    for t, (before, after) in enumerate(zip(states, engine.states(state), strict=True)):
        noise = np.asarray(jax.random.normal(jax.random.fold_in(step_key(t), 0x6E6F6973), target.shape, jnp.float64))
        f, head = before.params["f"], before.params["head"]
        h_1 = np.tanh(dense(X[0], f["0"]["Dense_0"]))
        h_2 = np.tanh(dense(h_1, f["1"]["Dense_0"]))
        read = np.concatenate([h_2, np.sqrt(signal[t]) * target + np.sqrt(1 - signal[t]) * noise], axis=1)
        hidden = dense(read, head["Dense_0"])
        away = dense(np.maximum(hidden, 0), head["Dense_1"]) - target
        ratios = signal / (1 - signal)
        weight = 0.2 * steps / 2 * (ratios[t + 1] - ratios[t]) if weights == "snr" else 1.0
        np.testing.assert_allclose(metrics.values[t]["loss"][0], weight * (away**2).sum(1).mean(), rtol=1e-13)
        d_out = weight * 2 * away / BATCH
        d_hidden = d_out @ np.asarray(head["Dense_1"]["kernel"]).T * (hidden > 0)
        d_2 = (d_hidden @ np.asarray(head["Dense_0"]["kernel"]).T)[:, :6] * (1 - h_2**2)
        d_1 = d_2 @ np.asarray(f["1"]["Dense_0"]["kernel"]).T * (1 - h_1**2)
        for own, old, below, error in (
            (after.params["head"]["Dense_1"], head["Dense_1"], np.maximum(hidden, 0), d_out),
            (after.params["head"]["Dense_0"], head["Dense_0"], read, d_hidden),
            (after.params["f"]["1"]["Dense_0"], f["1"]["Dense_0"], h_1, d_2),
            (after.params["f"]["0"]["Dense_0"], f["0"]["Dense_0"], X[0], d_1),
        ):
            np.testing.assert_allclose(own["kernel"], old["kernel"] - RATE * below.T @ error, rtol=0, atol=1e-12)
            np.testing.assert_allclose(own["bias"], old["bias"] - RATE * error.sum(0), rtol=0, atol=1e-12)


def test_blocks_learn_in_any_order_to_the_same_bits(random_states: Callable, as_batches: Callable) -> None:
    """The last block on all batches first, each on the input alone, against the engine's order."""
    model = make(2)
    states = random_states(model)
    engine = sequential(model)
    state, _ = engine.run(engine.load(states, jax.random.key(4)), as_batches(X, Y))
    expected = engine.states(state)
    learn = lambda i, *given: forward(model.blocks[i], *given, jnp.array(True)).state
    run = jax.jit(learn, static_argnums=0)
    for i in reversed(range(len(states))):
        own = states[i]
        for batch in range(2):
            message = model.enter(jnp.asarray(X[batch]), jnp.asarray(Y[batch]))
            own = run(i, own, message, block_key(jax.random.key(4), jnp.int32(batch), i))
        jax.tree.map(np.testing.assert_array_equal, own.params, expected[i].params)
    message = model.enter(jnp.asarray(X[0]), jnp.asarray(Y[0]))
    passed = jax.jit(model.blocks[0].forward)(states[0], message, jax.random.key(0)).message
    jax.tree.map(np.testing.assert_array_equal, passed, message)


def test_prediction_is_a_chain(random_states: Callable) -> None:
    model = make()
    states, signal = random_states(model), signals(STEPS)
    z, noise = np.zeros((BATCH, CLASSES)), np.zeros((BATCH, CLASSES))
    for t, state in enumerate(states):
        f, head = state.params["f"], state.params["head"]
        features = np.tanh(dense(np.tanh(dense(X[0], f["0"]["Dense_0"])), f["1"]["Dense_0"]))
        read = np.concatenate([features, z], axis=1)
        seen = dense(np.maximum(dense(read, head["Dense_0"]), 0), head["Dense_1"])
        np.testing.assert_allclose(model.predict(states, jnp.asarray(X[0]), t + 1), seen, rtol=1e-12)
        noise = (z - np.sqrt(signal[t]) * seen) / np.sqrt(1 - signal[t])
        z = np.sqrt(signal[t + 1]) * seen + np.sqrt(1 - signal[t + 1]) * noise
    np.testing.assert_allclose(model.features(states, jnp.asarray(X[0]))[-1], seen, rtol=1e-12)


def test_signal_grows() -> None:
    for steps in (1, 2, 10):
        found = signals(steps)
        assert len(found) == steps + 1 and found[0] < 1e-3 and found[-1] == 0.99 and (np.diff(found) > 0).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 up; got 0"),
        ({"hidden": 2.5}, "hidden must be a whole number from 1 up; got 2.5"),
        ({"weights": "two"}, "unknown weights 'two' of method 'noprop'; there are snr, one"),
        ({"eta": 0.0}, "eta must be positive and finite; got 0.0"),
    ],
)
def test_refusals(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        noprop(mlp((4,)), SPEC, CLASSES, tx=optax.sgd(RATE), **options)
