"""The training steps written by hand, in plain jax and in PyTorch, make the library's numbers."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmarks import plain_jax
from localgrad.base import BlockState
from localgrad.blocks import cnn, mlp
from localgrad.methods import METHODS
from localgrad.pipeline import sequential

STEPS, BATCH, CLASSES, POOL, RATE = 3, 8, 3, 32, 0.01
NETWORKS = {
    "mlp": (partial(mlp, (7, 6)), (5,)),
    "cnn": (partial(cnn, (3, 4)), (6, 7, 2)),  # the stride of 2 and the pooling meet an even size and an odd one
}
OPTIONS: dict[str, dict[str, Any]] = {
    "bp": {},
    "al": {"pool": POOL, "target_width": 5},
    "scl": {"pool": POOL},
    "early_exit": {"pool": POOL},
    "predsim": {"pool": POOL},
    "dgl": {"pool": POOL, "aux": "hidden"},
    "dfa": {},
}
QUICK = ("bp", "al", "predsim")  # others are made of the same parts
pairs = pytest.mark.parametrize(
    ("method", "net"),
    [
        pytest.param(method, net, marks=() if net == "mlp" and method in QUICK else pytest.mark.full)
        for net in NETWORKS
        for method in OPTIONS
    ],
)


class Case(NamedTuple):
    """What goes in, and what the library makes of it."""

    states: tuple[BlockState, ...]
    xs: np.ndarray
    ys: np.ndarray
    params: tuple[dict, ...]
    losses: list[np.ndarray]  # of each block `(STEPS,)`


@pytest.fixture(scope="module")
def case(random_states: Callable, as_batches: Callable) -> Callable[[str, str], Case]:
    """Trains a method of the library once, for the tests of either kind."""
    done: dict[tuple[str, str], Case] = {}

    def train(method: str, net: str) -> Case:
        network, shape = NETWORKS[net]
        spec = jax.ShapeDtypeStruct((BATCH, *shape), jnp.float64)
        model = METHODS[method](network(), spec, CLASSES, lambda scale: optax.adam(scale * RATE), **OPTIONS[method])
        states, engine, rng = random_states(model), sequential(model), np.random.default_rng(1)
        xs, ys = rng.normal(size=(STEPS, BATCH, *shape)), rng.integers(0, CLASSES, (STEPS, BATCH), np.int32)
        state, metrics = engine.run(engine.load(states, jax.random.key(0)), as_batches(xs, ys))
        params = tuple(own.params for own in engine.states(state))
        return Case(states, xs, ys, params, [np.asarray(each["loss"]) for each in metrics.values])

    def cached(method: str, net: str) -> Case:
        if (method, net) not in done:
            done[method, net] = train(method, net)
        return done[method, net]

    return cached


def assert_same(ours: Any, theirs: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), ours, theirs)


@pairs
def test_plain_jax(x64: None, case: Callable, method: str, net: str) -> None:
    states, xs, ys, params, losses = case(method, net)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        training = plain_jax.training(method, tuple(own.params for own in states), pool=POOL, rate=RATE)
        (found, _), values = training.run(training.state, jnp.asarray(xs), jnp.asarray(ys))
    assert_same(params, found)
    assert_same(losses[-values.shape[1] :], list(np.asarray(values).T))


@pairs
def test_plain_torch(x64: None, case: Callable, method: str, net: str) -> None:
    torch = pytest.importorskip("torch", reason="of the dev extra")
    from experiments.benchmarks import plain_torch

    states, xs, ys, params, losses = case(method, net)
    to = {"shape": NETWORKS[net][1], "pool": POOL, "device": "cpu", "dtype": torch.float64}
    training = plain_torch.training(method, tuple(own.params for own in states), rate=RATE, **to)
    fed = zip(*plain_torch.inputs(xs, ys, "cpu", torch.float64), strict=True)
    values = [training.step(*batch).numpy() for batch in fed]
    values = np.stack(values, axis=1)
    numbers = lambda tree: jax.tree.map(lambda x: x.detach().numpy(), tree)
    assert_same(numbers(plain_torch.tensors(params, **to)), numbers(training.params))
    assert_same(losses[-len(values) :], list(values))
