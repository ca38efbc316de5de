"""The law: in float64 every network agrees with the sequential engine to 1e-12."""

import jax.numpy as jnp
import pytest

from localgrad.report import largest_difference

from .common import trained


@pytest.mark.parametrize(
    ("name", "stages", "options"),
    [
        pytest.param("cnn-norm", 2, {}, marks=pytest.mark.slow),
        # Equal stages are below, with shards; one shard is there with unequal ones.
        pytest.param("mlp-equal", 2, {}, marks=pytest.mark.full),
        pytest.param("mlp-equal", 2, {"uniform": False}, marks=pytest.mark.full),
        ("mlp-equal", 2, {"data_parallel": 2}),
        ("mlp-wide", 2, {}),
        pytest.param("mlp-plain", 2, {"data_parallel": 2}, marks=pytest.mark.full),
    ],
    ids=str,
)
def test_float64_agrees_to_1e_12(name, stages, options):
    ours = trained(name, stages, dtype=jnp.float64, **options)
    theirs = trained(name, 0, dtype=jnp.float64)
    assert largest_difference(ours.states, theirs.states) < 1e-12
