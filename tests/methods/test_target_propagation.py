"""Target propagation: the paper's pseudo-gradient, one step restated in numpy, who hears of whom, and refusals."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from localgrad.base import BlockState, Model
from localgrad.blocks import bilstm, cnn, from_linen, mlp
from localgrad.methods import METHODS, dfa, direct_tp, dtp
from localgrad.methods.target_propagation import _NOISE
from localgrad.pipeline import sequential, specs
from localgrad.pipeline.step import gradients
from localgrad.report import largest_difference
from localgrad.testing import check_model

BATCH, FEATURES, CLASSES, RATE, ETA, NOISE = 6, 5, 3, 0.1, 0.3, 0.2
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(BATCH, FEATURES)), np.array([0, 2, 1, 1, 0, 2], np.int32)
SPEC = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float64)

pytestmark = pytest.mark.usefixtures("x64")
States = tuple[BlockState, ...]


def tiny(make: Callable[..., Model] = dtp, **options: Any) -> Model:
    return make(mlp((6, 5, 4), activation="tanh"), SPEC, CLASSES, **{"tx": optax.sgd(RATE), "eta": ETA, **options})


def linear(width: int):
    return from_linen(linen.Dense(width, use_bias=False), name=f"linear{width}")


def moments_of(model: Model) -> Callable[[States], list[dict[str, Any]]]:
    """Every block's gradients, of one set of parameters, as a function that is compiled once."""
    keys = [jax.random.key(i) for i in range(len(model.blocks))]
    return jax.jit(lambda states: [own for _, own, _ in gradients(model, states, model.enter(X, jnp.asarray(Y)), keys)])


def array(tree: Any, name: str = "kernel") -> np.ndarray:
    return np.asarray(tree["Dense_0"][name] if "Dense_0" in tree else tree[name])


def dense(x: np.ndarray, params: Any) -> np.ndarray:
    return x @ array(params) + array(params, "bias")


def test_with_exact_inverses_a_linear_network_descends_the_pseudo_gradient(random_states: Callable) -> None:
    """h_l is to move by -eta J^-1 times the gradient at the top, J being that of all blocks above it: Gauss-Newton."""
    model = dtp([linear(FEATURES)] * 3, SPEC, CLASSES, tx=optax.sgd(RATE), activation="linear", eta=ETA)
    states = list(random_states(model))
    for i in (1, 2):
        kernel = np.linalg.inv(array(states[i].params["f"]))
        exact = {"Dense_0": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(FEATURES)}}
        states[i] = states[i]._replace(params={**states[i].params, "inverse": exact})
    found = moments_of(model)(tuple(states))
    weights, xs = [array(state.params["f"]) for state in states[:3]], [X]
    for weight in weights:
        xs.append(xs[-1] @ weight)
    scores = dense(xs[-1], states[3].params["head"])
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    gradient = (p - np.eye(CLASSES)[Y]) @ array(states[3].params["head"]).T  # of an example's own loss
    for i in (2, 1, 0):
        above = np.linalg.multi_dot([np.eye(FEATURES), *weights[i + 1 :], np.eye(FEATURES)])
        expected = xs[i].T @ (2 * ETA * gradient @ np.linalg.inv(above)) / BATCH
        np.testing.assert_allclose(array(found[i]["f"]), expected, atol=1e-12)


def test_one_step_of_dtp_restated_in_numpy(as_batches: Callable, random_states: Callable) -> None:
    model = tiny(noise=NOISE)
    states = random_states(model)
    engine, key = sequential(model), jax.random.key(0)
    state, metrics = engine.run(engine.load(states, key), as_batches(X[None], Y[None]))
    found = engine.states(state)

    xs = [X]
    for own in states[:3]:
        xs.append(np.tanh(dense(xs[-1], own.params["f"])))
    moved = [
        jax.tree.map(lambda a, b: (np.asarray(a) - np.asarray(b)) / RATE, before.params, after.params)
        for before, after in zip(states, found, strict=True)
    ]
    losses = [0.0] * 4
    for i in (1, 2):  # the inverses, at once
        own_key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, 0), i), _NOISE)
        noisy = xs[i] + NOISE * np.asarray(jax.random.normal(own_key, xs[i].shape, jnp.float64))
        seen = np.tanh(dense(noisy, states[i].params["f"]))
        back = np.tanh(dense(seen, states[i].params["inverse"]))
        delta = 2 * (back - noisy) * (1 - back**2) / BATCH
        np.testing.assert_allclose(array(moved[i]["inverse"]), seen.T @ delta, atol=1e-12)
        np.testing.assert_allclose(array(moved[i]["inverse"], "bias"), delta.sum(0), atol=1e-12)
        losses[i] = ((back - noisy) ** 2).sum() / BATCH
    scores = dense(xs[3], states[3].params["head"])
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    e = p - np.eye(CLASSES)[Y]
    np.testing.assert_allclose(array(moved[3]["head"]), xs[3].T @ e / BATCH, atol=1e-12)
    losses[3] = -np.log(p[np.arange(BATCH), Y]).mean()
    target = xs[3] - ETA * e @ array(states[3].params["head"]).T
    for i in (2, 1, 0):  # the features, on the way down
        h = xs[i + 1]
        delta = 2 * (h - target) * (1 - h**2) / BATCH
        np.testing.assert_allclose(array(moved[i]["f"]), xs[i].T @ delta, atol=1e-12)
        np.testing.assert_allclose(array(moved[i]["f"], "bias"), delta.sum(0), atol=1e-12)
        losses[i] += ((h - target) ** 2).sum() / BATCH
        if i:  # through the inverses that have learnt from this batch
            undo = lambda h, i=i: np.tanh(dense(h, found[i].params["inverse"]))
            target = xs[i] + undo(target) - undo(h)
    np.testing.assert_allclose([values["loss"][0] for values in metrics.values], losses, atol=1e-12)


def test_one_step_of_direct_tp_restated_in_numpy(as_batches: Callable, random_states: Callable) -> None:
    model = tiny(direct_tp, activation="tanh")
    states = random_states(model)
    engine = sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(0)), as_batches(X[None], Y[None]))
    xs = [X]
    for own in states[:3]:
        xs.append(np.tanh(dense(xs[-1], own.params["f"])))
    scores = dense(xs[3], states[3].params["head"])
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    e = p - np.eye(CLASSES)[Y]
    for i, (before, after) in enumerate(zip(states[:3], engine.states(state), strict=False)):
        moved = jax.tree.map(lambda a, b: (np.asarray(a) - np.asarray(b)) / RATE, before.params, after.params)
        undo = lambda s, before=before: np.tanh(dense(s, before.params["inverse"]))
        h, back = xs[i + 1], undo(scores)
        away = back - undo(scores - ETA * e)
        np.testing.assert_allclose(array(moved["f"]), xs[i].T @ (2 * away * (1 - h**2)) / BATCH, atol=1e-12)
        delta = 2 * (back - h) * (1 - back**2) / BATCH
        np.testing.assert_allclose(array(moved["inverse"]), scores.T @ delta, atol=1e-12)
        expected = ((away**2).sum() + ((back - h) ** 2).sum()) / BATCH
        np.testing.assert_allclose(metrics.values[i]["loss"][0], expected, atol=1e-12)


def test_direct_tp_with_linear_inverses_is_direct_feedback(random_states: Callable) -> None:
    """Of 2 eta times their kernels."""
    ours, theirs = tiny(direct_tp), dfa(mlp((6, 5, 4), activation="tanh"), SPEC, CLASSES, tx=optax.sgd(RATE))
    states = random_states(ours)
    feedback = lambda state: {"kernel": 2 * ETA * state.params["inverse"]["Dense_0"]["kernel"]}
    own = [
        state._replace(
            params={"f": state.params["f"], "feedback": feedback(state)}, model_state={"f": {}, "feedback": {}}
        )
        for state in states[:3]
    ]
    of_dfa = moments_of(theirs)((*own, states[3]))
    for mine, other in zip(moments_of(ours)(states), of_dfa, strict=True):
        for group in set(other) & set(mine):
            assert largest_difference(mine[group], other[group]) < 1e-12


@pytest.mark.parametrize("make", [dtp, direct_tp])
def test_who_hears_of_whom(make: Callable, random_states: Callable) -> None:
    """Inverses of `dtp` hear of nobody above; f of all that its target came through; all hear of the features below."""
    model = tiny(make)
    states = random_states(model)
    moments = moments_of(model)
    before = moments(states)
    for j in range(4):
        for group in states[j].params:
            turned = jax.tree.map(lambda x: -3 * x, states[j].params[group])
            own = states[j]._replace(params={**states[j].params, group: turned})
            after = moments((*states[:j], own, *states[j + 1 :]))
            for i in range(4):
                for hearing, old in before[i].items():
                    of_above = i < j and (group != "inverse" if make is direct_tp else hearing == "f")
                    heard = largest_difference(old, after[i][hearing]) > 0
                    assert i == j or heard == (of_above or (i > j and group == "f")), (i, hearing, j, group)


def test_inverses_of_images(random_states: Callable) -> None:
    """A convolution behind an enlargement; where images become vectors, a dense layer."""
    spec = jax.ShapeDtypeStruct((BATCH, 4, 4, 2), jnp.float64)
    model = dtp([*cnn((3, 4)), *mlp((5,))], spec, CLASSES, tx=optax.sgd(RATE))
    shapes = [{k: v["kernel"].shape for k, v in s.params.get("inverse", {}).items()} for s in specs(model)[0]]
    assert shapes == [{}, {"Conv_0": (3, 3, 4, 3)}, {"Dense_0": (5, 2 * 2 * 4)}, {}]
    keys = [jax.random.key(i) for i in range(4)]
    message = model.enter(jnp.asarray(RNG.normal(size=spec.shape)), jnp.asarray(Y))
    found = jax.jit(lambda states: [own for _, own, _ in gradients(model, states, message, keys)])(random_states(model))
    assert all(np.any(leaf) for own in found for leaf in jax.tree.leaves(own))


def test_inverses_keep_their_published_rate() -> None:
    for method, now in (("dtp", ["f"]), ("direct_tp", ["f", "inverse"])):
        model = METHODS[method](mlp((6, 5)), SPEC, CLASSES, lambda scale: optax.sgd(scale))
        assert [sorted(block.tx) for block in model.blocks] == [now, ["f", "inverse"], ["head"]]


@pytest.mark.full
@pytest.mark.parametrize("make", [dtp, direct_tp])
@pytest.mark.parametrize("stages", [1, 3])
def test_the_whole_law(make: Callable, stages: int, random_states: Callable) -> None:
    model = tiny(make, tx={"f+head": optax.sgd(0.1, momentum=0.9), "inverse": optax.adam(1e-2)})
    check_model(model, states=random_states(model), stages=stages)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (dtp, {"activation": "sine"}, "unknown activation 'sine' of method 'dtp'; there are linear, elu"),
        (direct_tp, {"activation": "sine"}, "unknown activation 'sine' of method 'direct_tp'; there are linear, elu"),
        (dtp, {"eta": 0.0}, "eta of method 'dtp' is above 0, and noise at least 0; got 0.0 and"),
        (direct_tp, {"eta": -1.0}, "eta of method 'direct_tp' is above 0"),
        (dtp, {"noise": -0.1}, "eta of method 'dtp' is above 0, and noise at least 0; got 0.3 and -0.1"),
        (dtp, {"noise": float("nan")}, "got 0.3 and nan"),
    ],
)
def test_bad_options_are_refused(make: Callable, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(make, **options)


def test_sequences_are_not_inverted() -> None:
    spec = jax.ShapeDtypeStruct((BATCH, 7), jnp.int32)
    with pytest.raises(ValueError, match="method 'dtp' inverts blocks of vectors and images, and .* use direct_tp"):
        dtp(bilstm(9, widths=(4, 4), embed_width=4), spec, CLASSES, tx=optax.sgd(RATE))
