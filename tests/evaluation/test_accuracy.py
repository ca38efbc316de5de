"""Scores at every exit, and what an evaluation says of networks whose predictions depend on the batch."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad.evaluation import make_evaluator


class Centred(nn.Module):
    """Subtracts the mean of the batch, in training and in prediction."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x - jnp.mean(x, axis=0, keepdims=True))


class Honest(nn.Module):
    """A dense layer."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x)


def evaluated(random_states, modules, method=lg.early_exit, dtype=jnp.float32, trials=None):
    """Scores of a fresh model on two batches, the last of which is filled up."""
    spec = jax.ShapeDtypeStruct((6, 3), dtype)
    model = method([lg.from_linen(module()) for module in modules], spec, 3, tx=optax.sgd(0.1))
    if trials:
        model = lg.trials(model, trials)
    rng = np.random.default_rng(0)
    fed = []
    for mask in (np.ones(6, bool), np.arange(6) < 2):
        x = jnp.asarray(rng.normal(size=(6, 3)), dtype)
        fed.append((x, jnp.asarray(rng.integers(0, 3, 6).astype(np.int32)), jnp.asarray(mask)))
    evaluate, states = make_evaluator(model), random_states(model)
    return [evaluate(states, fed) for _ in range(2)]


@pytest.mark.parametrize(("modules", "exit"), [((Centred, Honest), 1), ((Honest, Centred), 2)])
def test_a_prediction_that_depends_on_its_neighbours_is_told_of_once(modules, exit, random_states):
    with pytest.warns(UserWarning, match=f"exit {exit} predicts an example by those beside it") as told:
        evaluated(random_states, modules)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("method", "trials"),
    [
        (lg.early_exit, None),
        (lg.al, None),
        (lg.bp, 2),
        (lg.dfa, 2),
        # Each method and each number of trials is above.
        pytest.param(lg.early_exit, 2, marks=pytest.mark.full),
        pytest.param(lg.al, 2, marks=pytest.mark.full),
        pytest.param(lg.bp, None, marks=pytest.mark.full),
        pytest.param(lg.dfa, None, marks=pytest.mark.full),
    ],
)
def test_of_others_nothing_is_said(method, trials, random_states):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, again = evaluated(random_states, (Honest, Honest), method, trials=trials)
    assert np.array_equal(first, again)


def test_of_trials_any_is_told_of(random_states):
    with pytest.warns(UserWarning, match="exit 1"):
        evaluated(random_states, (Centred, Honest), trials=2)
