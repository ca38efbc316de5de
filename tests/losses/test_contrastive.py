"""The supervised contrastive loss against a double loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.losses import supervised_contrastive
from localgrad.losses.contrastive import REDUCTIONS


def rows(batch: int, width: int = 5, seed: int = 0) -> np.ndarray:
    z = np.random.default_rng(seed).normal(size=(batch, width))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def by_loops(z: np.ndarray, labels: np.ndarray, tau: float, reduction: str) -> float:
    """Delog-SCL Eq. 2 (`paper`), its mean (`supcon`) and Algorithm 1 (`listing`), pair by pair."""
    batch, total, pairs = len(z), 0.0, 0
    for i in range(batch):
        others = [j for j in range(batch) if j != i]
        positives = [p for p in others if labels[p] == labels[i]]
        pairs += sum(labels[j] == labels[i] for j in range(batch))
        denominator = sum(np.exp(z[i] @ z[j] / tau) for j in others)
        terms = [-np.log(np.exp(z[i] @ z[p] / tau) / denominator) for p in positives]
        if reduction == "listing":
            total += sum(terms)
        elif positives:
            total += sum(terms) / len(positives)
    return {"listing": total / (pairs * batch) if pairs else 0.0, "paper": total, "supcon": total / batch}[reduction]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 0, 3], [0] * 7, list(range(7))], ids=["mixed", "one", "none"])
def test_against_a_double_loop(reduction: str, labels: list[int], x64: None) -> None:
    z, y = rows(7), np.array(labels, np.int32)
    ours = supervised_contrastive(jnp.asarray(z), jnp.asarray(y), temperature=0.3, reduction=reduction)  # type: ignore[arg-type]
    np.testing.assert_allclose(ours, by_loops(z, y, 0.3, reduction), rtol=1e-12, atol=1e-12)


def test_the_listing_on_a_balanced_batch(x64: None) -> None:
    """It is supcon * (n - 1) / (n B): 11/1440 of it with 12 of each of 10 classes."""
    y = jnp.asarray(np.repeat(np.arange(10), 12), jnp.int32)
    z = jnp.asarray(rows(120))
    listing, supcon = (supervised_contrastive(z, y, reduction=name) for name in ("listing", "supcon"))  # type: ignore[arg-type]
    np.testing.assert_allclose(listing / supcon, 11 / 1440, rtol=1e-12)


def test_base_temperature_is_a_factor(x64: None) -> None:
    z, y = jnp.asarray(rows(6)), jnp.asarray([0, 0, 1, 1, 2, 2], jnp.int32)
    plain, scaled = (supervised_contrastive(z, y, temperature=0.1, base_temperature=base) for base in (None, 0.07))
    np.testing.assert_allclose(scaled / plain, 0.1 / 0.07, rtol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_are_finite_without_positives_and_for_equal_rows(reduction: str, x64: None) -> None:
    grad = jax.grad(lambda z, y: supervised_contrastive(z, y, temperature=0.01, reduction=reduction))  # type: ignore[arg-type]
    for z, labels in ((rows(4), [0, 1, 2, 3]), (np.ones((4, 4)) / 2, [0, 0, 1, 1])):
        assert np.isfinite(grad(jnp.asarray(z), jnp.asarray(labels, jnp.int32))).all()


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown reduction 'sum' of the contrastive loss; there are supcon, paper"):
        supervised_contrastive(jnp.ones((2, 2)), jnp.zeros((2,), jnp.int32), reduction="sum")  # type: ignore[arg-type]
