"""Angles of feedback, against numpy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.blocks import cnn, mlp
from localgrad.methods import bp, dfa, dkp, early_exit, fa, kp
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
    a1, scores = model.features(states, x)[0], model.predict(states, x)
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


def test_projection_of_a_training_step(random_states: Callable) -> None:
    """With keys, both a_l and the scores are those of the step: normed by the batch, after dropout."""
    network = mlp((7, 4), norm=True, dropout=0.4)
    model = dkp(network, SPEC, CLASSES, tx=TX)
    states, x = random_states(model), jnp.asarray(np.random.default_rng(0).normal(size=SPEC.shape))
    keys = [jax.random.key(i) for i in range(3)]
    a = x
    for block, state, key, found in zip(
        network, states, keys, projection_cosines(model, states, x, keys), strict=False
    ):
        a = block.apply(state.params["f"], state.model_state["f"], a, key=key, train=True)[0]
        scores = model.features(states, x, keys)[-1]
        np.testing.assert_allclose(found, cos(a @ state.params["feedback"]["kernel"].T, np.asarray(scores)), rtol=1e-9)
    assert projection_cosines(model, states, x, keys)[0] != projection_cosines(model, states, x)[0]


def test_feedback_of_an_image_and_the_classifier_above(random_states: Callable) -> None:
    """The classifier reads an image flattened, so direct feedback of that image compares with its whole kernel."""
    model = dkp(cnn((2, 3)), IMAGES, CLASSES, tx=TX)
    states = random_states(model)
    head = arrays(states[2].params["head"])[0]
    feedback = np.asarray(states[1].params["feedback"]["kernel"])
    found = weight_cosines(states)
    np.testing.assert_allclose(found[1], cos(head.T, feedback.reshape(CLASSES, -1)), rtol=1e-9)
    assert found[0] is found[2] is None


@pytest.mark.parametrize("make", [dfa, dkp])
def test_a_hidden_layer_as_wide_as_the_classes_is_not_the_output(make: Callable, random_states: Callable) -> None:
    """Equal shapes are no reason: B_1 stands for the way to the scores, of which W_2 is a part."""
    model = make(mlp((7, CLASSES, 4)), SPEC, CLASSES, tx=TX)
    found = weight_cosines(random_states(model))
    assert [value is None for value in found] == [True, True, False, True]


@pytest.mark.parametrize("make", [fa, kp])
def test_chained_feedback_projects_on_no_scores(make: Callable, random_states: Callable) -> None:
    """Even where a block is as wide as there are classes, and its feedback has the shape of a direct one."""
    model = make(mlp((CLASSES, 4, CLASSES)), SPEC, CLASSES, tx=TX)
    states = random_states(model)
    assert states[1].params["feedback"]["kernel"].shape == (CLASSES, 4)
    assert set(projection_cosines(model, states, jnp.ones(SPEC.shape))) == {None}


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
