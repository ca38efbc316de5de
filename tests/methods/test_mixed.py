"""Mixed errors: at no share the rule itself, at a whole one direct feedback alignment, and linear in between."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import Model
from localgrad.blocks import mlp
from localgrad.methods import (
    al,
    bp,
    dfa,
    dgl,
    early_exit,
    ff,
    freeze,
    gim,
    mixed_error,
    noprop,
    predsim,
    rotation,
    scl,
    trials,
)
from localgrad.methods.registry import METHODS
from localgrad.pipeline import sequential
from localgrad.pipeline.step import gradients
from localgrad.report import largest_difference, weight_cosines

BATCH, CLASSES, RATE = 6, 3, 0.1
SPEC = jax.ShapeDtypeStruct((BATCH, 5), jnp.float64)
IMAGES = jax.ShapeDtypeStruct((BATCH, 8, 8, 1), jnp.float64)
TX = optax.sgd(RATE)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, BATCH, 5)), np.array([[0, 1, 2, 0, 1, 1], [2, 2, 0, 1, 0, 1]], np.int32)

pytestmark = pytest.mark.usefixtures("x64")


def make(rule: Callable, **options) -> Model:
    return rule(mlp((4, 6), activation="tanh", dropout=0.2), SPEC, CLASSES, tx=TX, **options)


def grads_of(model: Model, states: tuple, x: np.ndarray) -> list[dict]:
    keys = [jax.random.key(i) for i in range(len(model.blocks))]
    run = lambda states: gradients(model, states, model.enter(jnp.asarray(x), jnp.asarray(Y[0])), keys)
    return [grads for _, grads, _ in jax.jit(run)(states)]


def without_feedback(states: tuple) -> tuple:
    drop = lambda groups: {group: value for group, value in groups.items() if group != "feedback"}
    return tuple(s._replace(params=drop(s.params), model_state=drop(s.model_state)) for s in states)


def test_no_share_is_the_rule() -> None:
    model = make(scl, head="linear")
    assert mixed_error(model, 0.0) is model
    assert {block.signal for block in mixed_error(model, 0.1).blocks[:-1]} == {"top"}


@pytest.mark.parametrize(("rule", "options"), [(scl, {"head": "linear"}), (predsim, {"dropout": 0.2})])
def test_a_share_is_linear_between_the_rule_and_dfa(rule: Callable, options: dict, random_states: Callable) -> None:
    """And what reads a block's output learns from the block's own loss, whatever the share."""
    plain = make(rule, **options)
    models = {share: mixed_error(plain, share) for share in (0.25, 1.0)}
    states = random_states(models[1.0])
    own = grads_of(plain, without_feedback(states), X[0])
    found = {share: grads_of(model, states, X[0]) for share, model in models.items()}
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)
    for i in range(len(plain.blocks)):
        for group in own[i]:
            if group != "f":
                jax.tree.map(close, own[i][group], found[1.0][i][group])
                jax.tree.map(close, own[i][group], found[0.25][i][group])
        if "f" in own[i]:
            mix = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, own[i]["f"], found[1.0][i]["f"])
            jax.tree.map(close, mix, found[0.25][i]["f"])
    if rule is scl:  # no dropout between its blocks, as dfa has none
        direct = make(dfa)
        cut = lambda groups: {group: groups[group] for group in ("f", "feedback")}
        lower = [s._replace(params=cut(s.params), model_state=cut(s.model_state)) for s in states[:-1]]
        expected = grads_of(direct, (*lower, states[-1]), X[0])
        for ours, theirs in zip(found[1.0], expected, strict=True):
            for group in theirs:
                jax.tree.map(close, ours[group], theirs[group])


def test_one_step_restated(random_states: Callable, as_batches: Callable) -> None:
    """Of `early_exit`, two blocks: the lower mixes, the upper makes the scores and has the true gradient."""
    share = 0.3
    model = mixed_error(early_exit(mlp((4, 6), activation="tanh"), SPEC, CLASSES, tx=optax.sgd(RATE)), share)
    states = random_states(model)
    engine = sequential(model)
    state, _ = engine.run(engine.load(states, jax.random.key(0)), as_batches(X[:1], Y[:1]))
    dense = lambda x, layer: x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])

    def error_of(scores: np.ndarray) -> np.ndarray:
        shares = np.exp(scores - scores.max(1, keepdims=True))
        return (shares / shares.sum(1, keepdims=True) - np.eye(CLASSES)[Y[0]]) / BATCH

    (one, two), (new, last) = states, engine.states(state)
    h_1 = np.tanh(dense(X[0], one.params["f"]["Dense_0"]))
    h_2 = np.tanh(dense(h_1, two.params["f"]["Dense_0"]))
    own = error_of(dense(h_1, one.params["head"]["Dense_0"]))
    top = error_of(dense(h_2, two.params["head"]["Dense_0"]))
    at = (1 - share) * own @ np.asarray(one.params["head"]["Dense_0"]["kernel"]).T
    d_1 = (at + share * top @ np.asarray(one.params["feedback"]["kernel"])) * (1 - h_1**2)
    d_2 = top @ np.asarray(two.params["head"]["Dense_0"]["kernel"]).T * (1 - h_2**2)
    rows = [(new, one, "f", X[0], d_1), (new, one, "head", h_1, own)]
    rows += [(last, two, "f", h_1, d_2), (last, two, "head", h_2, top)]
    for after, before, group, below, error in rows:
        found, old = after.params[group]["Dense_0"], before.params[group]["Dense_0"]
        np.testing.assert_allclose(found["kernel"], old["kernel"] - RATE * below.T @ error, rtol=0, atol=1e-14)
        np.testing.assert_allclose(found["bias"], old["bias"] - RATE * error.sum(0), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(new.params["feedback"]["kernel"], one.params["feedback"]["kernel"])


def test_by_name_it_is_the_transform(random_states: Callable, as_batches: Callable) -> None:
    network = mlp((4, 6))
    named = METHODS["mixed"](network, SPEC, CLASSES, lambda scale: optax.sgd(RATE * scale), rule="pred", share=0.5)
    ours = mixed_error(predsim(network, SPEC, CLASSES, tx=optax.sgd(RATE), beta=0.0), 0.5)
    found = []
    for model in (named, ours):
        engine = sequential(model)
        state, _ = engine.run(engine.load(random_states(ours), jax.random.key(0)), as_batches(X, Y))
        found.append(engine.states(state))
    assert largest_difference(*found) == 0 and named.method == "mixed" and named.exits == (1, 2, 3)


def test_feedback_below_a_block_stands_for_no_one_kernel(random_states: Callable) -> None:
    """The classifier's kernel is what it stands for where nothing else is above it, as in `dfa`."""
    network = mlp((4, 4, 4))
    kernels = lambda model: [value is None for value in weight_cosines(random_states(mixed_error(model, 0.5)))]
    assert kernels(dgl(network, SPEC, CLASSES, tx=TX, aux="hidden")) == [True] * 3
    assert kernels(scl(network, SPEC, CLASSES, tx=TX, head="linear")) == [True, True, False, True]


@pytest.mark.parametrize(
    ("model", "share", "options", "says"),
    [
        (lambda: make(early_exit), 1.5, {}, r"share is in \[0, 1\]; got 1.5"),
        (lambda: make(early_exit), 0.5, {"form": "sparse"}, "unknown form 'sparse' of method 'mixed'"),
        (lambda: make(bp), 0.5, {}, "method 'bp' is not so here"),
        (lambda: make(dfa), 0.5, {}, "method 'dfa' is not so here"),
        (lambda: make(al, target_width=4), 0.5, {}, "method 'al' is not so here"),
        (lambda: make(ff), 0.5, {}, "method 'ff' is not so here"),
        (lambda: make(noprop, steps=2), 0.5, {}, "method 'noprop' is not so here"),
        (lambda: gim(mlp((4, 6)), IMAGES, CLASSES, tx=TX), 0.5, {}, "method 'gim' is not so here"),
        (lambda: rotation(mlp((4, 6)), IMAGES, CLASSES, tx=TX), 0.5, {}, "method 'rotation' is not so here"),
        (lambda: freeze(make(dgl), 1), 0.5, {}, "method 'dgl' is not so here"),
        (lambda: trials(make(dgl), 2), 0.5, {}, "method 'dgl' is not so here"),
    ],
)
def test_refusals(model: Callable, share: float, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        mixed_error(model(), share, **options)


@pytest.mark.parametrize("rule", ["none", "mixed"])
def test_a_rule_that_there_is_not_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match=f"unknown rule '{rule}' of method 'mixed'; there are al, auglocal"):
        METHODS["mixed"](mlp((4,)), SPEC, CLASSES, lambda scale: optax.sgd(scale), rule=rule)
