"""Local critic training: one step restated in numpy, who hears of whom, calibrated critics, exits, and refusals."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad.base import BlockState, Model
from localgrad.blocks import cnn, mlp
from localgrad.methods import METHODS, critic
from localgrad.methods.critic import losses_of_examples
from localgrad.pipeline import sequential, specs
from localgrad.pipeline.step import gradients
from localgrad.report import largest_difference
from localgrad.testing import check_model

BATCH, FEATURES, CLASSES, RATE = 6, 5, 3, 0.1
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(BATCH, FEATURES)), np.array([0, 2, 1, 1, 0, 2], np.int32)
SPEC = jax.ShapeDtypeStruct((BATCH, FEATURES), jnp.float64)

pytestmark = pytest.mark.usefixtures("x64")
States = tuple[BlockState, ...]


def tiny(tx: Any = None, **options: Any) -> Model:
    network = mlp((6, 5, 4), activation="tanh")
    return critic(network, SPEC, CLASSES, tx=optax.sgd(RATE) if tx is None else tx, **{"hidden": 4, **options})


def test_one_step_restated_in_numpy(as_batches: Callable, random_states: Callable) -> None:
    model = tiny()
    states = random_states(model)
    engine = sequential(model)
    state, metrics = engine.run(engine.load(states, jax.random.key(0)), as_batches(X[None], Y[None]))
    found = engine.states(state)

    dense = lambda x, layer: x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    x, passed = X, []
    for own in states:
        h = np.tanh(dense(x, own.params["f"]["Dense_0"]))
        layers = own.params.get("critic", own.params.get("head"))
        z = dense(h, layers["Dense_0"])
        a = np.maximum(z, 0) if "Dense_1" in layers else h
        scores = dense(a, layers["Dense_1"]) if "Dense_1" in layers else z
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        passed.append((x, h, z, a, p - np.eye(CLASSES)[Y], -np.log(p[np.arange(BATCH), Y])))
        x = h
    losses = np.stack([each[-1] for each in passed])
    apart = losses[:-1] - losses[1:]
    assert np.any(apart > 0) and np.any(apart < 0)
    expected = [losses[i].mean() + (np.abs(apart[i]).mean() if i < 2 else 0) for i in range(3)]
    np.testing.assert_allclose([values["loss"][0] for values in metrics.values], expected, atol=1e-12)
    for i, (before, after) in enumerate(zip(states, found, strict=True)):
        moved = jax.tree.map(lambda a, b: (np.asarray(a) - np.asarray(b)) / RATE, before.params, after.params)
        x, h, z, a, e, _ = passed[i]
        layers = before.params.get("critic", before.params.get("head"))
        kernel = lambda name, layers=layers: np.asarray(layers[name]["kernel"])
        if i < 2:
            down = ((e @ kernel("Dense_1").T) * (z > 0)) @ kernel("Dense_0").T
            sign = np.sign(apart[i])[:, None] * e / BATCH
            of_critic = moved["critic"]
            np.testing.assert_allclose(of_critic["Dense_1"]["kernel"], a.T @ sign, atol=1e-12)
            hidden = (sign @ kernel("Dense_1").T) * (z > 0)
            np.testing.assert_allclose(of_critic["Dense_0"]["kernel"], h.T @ hidden, atol=1e-12)
            np.testing.assert_allclose(of_critic["Dense_0"]["bias"], hidden.sum(0), atol=1e-12)
        else:
            down = e @ kernel("Dense_0").T
            np.testing.assert_allclose(moved["head"]["Dense_0"]["kernel"], h.T @ e / BATCH, atol=1e-12)
        np.testing.assert_allclose(moved["f"]["Dense_0"]["kernel"], x.T @ (down * (1 - h**2)) / BATCH, atol=1e-12)


def test_who_hears_of_whom(random_states: Callable) -> None:
    """f learns of nothing above it, its critic of the next block alone."""
    model = tiny()
    states = random_states(model)
    keys = [jax.random.key(i) for i in range(3)]

    @jax.jit
    def both(states: States) -> list[dict[str, Any]]:
        """Gradients by block and group; of critics the loss too, as their gradient knows its signs alone."""
        found = gradients(model, states, model.enter(X, jnp.asarray(Y)), keys)
        return [
            {group: (own, metrics["critic"] if group == "critic" else ()) for group, own in grads.items()}
            for _, grads, metrics in found
        ]

    before = both(states)
    for j in range(3):
        for group in states[j].params:
            turned = jax.tree.map(lambda x: -3 * x, states[j].params[group])
            own = states[j]._replace(params={**states[j].params, group: turned})
            after = both((*states[:j], own, *states[j + 1 :]))
            for i in range(3):
                for hearing, old in before[i].items():
                    of_below, of_above = i > j and group == "f", i == j - 1 and hearing == "critic"
                    heard = largest_difference(old, after[i][hearing]) > 0
                    assert i == j or heard == (of_below or of_above), (i, hearing, j, group)


def trained(model: Model, steps: int, as_batches: Callable) -> tuple[States, np.ndarray]:
    """States after so many batches of separable clouds, and the distance that critics kept from what they expect."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, CLASSES, (steps, BATCH)).astype(np.int32)
    x = np.random.default_rng(9).normal(size=(CLASSES, FEATURES))[y] + 0.3 * rng.normal(size=(steps, BATCH, FEATURES))
    engine = sequential(model)
    state, metrics = engine.run(engine.load(lg.init(model, jax.random.key(0)), jax.random.key(0)), as_batches(x, y))
    return engine.states(state), np.stack([values["critic"] for values in metrics.values[:-1]])


def test_critics_come_to_say_what_the_network_above_will_lose(as_batches: Callable) -> None:
    _, apart = trained(tiny({"f+head": optax.sgd(0.05), "critic": optax.adam(1e-2)}), 300, as_batches)
    assert np.all(apart[:, -50:].mean(axis=1) < 0.2 * apart[:, :50].mean(axis=1)), apart


def test_the_published_optimizers() -> None:
    """Main and critics apart: a clip or decay of the one is none of the other, and critics keep Adam's 1e-4."""
    model = METHODS["critic"](mlp((6, 5)), SPEC, CLASSES, lambda scale: optax.sgd(scale))
    assert [sorted(block.tx) for block in model.blocks] == [["critic", "f"], ["f+head"]]
    grads = {"critic": {"x": jnp.ones(())}}
    adam = model.blocks[0].tx["critic"]
    with jax.numpy_dtype_promotion("standard"):
        update, _ = adam.update(grads, adam.init(grads))
    assert float(update["critic"]["x"]) == pytest.approx(-1e-4, rel=1e-6)


@pytest.mark.parametrize(
    ("method", "group"), [("dni", "synthesizer"), ("critic", "critic"), ("dtp", "inverse"), ("direct_tp", "inverse")]
)
def test_what_learns_beside_the_weights_may_have_an_optimizer_of_its_own(method: str, group: str) -> None:
    own = lambda scale: optax.sgd(7.0 * scale)
    model = METHODS[method](mlp((6, 5)), SPEC, CLASSES, lambda scale: optax.sgd(scale), own)
    block = next(block for block in model.blocks if group in block.tx)
    for name, rate in ((group, 7.0), ("f", 1.0)):
        update, _ = block.tx[name].update({"x": jnp.ones(())}, block.tx[name].init({"x": jnp.ones(())}))
        assert float(update["x"]) == -rate


def test_exits_and_their_ensemble(random_states: Callable) -> None:
    alone, together = tiny(), tiny(ensemble=True)
    states = random_states(alone)
    each = [alone.predict(states, jnp.asarray(X), exit) for exit in (1, 2, 3)]
    assert alone.exits == together.exits == (1, 2, 3)
    for exit in (1, 2, 3):
        np.testing.assert_allclose(together.predict(states, jnp.asarray(X), exit), sum(each[:exit]), atol=1e-12)
    np.testing.assert_allclose(together.predict(states, jnp.asarray(X)), sum(each), atol=1e-12)
    weighted = lg.ensemble(alone, ["critic", "critic", "head"], [2.0, 4.0, 8.0])
    expected = 2 * each[0] + 4 * each[1] + 8 * each[2]
    np.testing.assert_allclose(weighted.predict(states, jnp.asarray(X)), expected, atol=1e-12)
    assert alone.effective == ({"f"}, {"f"}, {"f", "head"})
    assert together.effective == ({"f", "critic"}, {"f", "critic"}, {"f", "head"})


def test_losses_of_examples_average_to_the_loss() -> None:
    rng = np.random.default_rng(4)
    for task, scores, y in (
        (lg.classification(3), (5, 3), rng.integers(0, 3, 5).astype(np.int32)),
        (lg.regression(3), (5, 3), rng.normal(size=(5, 3))),
        (lg.multilabel(3), (5, 3), rng.integers(0, 2, (5, 3)).astype(np.int32)),
        (lg.tokens(4), (10, 4), rng.integers(0, 4, (5, 2)).astype(np.int32)),
    ):
        given = jnp.asarray(rng.normal(size=scores))
        found = losses_of_examples(task, given, jnp.asarray(y))
        assert found.shape == scores[:1]
        np.testing.assert_allclose(found.mean(), task.loss(given, jnp.asarray(y)), rtol=1e-12)


def test_layers_of_a_critic() -> None:
    spec = jax.ShapeDtypeStruct((BATCH, 4, 4, 2), jnp.float64)
    make = lambda **options: critic(cnn((3, 4)), spec, CLASSES, tx=optax.sgd(1.0), **options)
    of = lambda **options: specs(make(**options))[0][0].params["critic"]
    kernels = lambda params: {name: own["kernel"].shape for name, own in params.items()}
    assert kernels(of()) == {"Conv_0": (3, 3, 3, 128), "Dense_0": (4 * 4 * 128, CLASSES)}
    pooled = {"Conv_0": (3, 3, 3, 5), "Conv_1": (3, 3, 5, 5), "Dense_0": (20, CLASSES)}
    assert kernels(of(layers=2, hidden=5, pool=20)) == pooled
    assert kernels(of(layers=0)) == {"Dense_0": (4 * 4 * 3, CLASSES)}


@pytest.mark.full
@pytest.mark.parametrize("stages", [1, 3])
def test_the_whole_law(stages: int, random_states: Callable) -> None:
    """Delayed engines equal the sequential one with their delays; `locked` equals none."""
    model = tiny({"f+head": optax.sgd(0.1, momentum=0.9, nesterov=True), "critic": optax.adam(1e-2)})
    check_model(model, states=random_states(model), stages=stages)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": -1}, "layers of method 'critic' is a whole number of at least 0; got -1"),
        ({"hidden": 0}, "hidden of method 'critic' is a whole number of at least 1; got 0"),
        ({"hidden": True}, "hidden of method 'critic' is a whole number of at least 1; got True"),
        ({"pool": 0}, "pool is a positive number of features, or None; got 0"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_an_ensemble_is_of_several_exits() -> None:
    one = critic(mlp((4,)), SPEC, CLASSES, tx=optax.sgd(0.1))
    with pytest.raises(ValueError, match="an ensemble is of several exits, and method 'critic' has one"):
        lg.ensemble(one, ["head"])
    with pytest.raises(ValueError, match="weights are one an exit, of which there are 3; got 2"):
        lg.ensemble(tiny(), ["critic", "critic", "head"], [1.0, 2.0])
    with pytest.raises(ValueError, match="heads are one an exit, of which there are 3; got 1"):
        lg.ensemble(tiny(), ["critic"])
