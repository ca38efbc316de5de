"""What blocks take by the clock."""

import jax
import jax.numpy as jnp
import optax
import pytest

from localgrad import al, bp, dkp, early_exit, mlp, trials
from localgrad.pipeline import balance, block_seconds
from localgrad.pipeline.timing import small

SPEC = jax.ShapeDtypeStruct((64, 8), jnp.float32)


NARROW = {al: {"target_width": 8, "bridge": ()}}


# The tests below measure whole batches.
@pytest.mark.parametrize(
    ("parts", "method"),
    [
        (2, al),
        *(pytest.param(*row, marks=pytest.mark.full) for row in ((1, al), (1, bp), (2, bp), (1, dkp), (2, dkp))),
    ],
)
def test_a_wide_block_takes_longer(method, parts):
    """A thousand times the FLOPs: no clock is so bad."""
    model = method(mlp((8, 768, 768)), SPEC, 3, tx=optax.sgd(0.1), **NARROW.get(method, {}))
    seconds = block_seconds(model, parts=parts)
    assert len(seconds) == len(model.blocks) and min(seconds) > 0
    assert seconds[2] == max(seconds) and seconds[2] > 2 * seconds[0]
    assert balance(seconds, 2)[0] == 0


def test_equal_blocks_take_the_same():
    """They are one program, measured once."""
    model = bp(mlp((8, 8, 8, 8)), SPEC, 3, tx=optax.sgd(0.1))
    _, second, third, _ = block_seconds(model)
    assert second == third


def test_trials_are_measured_together():
    model = trials(early_exit(mlp((8, 6)), SPEC, 3, tx=optax.sgd(0.1)), 3)
    assert len(block_seconds(model, repetitions=1)) == len(model.blocks)


def test_small_numbers_have_the_shapes_of_the_spec():
    spec = (SPEC, jax.ShapeDtypeStruct((2,), jnp.int32), None)
    floats, whole, nothing = small(spec)
    assert floats.shape == SPEC.shape and floats.dtype == jnp.float32 and whole.tolist() == [1, 1] and nothing is None
