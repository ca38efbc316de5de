"""Data shards agree about what is no float, and what never moves may hold infinities."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad.base import MODEL_STATE, Block, DivergedError

SPEC = jax.ShapeDtypeStruct((4, 3), jnp.float32)
RNG = np.random.default_rng(0)
FED = lg.data.batches(RNG.normal(size=(3, 4, 3)).astype(np.float32), RNG.integers(0, 3, (3, 4)))
MASK = np.array([0.0, 0.0, -np.inf], np.float32)


def with_state(first, moves) -> Block:
    """A dense layer with a state that moves by `(state, x, key)`, and that is added to what it is given, masked."""
    dense = lg.mlp((3,))[0]

    def init(key, spec):
        return dense.init(key, spec)[0], {"own": jnp.asarray(first)}

    def apply(params, state, x, *, key, train):
        y = dense.apply(params, {}, jnp.where(state["own"] < 0, 0, x), key=key, train=train)[0]
        return y, {"own": moves(state["own"], x, key)} if train else state

    return Block(init, apply, "own")


@cache
def constant(method):
    """Blocks that never move their state, which holds an infinity."""
    return model_of(MASK, lambda own, x, key: own, method)


@cache
def growing():
    """Blocks whose state is infinite from the second batch on."""
    return model_of(np.zeros(3, np.float32), lambda own, x, key: jnp.where(own >= 1, jnp.inf, own + 1))


def model_of(first, moves, method=lg.early_exit):
    return method([with_state(first, moves) for _ in range(2)], SPEC, 3, tx=optax.sgd(0.1))


def train(engine, model):
    state, metrics = engine.run(engine.load(lg.init(model, jax.random.key(0)), jax.random.key(1)), FED)
    states, rest = engine.drain(state, FED)  # by the program of the call: another need not be compiled
    return states, [metrics, rest]


@pytest.mark.parametrize(
    "moves",
    [
        lambda own, x, key: own + jnp.sum(x > 0, 0).astype(jnp.int32),
        lambda own, x, key: own + jax.random.randint(key, (3,), 0, 5),
        lambda own, x, key: jax.lax.fori_loop(0, 2, lambda i, own: own + jnp.sum(x > 0, 0).astype(jnp.int32), own),
    ],
    ids=["examples", "draws", "loop"],
)
def test_whole_numbers_that_shards_make_of_their_own_are_refused(moves):
    model = model_of(np.zeros(3, np.int32), moves)
    with pytest.raises(ValueError, match=r"data_parallel=2: model state\['f'\]\['own'\] of block 1 \(own\) is int32"):
        lg.spmd(model, stages=2, data_parallel=2)
    lg.spmd(model, stages=2)  # a whole batch has one count


@pytest.mark.parametrize("method", [lg.early_exit, lg.dfa])
def test_whole_numbers_of_metrics_are_refused(method):
    model = method(lg.mlp((3, 3)), SPEC, 3, tx=optax.sgd(0.1))
    block = model.blocks[0]
    name = "forward" if block.backward is None else "backward"

    def counted(*given):
        found = getattr(block, name)(*given)
        return found._replace(metrics={**found.metrics, "right": found.metrics["loss"] > 0.5})

    model = model._replace(blocks=(block._replace(**{name: counted}), *model.blocks[1:]))
    with pytest.raises(ValueError, match=r"metrics\['right'\] of block 1 .* is bool .*keep a float"):
        lg.spmd(model, stages=2, data_parallel=2)


def test_a_count_of_steps_is_the_same_on_all_shards():
    model = model_of(np.zeros(3, np.int32), lambda own, x, key: own + 1)
    states, _ = train(lg.spmd(model, stages=2, data_parallel=2), model)
    for state in states:
        np.testing.assert_array_equal(state.model_state["f"]["own"], 3)


ENGINES = {
    "sequential": lg.sequential,
    "spmd": lambda model: lg.spmd(model, stages=2, staleness="locked"),
    "shards": lambda model: lg.spmd(model, stages=2, staleness="locked", data_parallel=2),
}


@pytest.mark.parametrize(
    ("engine", "method"),
    [
        ("sequential", lg.early_exit),
        ("shards", lg.dfa),
        *(  # the plainest engine and rule are above, and the others with shards, which have all that can go wrong
            pytest.param(*each, marks=pytest.mark.full)
            for each in [
                ("sequential", lg.dfa),
                ("shards", lg.early_exit),
                ("spmd", lg.dfa),
                ("spmd", lg.bp),
                ("shards", lg.bp),
            ]
        ),
    ],
)
def test_a_constant_may_hold_infinities(engine, method):
    model = constant(method)
    states, metrics = train(ENGINES[engine](model), model)
    for each in metrics:
        each.check()
    for state, first in zip(states, lg.init(model, jax.random.key(0)), strict=True):
        for own in jax.tree.leaves(state.model_state):  # a block of a head alone has none
            np.testing.assert_array_equal(own, MASK)
        assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (state.params, first.params)), strict=True))


def test_trials_of_a_constant_with_infinities():
    model = lg.trials(constant(lg.early_exit), 2)
    twice = lambda x: np.stack([x, x], 1)
    fed = lg.data.batches(*(twice(np.asarray(x)) for x in FED.items))
    engine, keys = lg.sequential(model), lg.trial_keys(0, 2)
    engine.run(engine.load(lg.init(model, keys), keys), fed)[1].check()


@pytest.mark.parametrize("engine", ["sequential", "shards"])
def test_a_model_state_that_becomes_infinite_is_named(engine):
    model = growing()
    states, metrics = train(ENGINES[engine](model), model)
    with pytest.raises(DivergedError, match=r"the model state .* of block 1 is not finite on batch 1"):
        for each in metrics:
            each.check()
    assert any((np.asarray(stopped) == MODEL_STATE).any() for each in metrics for stopped in each.stopped)
    for state in states:
        assert np.isfinite(np.asarray(state.model_state["f"]["own"])).all()
