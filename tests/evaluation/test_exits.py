"""Calibration and leaving early, on scores whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad import early_exit, init, mlp
from localgrad.evaluation.exits import anytime, anytime_flops, collect, measure_exits, temperatures

LABELS = np.array([0, 1, 0, 1])
# exit 1 is sure and right on the first two, unsure and wrong on the others; exit 2 is right on all
SCORES = np.array(
    [
        [[9.0, 0.0], [0.0, 9.0], [0.0, 0.1], [0.1, 0.0]],
        [[3.0, 0.0], [0.0, 3.0], [3.0, 0.0], [0.0, 3.0]],
    ]
)


@pytest.mark.parametrize(
    ("threshold", "accuracy", "flops", "shares"),
    [(0.0, 50.0, 10.0, (1, 0)), (0.9, 100.0, 20.0, (0.5, 0.5)), (1.1, 100.0, 30.0, (0, 1))],
)
def test_leaving_at_the_first_exit_that_is_sure(threshold, accuracy, flops, shares):
    (row,) = anytime(SCORES, LABELS, np.ones(2), [10.0, 30.0], [threshold])
    assert (row.threshold, row.accuracy, row.flops, row.shares) == (threshold, accuracy, flops, shares)


def test_temperature_finds_the_scale_of_the_scores():
    """Labels drawn from softmax(z): scores 5 z want a temperature of 5, z / 2 of a half."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20000, 3))
    probabilities = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    labels = (rng.random((len(z), 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    np.testing.assert_allclose(temperatures(np.stack([5 * z, z / 2]), labels), [5, 0.5], rtol=0.05)


def test_measures_of_a_network():
    spec = jax.ShapeDtypeStruct((8, 16), jnp.float32)
    model = early_exit(mlp((32, 24)), spec, 3, tx=optax.sgd(0.1))
    states = init(model, jax.random.key(0))
    x, y = jnp.asarray(np.random.default_rng(0).normal(size=(8, 16)), jnp.float32), jnp.arange(8) % 3
    mask = jnp.arange(8) < 5
    scores, labels = collect(model, states, [(x, y, mask), (x, y, ~mask)])
    assert scores.shape == (2, 8, 3)
    np.testing.assert_array_equal(labels, y)  # five of the first batch, three of the second
    np.testing.assert_allclose(scores[1], model.predict(states, x), rtol=1e-5, atol=1e-6)
    first, last = measure_exits(model, states, scores, labels, x)
    assert (first.exit, last.exit) == (1, 2)
    assert first.score == 100 * np.mean(scores[0].argmax(1) == labels)
    assert 2 * 16 * 32 < first.flops < last.flops
    assert first.seconds > 0
    both = anytime_flops(model, states, x)
    # trying both exits costs both heads, but the first block once
    assert both[0] == first.flops
    assert last.flops < both[1] < first.flops + last.flops
