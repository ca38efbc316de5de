import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.methods import by_group

GRADS = {"f": {"w": jnp.array([3.0, 0.0])}, "b": jnp.array([4.0]), "g": jnp.array([12.0])}


def test_each_group_has_its_transform() -> None:
    tx = by_group({"f": optax.sgd(1.0), "b": optax.sgd(2.0), "g": optax.set_to_zero()})
    updates, _ = tx.update(GRADS, tx.init(GRADS), GRADS)
    np.testing.assert_array_equal(updates["f"]["w"], [-3.0, 0.0])
    np.testing.assert_array_equal(updates["b"], [-8.0])
    np.testing.assert_array_equal(updates["g"], [0.0])


def test_a_norm_spans_the_groups_of_its_key() -> None:
    clip = optax.clip_by_global_norm(1.0)
    together = by_group({"f+b": clip, "g": clip})
    updates, _ = together.update(GRADS, together.init(GRADS), GRADS)
    np.testing.assert_allclose(updates["f"]["w"], [0.6, 0.0], rtol=1e-6)  # the norm of (3, 4) is 5
    np.testing.assert_allclose(updates["b"], [0.8], rtol=1e-6)
    np.testing.assert_allclose(updates["g"], [1.0], rtol=1e-6)


def test_a_group_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"named twice in the keys \['f\+b', 'b'\]"):
        by_group({"f+b": optax.sgd(1.0), "b": optax.sgd(1.0)})


@pytest.mark.parametrize("groups", [("f", "b"), ("f", "b", "h")])
def test_groups_other_than_the_blocks_are_refused(groups: tuple[str, ...]) -> None:
    tx = by_group({group: optax.sgd(1.0) for group in groups})
    with pytest.raises(ValueError, match=r"parameters are in the groups \['b', 'f', 'g'\]: name each of those exactly"):
        tx.init(GRADS)
