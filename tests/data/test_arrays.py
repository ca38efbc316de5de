"""Batches of arrays that the caller holds."""

import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.data import batches


@pytest.mark.parametrize("lead", [(4,), (4, 2)], ids=["plain", "trials"])
def test_a_window_of_a_batch_is_fetched_along_its_examples(lead: tuple[int, ...]) -> None:
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(*lead, 6, 3)), jnp.float32)
    ys = jnp.arange(np.prod(lead) * 6, dtype=jnp.int32).reshape(*lead, 6)
    made = batches(xs, ys, first=10)
    assert made.batch_id.tolist() == [10, 11, 12, 13]
    x, y = made.fetch((made.items[0][1], made.items[1][1]), 2, 3)
    assert np.array_equal(x, xs[1][..., 2:5, :])
    assert np.array_equal(y, ys[1][..., 2:5])


def test_two_calls_share_their_fetch() -> None:
    one, other = (batches(jnp.zeros((2, 3, 1)), jnp.zeros((2, 3), jnp.int32)) for _ in range(2))
    assert one.fetch.func is other.fetch.func


@pytest.mark.parametrize("labels", [(2, 4), (3, 3), (6,), (2, 3, 1, 1)])
def test_labels_that_do_not_belong_to_the_inputs_are_refused(labels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        batches(jnp.zeros((2, 3, 5)), jnp.zeros(labels, jnp.int32))
