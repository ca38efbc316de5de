"""Settings of every test and doctest, strict and the same on every machine; set before jax makes its first array.

They hold for a run of the whole suite (`pytest`) and of any part of `tests`; pytest loads this file first in both.
"""

import gc
import os
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from localgrad.base import Batches, BlockState, Model, Spec
from localgrad.data import batches
from localgrad.pipeline import specs

from .quick import QUICK

os.environ["MPLBACKEND"] = "Agg"
gc.set_threshold(100_000, 20, 100)  # jax keeps millions of objects, and going through them takes a tenth of the time
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config: pytest.Config) -> None:
    """Compiles quickly under `-m "not slow ..."` and `-m "... not bits"`; all else as users' programs are compiled."""
    if any(none in config.getoption("markexpr") for none in ("not slow", "not bits")):
        os.environ.update(QUICK)
        jax.config.update("jax_disable_most_optimizations", True)  # it was read with the import


def pytest_collection_finish() -> None:
    """What is imported stays: nothing needs to look through it for what is of no use any more."""
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """What a module has compiled is of no use to the next; the programs of all take five gigabytes a worker."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def as_batches() -> Callable[..., Batches]:
    """`(xs, ys, first=0) -> Batches` of anything that jax makes arrays of."""
    return lambda xs, ys, first=0: batches(jnp.asarray(xs), jnp.asarray(ys), first=first)


@pytest.fixture(scope="session")
def random_states() -> Callable[..., tuple[BlockState, ...]]:
    """`(model, seed=0) -> states`: random parameters, biases too, and a fresh optimizer; compiles nothing."""

    def make(model: Model, seed: int = 0) -> tuple[BlockState, ...]:
        rng = np.random.default_rng(seed)

        def noise(spec: Spec) -> jax.Array:
            scale = max(1, np.prod(spec.shape[:-1])) ** -0.5 if spec.ndim > 1 else 0.3  # no activation saturates
            return jnp.asarray(scale * rng.normal(size=spec.shape), spec.dtype)

        def positive(spec: Spec) -> jax.Array:  # a running variance is
            is_float = jnp.issubdtype(spec.dtype, jnp.floating)
            return jnp.abs(noise(spec)) if is_float else jnp.zeros(spec.shape, spec.dtype)

        def zeros(spec: Spec) -> jax.Array:
            return jnp.zeros(spec.shape, spec.dtype)

        return tuple(
            BlockState(
                jax.tree.map(noise, state.params),
                jax.tree.map(positive, state.model_state),
                jax.tree.map(zeros, state.opt_state),
            )
            for state in specs(model)[0]
        )

    return make
