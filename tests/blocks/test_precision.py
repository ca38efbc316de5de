"""A block that computes in bfloat16: short features, long parameters, statistics and losses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad.blocks import cnn, compute_dtype, mlp
from localgrad.data import batches
from localgrad.report import params_sha256

RNG = np.random.default_rng(0)


def short(network: list) -> list:
    return [compute_dtype(block) for block in network]


def test_parameters_and_statistics_stay_long_and_gradients_too() -> None:
    (block,) = short(cnn((4,), norm=True))
    params, state = block.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32))
    x = jnp.asarray(RNG.normal(size=(2, 8, 8, 1)), jnp.float32)

    def loss(params):
        y, moved = block.apply(params, state, x, key=jax.random.key(1), train=True)
        return jnp.mean(block.summary(y) ** 2), (y, moved)

    grads, (y, moved) = jax.grad(loss, has_aux=True)(params)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((params, state, grads, moved))} == {jnp.dtype(jnp.float32)}
    assert any(
        np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(*map(jax.tree.leaves, (state, moved)), strict=True)
    )


def test_it_computes_what_the_long_block_does_but_for_rounding() -> None:
    (long,) = mlp((64,))
    block = compute_dtype(long)
    x = jnp.asarray(RNG.normal(size=(16, 32)), jnp.float32)
    params, state = block.init(jax.random.key(0), jax.ShapeDtypeStruct(x.shape, x.dtype))
    ours, theirs = (one.apply(params, state, x, key=None, train=False)[0] for one in (block, long))
    assert 0 < float(jnp.max(jnp.abs(ours.astype(jnp.float32) - theirs))) < 0.05


@pytest.mark.parametrize(
    "make", ["al", pytest.param("dfa", marks=pytest.mark.full), pytest.param("bp", marks=pytest.mark.full)]
)
def test_both_engines_train_it_to_the_same_digest(make: str, random_states: Callable) -> None:
    spec = jax.ShapeDtypeStruct((8, 6), jnp.float32)
    options = {"target_width": 4, "bridge": ()} if make == "al" else {}
    model = getattr(lg, make)(short(mlp((8, 7))), spec, 3, tx=optax.adam(1e-2), **options)
    xs, ys = RNG.normal(size=(6, 8, 6)).astype(np.float32), RNG.integers(0, 3, (6, 8)).astype(np.int32)
    digests = []
    pipeline = lg.spmd(model, stages=2, staleness="locked", micro_batches=1 if make == "bp" else None)
    for engine in (lg.sequential(model), pipeline):
        state = engine.load(random_states(model), jax.random.key(1))
        state, metrics = engine.run(state, engine.put(batches(xs, ys)))
        metrics.check()
        assert {value.dtype for block in metrics.values for value in block.values()} == {jnp.dtype(jnp.float32)}
        digests.append(params_sha256(engine.states(state)))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("dtype", ["float32", "int32", "float64"])
def test_a_dtype_that_is_not_shorter_is_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match=f"a float shorter than float32, such as bfloat16; got {dtype}"):
        compute_dtype(mlp((4,))[0], dtype)
