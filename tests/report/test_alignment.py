"""Angles of feedback, against numpy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.blocks import cnn, mlp
from localgrad.methods import bp, dfa, dkp, early_exit, kp
from localgrad.report import projection_cosines, weight_cosines

CLASSES = 3
SPEC = jax.ShapeDtypeStruct((6, 5), jnp.float64)
IMAGES = jax.ShapeDtypeStruct((6, 4, 4, 1), jnp.float64)
TX = optax.sgd(0.1)

pytestmark = pytest.mark.usefixtures("x64")


def cos(a, b) -> float:
    return float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


def arrays(params: dict) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a group's one dense layer."""
    bias, kernel = jax.tree.leaves(params)
    return np.asarray(kernel), np.asarray(bias)


def test_projection_of_each_block_on_the_output(random_states: Callable) -> None:
    model = dfa(mlp((7, 4), activation="tanh"), SPEC, CLASSES, tx=TX)
    states = random_states(model)
    x = np.random.default_rng(0).normal(size=SPEC.shape)
    (w1, c1), (w2, c2), (w3, c3) = (arrays(s.params["f" if "f" in s.params else "head"]) for s in states)
    a1 = np.tanh(x @ w1 + c1)
    a2 = np.tanh(a1 @ w2 + c2)
    scores = a2 @ w3 + c3
    found = projection_cosines(model, states, jnp.asarray(x))
    feedback = [np.asarray(state.params["feedback"]["kernel"]) for state in states[:2]]
    np.testing.assert_allclose(found[:2], [cos(a1 @ feedback[0].T, scores), cos(a2 @ feedback[1].T, scores)], rtol=1e-9)
    assert found[2] is None


def test_images_are_projected_whole(random_states: Callable) -> None:
    model = dkp(cnn((2, 3)), IMAGES, CLASSES, tx=TX)
    states, x = random_states(model), jnp.asarray(np.random.default_rng(0).normal(size=IMAGES.shape))
    (a1, _), scores = model.features(states, x), model.predict(states, x)
    projected = np.einsum("bhwc,nhwc->bn", a1, states[0].params["feedback"]["kernel"])
    np.testing.assert_allclose(projection_cosines(model, states, x)[0], cos(projected, np.asarray(scores)), rtol=1e-9)


def test_feedback_and_the_weights_that_it_stands_for(random_states: Callable) -> None:
    chained, direct = (make(mlp((7, 4)), SPEC, CLASSES, tx=TX) for make in (kp, dkp))
    states = random_states(chained)
    found = weight_cosines(states)
    assert found[0] is None  # nothing comes down from the first block
    for state, value in zip(states[1:], found[1:], strict=True):
        kernel = arrays(state.params["f" if "f" in state.params else "head"])[0]
        np.testing.assert_allclose(value, cos(kernel, np.asarray(state.params["feedback"]["kernel"])), rtol=1e-9)
    states = random_states(direct)
    found = weight_cosines(states)
    head = arrays(states[2].params["head"])[0]
    assert found[0] is None  # two layers are above it: no one matrix to compare with
    assert found[2] is None
    np.testing.assert_allclose(found[1], cos(head.T, np.asarray(states[1].params["feedback"]["kernel"])), rtol=1e-9)


@pytest.mark.parametrize("make", [bp, early_exit])
def test_methods_without_feedback(make: Callable, random_states: Callable) -> None:
    model = make(mlp((7, 4)), SPEC, CLASSES, tx=TX)
    states = random_states(model)
    assert set(projection_cosines(model, states, jnp.ones(SPEC.shape))) == {None}
    assert set(weight_cosines(states)) == {None}


def test_other_forms_of_feedback_are_passed_over(random_states: Callable) -> None:
    model = dfa(cnn((2, 3)), IMAGES, CLASSES, tx=TX, form="broadcast")
    states = random_states(model)
    assert set(projection_cosines(model, states, jnp.ones(IMAGES.shape))) == {None}
