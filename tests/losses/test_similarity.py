"""Similarity matching, by hand and by loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.losses import similarity_matching, similarity_matrix

RNG = np.random.default_rng(0)


def by_loops(rows: np.ndarray) -> np.ndarray:
    """Pearson correlation of every pair of rows."""
    found = np.zeros((len(rows), len(rows)))
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            a_, b_ = a - a.mean(), b - b.mean()
            found[i, j] = np.clip(a_ @ b_ / ((np.linalg.norm(a_) + 1e-8) * (np.linalg.norm(b_) + 1e-8)), -1, 1)
    return found


def test_by_hand() -> None:
    """(1, 2, 3) and (3, 2, 1) are opposite; (0, 2, 1) has half of the first's direction: 1 / sqrt(2 * 2)."""
    x = jnp.asarray([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [0.0, 2.0, 1.0]])
    expected = [[1, -1, 0.5], [-1, 1, -0.5], [0.5, -0.5, 1]]
    np.testing.assert_allclose(similarity_matrix(x), expected, atol=1e-6)


def test_vectors(x64: None) -> None:
    rows = RNG.normal(size=(6, 5))
    np.testing.assert_allclose(similarity_matrix(jnp.asarray(rows)), by_loops(rows), atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "reduced"),
    [
        ((3, 4, 5), True),
        ((2, 1, 4), True),
        ((3, 4, 3), False),  # as few channels as a colour image has
        ((3, 4, 1), False),
        ((1, 4, 5), False),  # one row
        ((1, 1, 5), False),
    ],
    ids=str,
)
def test_images_by_the_deviation_over_space(shape: tuple[int, int, int], reduced: bool, x64: None) -> None:
    """Of more than three channels and more than one row; others place by place."""
    images = RNG.normal(size=(6, *shape))
    rows = images.reshape(6, -1)
    if reduced:
        rows = np.array([[image[..., c].std(ddof=1) for c in range(shape[2])] for image in images])
    np.testing.assert_allclose(similarity_matrix(jnp.asarray(images)), by_loops(rows), atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 3), (1, 4, 5), (4, 1, 5), (1, 1, 2)], ids=str)
def test_images_against_torch(shape: tuple[int, int, int], x64: None) -> None:
    """The rule of the paper's released code, said again in PyTorch, on images (B, C, H, W)."""
    torch = pytest.importorskip("torch")
    images = RNG.normal(size=(6, *shape))
    x = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
    wide = x.shape[1] > 3 and x.shape[2] > 1
    x = x.flatten(2).std(dim=2) if wide else x.flatten(1)
    x = x - x.mean(dim=1, keepdim=True)
    unit = x / (1e-8 + x.pow(2).sum(dim=1, keepdim=True).sqrt())
    expected = (unit @ unit.T).clamp(-1, 1).numpy()
    np.testing.assert_allclose(similarity_matrix(jnp.asarray(images)), expected, atol=1e-12)


def test_the_loss_is_a_mean_over_pairs(x64: None) -> None:
    x, target = RNG.normal(size=(4, 3)), np.eye(3)[[0, 1, 2, 0]]
    expected = ((by_loops(x) - by_loops(target)) ** 2).mean()
    np.testing.assert_allclose(similarity_matching(jnp.asarray(x), jnp.asarray(target)), expected, atol=1e-12)


def test_gradients_are_finite_where_nothing_varies(x64: None) -> None:
    target = jnp.eye(3)
    for flat in (jnp.ones((3, 4)), jnp.ones((3, 2, 2, 4)), jnp.zeros((3, 2, 2, 4)), jnp.ones((3, 2, 2, 3))):
        assert np.isfinite(jax.grad(similarity_matching)(flat, target)).all()
