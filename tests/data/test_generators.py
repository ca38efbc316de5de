"""The data under any of jax's generators: the same order and the same pictures, whatever stands beside them."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.data import augmentation, permuted, source
from localgrad.keys import over_keys, threefry

from .test_source import BATCH, colours, equal, fetch_all, raw
from .test_text import LENGTHS, some_texts

GENERATORS = ("threefry2x32", "rbg", "unsafe_rbg")
CHANGES = ("crop", "jitter,flip")


@pytest.fixture(params=GENERATORS)
def generator(request: pytest.FixtureRequest) -> Iterator[str]:
    with jax.default_prng_impl(request.param):
        yield request.param


@pytest.fixture(scope="module")
def usual() -> dict[Any, Any]:
    """Batches 5 and 6 under the usual generator."""
    return {(names, trials): fetch_all(made(names, trials)) for names in CHANGES for trials in (None, 2)}


def made(names: str, trials: int | None = None, resident: bool = True) -> Any:
    return raw(augment=augmentation(names), views=2, trials=trials, resident=resident).batches(5, 2)


ALL = list(itertools.product(GENERATORS, CHANGES, (True, False), (None, 2)))
PAIRS = [  # any two values of two of them meet in one of these
    ("threefry2x32", "crop", True, None),
    ("threefry2x32", "jitter,flip", False, 2),
    ("rbg", "crop", False, 2),
    ("rbg", "jitter,flip", True, None),
    ("unsafe_rbg", "crop", True, 2),
    ("unsafe_rbg", "jitter,flip", False, None),
]


@pytest.mark.parametrize(
    ("generator", "names", "resident", "trials"),
    [pytest.param(*row, marks=() if row in PAIRS else pytest.mark.full) for row in ALL],
    indirect=["generator"],
)
def test_batches_and_their_shards_are_those_of_the_usual_generator(
    generator: str, names: str, resident: bool, trials: int | None, usual: dict
) -> None:
    batches = made(names, trials, resident)
    equal(fetch_all(batches), usual[names, trials])
    axis = 1 if trials is None else 2
    shards = [fetch_all(batches, jnp.int32(start), count=BATCH // 4) for start in range(0, BATCH, BATCH // 4)]
    equal(jax.tree.map(lambda *parts: jnp.concatenate(parts, axis), *shards), usual[names, trials])


def test_texts_by_length(generator: str) -> None:
    def rows(**changed: Any) -> Any:
        found = source(some_texts(), batch_size=4, seed=1, lengths=LENGTHS, **changed).batches(0, 8)
        return jax.lax.map(lambda item: found.fetch(item, 0, 4), found.items)

    here = rows(trials=2), rows(resident=False)
    with jax.default_prng_impl("threefry2x32"):
        for one, other in zip(here, (rows(trials=2), rows()), strict=True):
            equal(one, other)


@pytest.mark.parametrize("names", CHANGES)
def test_an_example_is_changed_by_its_own_key(generator: str, names: str) -> None:
    keys, images = jnp.stack([jax.random.key(i) for i in range(8)]), colours().inputs[:8]
    change = jax.jit(augmentation(names))
    together = change(keys, images)
    alone = jnp.concatenate([change(keys[i : i + 1], images[i : i + 1]) for i in range(8)])
    np.testing.assert_array_equal(together, alone)
    assert len(np.unique(np.asarray(together[:, :, :, 1:]) - images[:, :, :, 1:], axis=0)) > 1


def test_each_epoch_has_an_order_of_its_own(generator: str) -> None:
    key, position = jax.random.key(0), jnp.arange(64, dtype=jnp.int32)
    together = jax.vmap(lambda epoch: permuted(key, epoch, position, 64))(jnp.arange(4))
    alone = jnp.stack([permuted(key, epoch, position, 64) for epoch in range(4)])
    np.testing.assert_array_equal(together, alone)
    assert len({row.tobytes() for row in np.asarray(together)}) == 4


def test_functions_over_keys_draw_what_each_key_draws(generator: str) -> None:
    keys, shift = jnp.stack([jax.random.key(i) for i in range(3)]), jnp.arange(3.0)
    draw = lambda key, shift: jax.random.normal(jax.random.split(key)[1], (5,)) + shift
    expected = jnp.stack([draw(key, one) for key, one in zip(keys, shift, strict=True)])
    np.testing.assert_array_equal(over_keys(draw, keys, shift), expected)


def test_keys_of_a_seed_become_those_of_the_seed(generator: str) -> None:
    usual = jax.random.key(7, impl="threefry2x32")
    assert threefry(jax.random.key(7)) == usual
    assert (threefry(jnp.stack([jax.random.key(7)] * 2)) == usual).all()
    assert threefry(jax.random.PRNGKey(7)) == usual
