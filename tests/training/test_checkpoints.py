"""Checkpoints alone: what is kept, and what is given back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import BlockState
from localgrad.training.checkpoints import Checkpoints


def state(value: float, width: int = 3) -> BlockState:
    params = {"f": {"kernel": jnp.full((2, width), value)}}
    tx = optax.adam(optax.constant_schedule(0.1))
    return BlockState(params, {"f": {"mean": jnp.full((width,), value)}}, tx.init(params))


def like(width: int = 3):
    return jax.eval_shape(lambda: (state(0.0, width), state(0.0, width)))


@pytest.fixture
def checkpoints(tmp_path):
    made = Checkpoints(tmp_path / "checkpoints")
    yield made
    made.close()


def save(checkpoints, *steps, **options):
    for step in steps:
        checkpoints.save(step, (state(step), state(-step)), {"sums": [step]}, **options)
    checkpoints._manager.wait_until_finished()


def test_the_newest_is_given_back_bit_for_bit(checkpoints):
    save(checkpoints, 3, 7)
    found = checkpoints.restore(like())
    assert (found.step, found.meta) == (7, {"sums": [7]})
    expected = (state(7), state(-7))
    assert jax.tree.structure(found.states) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found.states, expected)


def test_at_or_before_a_step(checkpoints):
    save(checkpoints, 3, 7)
    assert checkpoints.restore(like(), before=6).step == 3
    assert checkpoints.restore(like(), before=7).step == 7
    assert checkpoints.restore(like(), before=2) is None


def test_the_last_two_and_the_best_are_kept(checkpoints):
    for step, validation in ((1, 50.0), (2, 90.0), (3, 60.0), (4, 70.0), (5, 80.0)):
        save(checkpoints, step, validation=validation)
    save(checkpoints, 6)  # between two epochs
    assert set(checkpoints._manager.all_steps()) == {2, 5, 6}


def test_a_step_is_saved_once(checkpoints):
    save(checkpoints, 3)
    checkpoints.save(3, (state(8), state(8)), {"sums": []})
    assert checkpoints.restore(like()).meta == {"sums": [3]}


def test_another_network_is_refused(checkpoints):
    save(checkpoints, 3)
    with pytest.raises(ValueError, match="the checkpoint of step 3 is of another network: .*kernel.* there and"):
        checkpoints.restore(like(width=4))


def test_an_empty_folder(checkpoints):
    assert checkpoints.restore(like()) is None
