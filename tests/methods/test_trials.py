"""Trials under any of jax's generators: each begins, and drops out, as the run of its own seed alone."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from localgrad.base import Batches, Model
from localgrad.blocks import from_linen, mlp
from localgrad.methods import al, bp, dkp, early_exit, trial_keys, trials
from localgrad.pipeline import init, sequential, spmd

SPEC, CLASSES, TRIALS = jax.ShapeDtypeStruct((4, 6), jnp.float32), 3, 2


GENERATORS = ("threefry2x32", "rbg", pytest.param("unsafe_rbg", marks=pytest.mark.full))


@pytest.fixture(params=GENERATORS)
def generator(request: pytest.FixtureRequest) -> Iterator[str]:
    with jax.default_prng_impl(request.param):
        yield request.param


def associated() -> Model:
    return al(mlp((5,)), SPEC, CLASSES, tx=optax.adam(0.1), target_width=4, bridge=())


def with_feedback() -> Model:
    return dkp(mlp((5,)), SPEC, CLASSES, tx=optax.sgd(0.1))


def orthogonal() -> Model:
    layer = from_linen(linen.Dense(5, kernel_init=linen.initializers.orthogonal()))
    return bp([layer], SPEC, CLASSES, tx=optax.sgd(0.1))


BEGINNINGS = {  # each model and each generator once in CI; threefry draws codes of `al` in test_codes.py too
    ("threefry2x32", with_feedback),
    ("threefry2x32", orthogonal),
    ("rbg", associated),
}


def beginnings() -> list[Any]:
    every = itertools.product(("threefry2x32", "rbg", "unsafe_rbg"), (associated, with_feedback, orthogonal))
    full = lambda row: () if row in BEGINNINGS else pytest.mark.full
    return [pytest.param(*row, marks=full(row), id=f"{row[0]}-{row[1].__name__}") for row in every]


@pytest.mark.parametrize(("generator", "make"), beginnings(), indirect=["generator"])
def test_trials_begin_as_the_runs_of_their_seeds(generator: str, make: Callable[[], Model]) -> None:
    model = make()
    together = init(trials(model, TRIALS), trial_keys(2**31 + 5, TRIALS))
    for r in range(TRIALS):
        alone = init(model, jax.random.key(2**31 + 5 + r))
        jax.tree.map(lambda a, b, r=r: np.testing.assert_array_equal(a[r], b), together, alone)
    kernels = jax.tree.leaves(together)
    assert any((leaf[0] != leaf[1]).any() for leaf in kernels)


@pytest.mark.full
@pytest.mark.parametrize(
    ("method", "engine"),
    [(early_exit, sequential), (bp, sequential), (early_exit, lambda model: spmd(model, stages=2))],
    ids=["early_exit", "bp", "early_exit on a mesh"],
)
def test_trials_drop_out_as_the_runs_of_their_seeds(
    generator: str, method: Callable, engine: Callable, as_batches: Callable[..., Batches]
) -> None:
    model = method(mlp((64, 64), dropout=0.5), SPEC, CLASSES, tx=optax.sgd(0.1))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 6)).astype(np.float32), rng.integers(0, CLASSES, (2, 4))
    many, keys = trials(model, TRIALS), trial_keys(0, TRIALS)
    both = engine(many)
    fed = as_batches(np.stack([x] * TRIALS, 1), np.stack([y] * TRIALS, 1))
    together = both.states(both.run(both.load(init(many, keys), keys), fed)[0])
    one = sequential(model)
    for r in range(TRIALS):
        state = one.load(init(model, keys[r]), keys[r])
        alone = one.states(one.run(state, as_batches(x, y))[0])
        jax.tree.map(lambda a, b, r=r: np.testing.assert_allclose(a[r], b, rtol=1e-5, atol=1e-6), together, alone)


def test_keys_of_trials(x64: None) -> None:
    keys = trial_keys(3, 4)
    assert keys.shape == (4,)
    for r in range(4):
        assert keys[r] == jax.random.key(3 + r)
    assert trial_keys(3, None) == jax.random.key(3)


@pytest.mark.parametrize("count", [0, -1])
def test_too_few_trials_are_refused(count: int) -> None:
    model = al(mlp((4,)), SPEC, CLASSES, tx=optax.sgd(0.1), target_width=4)
    with pytest.raises(ValueError, match=f"trials must be at least 1, of a model without trials; got {count} of None"):
        trials(model, count)
    with pytest.raises(ValueError, match="got 2 of 3"):
        trials(trials(model, 3), 2)


def test_features_of_trials_are_those_of_each_alone(generator: str, random_states: Callable) -> None:
    model = early_exit(mlp((5, 5), dropout=0.5), SPEC, CLASSES, tx=optax.sgd(0.1))
    x = np.random.default_rng(0).normal(size=(TRIALS, 4, 6)).astype(np.float32)
    keys = [jnp.stack([jax.random.fold_in(k, i) for k in trial_keys(9, TRIALS)]) for i in range(2)]
    each = [random_states(model, seed) for seed in range(TRIALS)]
    together = jax.jit(trials(model, TRIALS).features)(stacked(each), jnp.asarray(x), keys)
    run = jax.jit(model.features)
    for r in range(TRIALS):
        alone = run(each[r], jnp.asarray(x[r]), [k[r] for k in keys])
        jax.tree.map(lambda a, b, r=r: np.testing.assert_allclose(a[r], b, rtol=1e-5, atol=1e-6), together, alone)


def stacked(each: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def test_noise_of_an_optimizer_is_that_of_each_trial_alone(generator: str, as_batches: Callable[..., Batches]) -> None:
    tx = optax.chain(optax.add_noise(0.1, 0.5, 3), optax.sgd(0.1))
    model, rng = early_exit(mlp((5,)), SPEC, CLASSES, tx=tx), np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 6)).astype(np.float32), rng.integers(0, CLASSES, (2, 4))
    keys = trial_keys(0, TRIALS)
    starts = [init(model, key) for key in keys]
    both, one = sequential(trials(model, TRIALS)), sequential(model)
    fed = as_batches(np.stack([x] * TRIALS, 1), np.stack([y] * TRIALS, 1))
    together = both.states(both.run(both.load(stacked(starts), keys), fed)[0])
    for r in range(TRIALS):
        alone = one.states(one.run(one.load(starts[r], keys[r]), as_batches(x, y))[0])
        for a, b in zip(together, alone, strict=True):
            close = lambda p, q, r=r: np.testing.assert_allclose(p[r], q, rtol=1e-5, atol=1e-6)
            jax.tree.map(close, a.params, b.params)
