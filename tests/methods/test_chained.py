"""Sign-symmetric feedback, restated and held against backpropagation; `test_feedback.py` has its relatives."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import Model
from localgrad.blocks import mlp, resnet
from localgrad.methods import bp, usf
from localgrad.pipeline import sequential
from localgrad.pipeline.step import gradients

BATCH, CLASSES, RATE = 6, 3, 0.1
SPEC = jax.ShapeDtypeStruct((BATCH, 5), jnp.float64)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(BATCH, 5)), RNG.integers(0, CLASSES, BATCH).astype(np.int32)

pytestmark = pytest.mark.usefixtures("x64")


def network(blocks: int | None = None) -> list:
    return mlp((4, 6), activation="tanh", blocks=blocks)


def test_one_step_restated(random_states: Callable, as_batches: Callable) -> None:
    """Every entry of the way back is the sign of the weight, as large as the root mean square of all of them."""
    model = usf(network(), SPEC, CLASSES, tx=optax.sgd(RATE))
    states = random_states(model)
    engine = sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(0)), as_batches(X[None], Y[None]))

    layers = [np.asarray(leaf) for s in states for leaf in jax.tree.leaves(s.params)]
    biases, kernels = layers[::2], layers[1::2]
    outputs = [X]
    for bias, kernel in zip(biases[:2], kernels[:2], strict=True):
        outputs.append(np.tanh(outputs[-1] @ kernel + bias))
    scores = outputs[-1] @ kernels[2] + biases[2]
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    loss = -np.log(shares[np.arange(BATCH), Y]).mean()
    error = (shares - np.eye(CLASSES)[Y]) / BATCH
    expected = []
    for i in (2, 1, 0):
        expected = [biases[i] - RATE * error.sum(0), kernels[i] - RATE * outputs[i].T @ error, *expected]
        signs = np.sqrt(np.mean(kernels[i] ** 2)) * np.sign(kernels[i])
        error = error @ signs.T * (1 - outputs[i] ** 2)
    found = [leaf for s in engine.states(state) for leaf in jax.tree.leaves(s.params)]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)
    np.testing.assert_allclose(metrics.values[0]["loss"][0], loss, rtol=1e-14)


def grads_of(model: Model, states: tuple, x: np.ndarray) -> list[dict]:
    keys = [jax.random.key(i) for i in range(len(model.blocks))]
    run = lambda states: gradients(model, states, model.enter(jnp.asarray(x), jnp.asarray(Y)), keys)
    return [grads for _, grads, _ in jax.jit(run)(states)]


@pytest.mark.parametrize("net", ["two layers a block", pytest.param("residuals", marks=pytest.mark.full)])
def test_weights_of_one_size_make_it_backpropagation(net: str, random_states: Callable) -> None:
    """Where all weights of a layer are plus or minus the same number, they are their own feedback; and only there."""
    images = jax.ShapeDtypeStruct((BATCH, 8, 8, 1), jnp.float64)
    blocks = network(1) if net == "two layers a block" else resnet("resnet20", width_factor=1 / 8, blocks=3)
    spec = SPEC if net == "two layers a block" else images
    ours, theirs = usf(blocks, spec, CLASSES, tx=optax.sgd(RATE)), bp(blocks, spec, CLASSES, tx=optax.sgd(RATE))
    x = np.random.default_rng(1).normal(size=spec.shape)
    states = random_states(ours)
    for alike in (True, False):
        flat = lambda w: jnp.sign(w) * 0.3 if w.ndim > 1 else w
        own = tuple(s._replace(params=jax.tree.map(flat, s.params)) if alike else s for s in states)
        top = own[-2]._replace(
            params=own[-2].params | own[-1].params, model_state=own[-2].model_state | own[-1].model_state
        )
        found, expected = grads_of(ours, own, x), grads_of(theirs, (*own[:-2], top), x)
        distance = max(
            float(np.abs(a - b).max())
            for mine, other in zip(found[:-1], expected, strict=True)
            for a, b in zip(*map(jax.tree.leaves, (mine["f"], other["f"])), strict=True)
        )
        assert distance < 1e-12 if alike else distance > 1e-4
