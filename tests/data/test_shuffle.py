import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.data.shuffle import LIMIT, permuted


@functools.partial(jax.jit, static_argnums=(1, 2))
def every_epoch(key: jax.Array, n: int, epochs: int) -> jax.Array:
    position = jnp.arange(n, dtype=jnp.int32)
    return jax.vmap(lambda epoch: permuted(key, epoch, position, n))(jnp.arange(epochs, dtype=jnp.int32))


@functools.cache
def orders(n: int, epochs: int, seed: int = 0) -> np.ndarray:
    """The order of each epoch: (epochs, n)."""
    return np.asarray(every_epoch(jax.random.key(seed), n, epochs))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 64, 1000, 1197])
def test_every_epoch_is_a_permutation(n: int) -> None:
    found = orders(n, 8)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(n), (8, 1)))


@pytest.mark.parametrize("n", [1, 5, 1000])
def test_a_place_outside_of_the_set_is_answered_too(n: int) -> None:
    found = permuted(jax.random.key(0), 0, jnp.array([-1, n, LIMIT], jnp.int32), n)
    assert ((found >= 0) & (found < n)).all()


def test_epochs_and_seeds_differ() -> None:
    rows = [*orders(64, 8), *orders(64, 8, seed=1)]
    assert len({row.tobytes() for row in rows}) == 16


def test_batches_agree_with_the_whole_and_with_and_without_jit() -> None:
    whole = orders(1000, 8)
    key = jax.random.key(0)
    at = jax.jit(lambda epoch, start: permuted(key, epoch, start + jnp.arange(64, dtype=jnp.int32), 1000))
    for epoch, start in itertools.product(range(3), (0, 64, 936)):
        np.testing.assert_array_equal(at(jnp.int32(epoch), jnp.int32(start)), whole[epoch, start : start + 64])
    np.testing.assert_array_equal(permuted(key, 2, jnp.arange(5, dtype=jnp.int32), 1000), whole[2, :5])


def chi_square_is_likely(counts: np.ndarray) -> None:
    """Five standard deviations of the statistic either way: a fixed seed, so the test never flickers."""
    expected = counts.sum() / counts.size
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = counts.size - 1
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom), (statistic, freedom)


@pytest.mark.parametrize("n", [2, 5, 64])
@pytest.mark.parametrize("position", [0, 1])
def test_an_example_lands_anywhere_equally_often(n: int, position: int) -> None:
    landed = orders(n, 200 * n)[:, position]
    chi_square_is_likely(np.bincount(landed, minlength=n))


def test_all_orders_of_four_are_equally_likely() -> None:
    index = {order: i for i, order in enumerate(itertools.permutations(range(4)))}
    found = [index[tuple(row.tolist())] for row in orders(4, 12_000)]
    chi_square_is_likely(np.bincount(found, minlength=24))


def test_neighbours_are_parted() -> None:
    """The place of example 1, given that of example 0, is uniform over what is left: no two stay together."""
    n = 32
    found = orders(n, 6_000)
    places = np.argsort(found, axis=1)
    distance = (places[:, 1] - places[:, 0]) % n
    assert distance.min() == 1
    chi_square_is_likely(np.bincount(distance, minlength=n)[1:])


@pytest.mark.parametrize("n", [5, 64])
def test_fixed_points_are_one_on_average(n: int) -> None:
    epochs = 200 * n
    fixed = (orders(n, epochs) == np.arange(n)).sum(axis=1)
    assert abs(fixed.mean() - 1) < 5 / math.sqrt(epochs)  # their variance is 1


def test_the_largest_set_there_may_be() -> None:
    position = jnp.array([0, 1, 12345, LIMIT - 2, LIMIT - 1], jnp.int32)
    found = np.asarray(permuted(jax.random.key(0), 3, position, LIMIT))
    assert found.min() >= 0 and found.max() < LIMIT and len(set(found.tolist())) == 5
    assert found.max() > 2**24  # not confined to a corner


@pytest.mark.parametrize("n", [0, -1, 2**31])
def test_a_size_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"n={n} .*expected 1 .. 2147483647"):
        permuted(jax.random.key(0), 0, jnp.arange(1, dtype=jnp.int32), n)


def test_cost_does_not_grow_with_n() -> None:
    def largest(n: int) -> int:
        position = jnp.arange(8, dtype=jnp.int32)
        text = jax.jit(lambda key: permuted(key, 0, position, n)).lower(jax.random.key(0)).as_text()
        assert "stablehlo.sort" not in text
        return len(text)

    assert largest(10**9) < 1.1 * largest(10**3)
