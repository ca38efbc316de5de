"""Batches in flight in a delayed pipeline go over to the sequential engine."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad import dfa, dkp, mlp, sequential, spmd
from localgrad.data import batches
from localgrad.pipeline import delays_of, hand_over, pipeline_state
from localgrad.report import largest_difference

STEPS = 7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "norm", "cuts"), [pytest.param(dfa, False, (0, 1, 2, 3), marks=pytest.mark.full), (dkp, True, (0, 1, 3))]
)
def test_the_sequential_engine_goes_on_where_the_pipeline_was_left(
    make: Callable, norm: bool, cuts: tuple[int, ...], x64: None, random_states: Callable
) -> None:
    tx = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.9))
    network = mlp((7, 6), norm=norm, dropout=0.2)
    model = make(network, jax.ShapeDtypeStruct((8, 5), jnp.float64), 3, tx=tx)
    rng = np.random.default_rng(0)
    xs, ys = jnp.asarray(rng.normal(size=(STEPS, 8, 5))), jnp.asarray(rng.integers(0, 3, (STEPS, 8)).astype(np.int32))
    states, key = random_states(model), jax.random.key(1)
    engine, other = spmd(model, stages=len(cuts) - 1, cuts=cuts), sequential(model, delays_of(cuts))
    expected, _ = other.run(other.load(states, key), batches(xs, ys))
    for fed in (1, 2, 4):  # fewer than are in flight when the pipeline is full, and more
        state, _ = engine.run(engine.load(states, key), batches(xs[:fed], ys[:fed]))
        specs = pipeline_state(model, cuts)
        assert [(x.shape, x.dtype) for x in jax.tree.leaves(specs)] == [
            (x.shape, x.dtype) for x in jax.tree.leaves(state)
        ]
        home = jax.tree.map(
            lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else jnp.asarray(np.asarray(x)), state
        )
        found = hand_over(model, cuts, home._replace(key=key), fed)
        found, _ = other.run(found, batches(xs[fed:], ys[fed:], first=fed))
        assert largest_difference(other.states(found), other.states(expected)) < 1e-12
