import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.losses import cross_entropy, mean_squared_error

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (7,)])
def test_mean_squared_error(shape: tuple[int, ...], x64: None) -> None:
    a, b = RNG.normal(size=shape), RNG.normal(size=shape)
    value, grad = jax.value_and_grad(mean_squared_error)(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(value, ((a - b) ** 2).sum() / a.size, rtol=1e-14)
    np.testing.assert_allclose(grad, 2 * (a - b) / a.size, rtol=1e-14)


def test_cross_entropy(x64: None) -> None:
    scores, target = 5 * RNG.normal(size=(6, 4)), np.eye(4)[RNG.integers(0, 4, 6)]
    target[0] = [0.1, 0.2, 0.3, 0.4]  # soft targets too
    softmax = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    value, grad = jax.value_and_grad(cross_entropy)(jnp.asarray(scores), jnp.asarray(target))
    np.testing.assert_allclose(value, -(target * np.log(softmax)).sum(1).mean(), rtol=1e-13)
    np.testing.assert_allclose(grad, (softmax - target) / 6, atol=1e-15)


def test_cross_entropy_of_large_scores() -> None:
    value = cross_entropy(jnp.array([[1e4, 0.0], [0.0, -1e4]]), jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    np.testing.assert_allclose(value, 5e3)


@pytest.mark.parametrize(("classes", "floor"), [(2, 0.127), (4, 0.341), (14, 1.015)])
def test_floor_on_a_tanh(classes: int, floor: float, x64: None) -> None:
    """On scores in [-1, 1] the loss stops at log(1 + (C - 1) e^-2): +1 for the right class, -1 for the others."""
    target = jnp.eye(classes)
    best = float(cross_entropy(2 * target - 1, target))
    np.testing.assert_allclose(best, np.log(1 + (classes - 1) * np.exp(-2)), rtol=1e-14)
    assert round(best, 3) == floor
    scores = np.tanh(3 * RNG.normal(size=(20, classes, classes)))
    others = [float(cross_entropy(jnp.asarray(one), target)) for one in scores]
    nearly = float(cross_entropy(jnp.tanh(5 * (2 * target - 1)), target))
    assert min(others) > nearly > best


@pytest.mark.parametrize("loss", [mean_squared_error, cross_entropy])
def test_shapes_must_agree(loss) -> None:
    with pytest.raises(AssertionError, match="shape"):
        loss(jnp.ones((4, 3)), jnp.ones((4, 1)))


def test_cross_entropy_wants_rows() -> None:
    with pytest.raises(AssertionError, match="rank"):
        cross_entropy(jnp.ones((3,)), jnp.ones((3,)))
