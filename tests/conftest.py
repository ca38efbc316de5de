"""Settings of every test and doctest, strict and the same on every machine; set before jax makes its first array.

They hold for a run of the whole suite (`pytest`) and of any part of `tests`; pytest loads this file first in both.
"""

import os
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.base import Batches

os.environ["MPLBACKEND"] = "Agg"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield


def _whole(item: tuple[jax.Array, jax.Array], start: int, count: int) -> tuple[jax.Array, jax.Array]:
    return item


@pytest.fixture(scope="session")
def as_batches() -> Callable[..., Batches]:
    """`(xs, ys, first=0) -> Batches` of arrays with leading axis K, numbered from `first`; one data shard only."""

    def make(xs: np.ndarray, ys: np.ndarray, first: int = 0) -> Batches:
        batch_id = jnp.arange(first, first + len(xs), dtype=jnp.int32)
        return Batches(batch_id, (jnp.asarray(xs), jnp.asarray(ys)), jax.tree_util.Partial(_whole))

    return make
