"""Deep supervision and Mono-Forward: restated in numpy, and held against their neighbours."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import BlockState, Model
from localgrad.blocks import mlp
from localgrad.methods import bp, deep_supervision, early_exit, mono_forward
from localgrad.pipeline import sequential
from localgrad.pipeline.step import gradients

BATCH, CLASSES, RATE = 6, 3, 0.1
SPEC = jax.ShapeDtypeStruct((BATCH, 5), jnp.float64)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(BATCH, 5)), RNG.integers(0, CLASSES, BATCH).astype(np.int32)

pytestmark = pytest.mark.usefixtures("x64")


def network() -> list:
    return mlp((4, 6), activation="tanh")


def dense(layers: dict, name: str = "Dense_0") -> list[np.ndarray]:
    """Kernel and bias."""
    return [np.asarray(layers[name][part]) for part in ("kernel", "bias") if part in layers[name]]


def errors(scores: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cross-entropy and its gradient."""
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return -np.log(shares[np.arange(BATCH), Y]).mean(), (shares - np.eye(CLASSES)[Y]) / BATCH


def one_step(model: Model, states: tuple[BlockState, ...], as_batches: Callable):
    engine = sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(0)), as_batches(X[None], Y[None]))
    return engine.states(state), [float(values["loss"][0]) for values in metrics.values]


def close(ours, theirs) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("make", [deep_supervision, mono_forward])
def test_one_step_restated(make: Callable, random_states: Callable, as_batches: Callable) -> None:
    share = 0.3
    options = {"weight": share} if make is deep_supervision else {}
    model = make(network(), SPEC, CLASSES, tx=optax.sgd(RATE), **options)
    states = random_states(model)
    found, losses = one_step(model, states, as_batches)
    (w_1, b_1), (w_2, b_2) = (dense(state.params["f"]) for state in states)
    heads = [dense(state.params["head"]) for state in states]
    assert [len(head) for head in heads] == [2 if make is deep_supervision else 1] * 2
    h_1 = np.tanh(X @ w_1 + b_1)
    h_2 = np.tanh(h_1 @ w_2 + b_2)
    own = [errors(h @ head[0] + (head[1] if head[1:] else 0)) for h, head in zip((h_1, h_2), heads, strict=True)]
    d_2 = own[1][1] @ heads[1][0].T * (1 - h_2**2)
    if make is deep_supervision:
        own[0] = (own[1][0] + share * own[0][0], share * own[0][1])
        d_1 = (own[0][1] @ heads[0][0].T + d_2 @ w_2.T) * (1 - h_1**2)
    else:
        d_1 = own[0][1] @ heads[0][0].T * (1 - h_1**2)
    close(losses, [loss for loss, _ in own])
    for state, w, b, below, h, d, head, (_, error) in zip(
        found, (w_1, w_2), (b_1, b_2), (X, h_1), (h_1, h_2), (d_1, d_2), heads, own, strict=True
    ):
        for new, old in zip(dense(state.params["f"]), (w - RATE * below.T @ d, b - RATE * d.sum(0)), strict=True):
            close(new, old)
        expected = [head[0] - RATE * h.T @ error, *[bias - RATE * error.sum(0) for bias in head[1:]]]
        for new, old in zip(dense(state.params["head"]), expected, strict=True):
            close(new, old)


def grads_of(model: Model, states: tuple[BlockState, ...]) -> list[dict]:
    keys = [jax.random.key(i) for i in range(len(model.blocks))]
    run = lambda states: gradients(model, states, model.enter(jnp.asarray(X), jnp.asarray(Y)), keys)
    return [grads for _, grads, _ in jax.jit(run)(states)]


def test_without_weight_it_is_backpropagation_and_it_is_linear_in_it(random_states: Callable) -> None:
    plain = bp(network(), SPEC, CLASSES, tx=optax.sgd(RATE))
    models = [deep_supervision(network(), SPEC, CLASSES, tx=optax.sgd(RATE), weight=w) for w in (0.0, 1.0, 2.0)]
    states = random_states(models[0])
    lower = BlockState(*({"f": part["f"]} for part in states[0][:2]), ())
    expected = grads_of(plain, (lower, states[1]))
    none, once, twice = (grads_of(model, states) for model in models)
    for ours, theirs in zip(none, expected, strict=True):
        jax.tree.map(close, {group: ours[group] for group in theirs}, theirs)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(none[0]["head"]))
    jax.tree.map(lambda a, b, c: close(b - a, c - b), none, once, twice)
    local = grads_of(early_exit(network(), SPEC, CLASSES, tx=optax.sgd(RATE)), states)
    jax.tree.map(close, local[0]["head"], once[0]["head"])  # the same losses; gradients of the lower block differ
    assert any(np.any(np.abs(a - b) > 1e-3) for a, b in zip(*map(jax.tree.leaves, (local[0], once[0])), strict=True))


def test_goodness_is_summed_over_blocks(random_states: Callable) -> None:
    last, summed = (mono_forward(network(), SPEC, CLASSES, tx=optax.sgd(RATE), prediction=p) for p in ("last", "sum"))
    states, x = random_states(last), jnp.asarray(X)
    first, second = (last.predict(states, x, exit) for exit in (1, 2))
    close(summed.predict(states, x, 1), first)
    close(summed.predict(states, x), first + second)
    assert last.effective == ({"f"}, {"f", "head"}) and summed.effective == ({"f", "head"},) * 2


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (deep_supervision, {"weight": -1.0}, "weight is a finite number from 0 up; got -1.0"),
        (deep_supervision, {"weight": float("inf")}, "got inf"),
        (deep_supervision, {"pool": 0}, "pool is a positive number of features"),
        (mono_forward, {"prediction": "first"}, "unknown prediction 'first' of method 'mono_forward'; there are last"),
    ],
)
def test_refusals(make: Callable, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make(network(), SPEC, CLASSES, tx=optax.sgd(RATE), **options)
