"""Blocks that take their turns in a drawn order and learn from buffers (asynchronous decoupled greedy learning)."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad import training
from localgrad.base import Batches, DivergedError, Model
from localgrad.blocks import mlp
from localgrad.keys import block_key
from localgrad.pipeline import drawn_order, replayed
from localgrad.pipeline.step import forward
from localgrad.report import largest_difference
from localgrad.testing import random_batches
from localgrad.testing.examples import some_of

CYCLE = lambda key, n: (n + 1) % 3
KEY = jax.random.key(5)


@cache
def model(**options: Any) -> Model:
    network = mlp(**{"widths": (6, 5, 4), "dropout": 0.2, "norm": True, **options})
    return lg.early_exit(network, jax.ShapeDtypeStruct((8, 5), jnp.float64), 3, tx=optax.sgd(0.1, momentum=0.9))


def ran(model: Model, engine: lg.Engine, start: Any, given: Batches, per_call: int = 6):
    state, found = engine.load(start, KEY), []
    for first in range(0, len(given.batch_id), per_call):
        state, metrics = engine.run(state, some_of(given, first, first + per_call))
        found.append(metrics)
    return state, engine.states(state), jax.tree.map(lambda *each: np.concatenate(each), *found)


@cache
def in_order(size: int) -> lg.Engine:
    return replayed(model(), size, order=CYCLE)


@cache
def with_shares() -> lg.Engine:
    return replayed(model(), 2, (1, 2, 0.5))


# Buffers of several batches are those of the algorithm of the paper, below.
@pytest.mark.parametrize("size", [1, pytest.param(3, marks=pytest.mark.full)])
def test_in_the_order_of_the_blocks_it_is_sequential_training(size: int, x64: None, random_states: Callable) -> None:
    m = model()
    start, given = random_states(m), random_batches(m, 6)
    _, ours, metrics = ran(m, in_order(size), start, given)
    _, theirs, expected = ran(m, lg.sequential(m), start, given)
    assert largest_difference(ours, theirs) <= 1e-12
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), metrics, expected)


def restated(m: Model, start: Any, given: Batches, size: int, draws: list[int]) -> tuple[list, list[int]]:
    """Algorithm 2 of the paper in Python: lists of messages, no arrays of them; and how often batches were used."""
    states, uses = list(start), []
    run = lambda block: jax.jit(lambda state, message, key: forward(block, state, message, key, jnp.array(True)))
    learn = [run(block) for block in m.blocks]
    buffers: list[list[dict]] = [[] for _ in states]

    def turn(i: int, message: Any, batch: int, used: int) -> None:
        key = block_key(KEY, batch, i)
        key = jax.random.fold_in(key, used) if used else key
        passed = learn[i](states[i], message, key)
        states[i] = passed.state
        if i + 1 < len(states):
            buffers[i + 1] = [*buffers[i + 1], {"message": passed.message, "batch": batch, "used": 0}][-size:]

    order = iter(draws)
    for k in range(len(given.batch_id)):
        x, y = given.fetch(jax.tree.map(lambda a, k=k: a[k], given.items), 0, m.batch_size)
        turn(0, m.enter(x, y), k, 0)
        while i := next(order):
            if buffers[i]:
                least = min(entry["used"] for entry in buffers[i])
                entry = [entry for entry in buffers[i] if entry["used"] == least][-1]
                uses.append(entry["used"])
                turn(i, entry["message"], entry["batch"], entry["used"])
                entry["used"] += 1
    return states, uses


def test_it_is_the_algorithm_of_the_paper(x64: None, random_states: Callable) -> None:
    m = model()
    start, given, order = random_states(m), random_batches(m, 6), drawn_order((1, 2, 0.5))
    draws = jax.vmap(order, in_axes=(None, 0))(KEY, jnp.arange(60, dtype=jnp.int32)).tolist()
    state, ours, _ = ran(m, with_shares(), start, given)
    theirs, uses = restated(m, start, given, 2, draws)
    assert max(uses) > 1 and draws[: int(state.draws)].count(0) == 6
    assert largest_difference(ours, theirs) <= 1e-12


def test_the_order_is_a_value_of_the_key() -> None:
    order = jax.jit(jax.vmap(drawn_order((1, 1, 0.5, 1)), in_axes=(None, 0)))
    numbers = jnp.arange(4000, dtype=jnp.int32)
    first, again, other = (np.asarray(order(jax.random.key(seed), numbers)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_allclose(np.bincount(first) / 4000, np.array([2, 2, 1, 2]) / 7, atol=0.02)


def test_calls_of_any_length_give_the_same_numbers(x64: None, random_states: Callable) -> None:
    m = model()
    start, given = random_states(m), random_batches(m, 6)
    engine = with_shares()
    whole, pieces = (ran(m, engine, start, given, per_call)[:2] for per_call in (6, 2))
    assert int(whole[0].draws) == int(pieces[0].draws)
    assert largest_difference(whole[1], pieces[1]) <= 1e-12


def test_a_block_alone_is_sequential_training(x64: None, random_states: Callable) -> None:
    m = model(widths=(6,))
    start, given = random_states(m), random_batches(m, 4)
    ours, theirs = (ran(m, engine, start, given)[1] for engine in (replayed(m, 2), lg.sequential(m)))
    assert largest_difference(ours, theirs) == 0


def test_what_is_not_finite_stops_the_blocks_that_it_reaches(x64: None, random_states: Callable) -> None:
    m = model()
    start = list(random_states(m))
    start[1] = start[1]._replace(params=jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), start[1].params))
    _, found, metrics = ran(m, in_order(1), tuple(start), random_batches(m, 6))
    with pytest.raises(DivergedError, match="block 2"):
        metrics.check()
    assert largest_difference(found[0], start[0]) > 0
    assert largest_difference(found[2].params, start[2].params) == 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: replayed(lg.bp(mlp((4, 3)), jax.ShapeDtypeStruct((4, 5), "float32"), 3, tx=optax.sgd(0.1)), 2),
         "replay is for rules whose blocks wait for nothing, such as dgl; those of method 'bp'"),
        (lambda: replayed(lg.trials(model(), 2), 2), "train trials one after another"),
        (lambda: replayed(lg.layerwise(model(), 4), 2), "leave out replay, or greedy_epochs and `layerwise`"),
        (lambda: replayed(model(), 0), "replay=0; a buffer holds at least one batch"),
        (lambda: replayed(model(), 2, (1, 1)), "replay_shares are one a block, of 3; got"),
        (lambda: drawn_order((1, 0)), "shares are positive numbers"),
    ],
)  # fmt: skip
def test_what_is_refused(make: Callable, says: str) -> None:
    with jax.enable_x64(True), pytest.raises(ValueError, match=says):
        make()


NAMES = {"method": "early_exit", "net": "mlp", "widths": (8, 6), "batch_size": 64, "limit": 320, "replay": 2}


def config(folder: Any, **changes: Any) -> training.Config:
    return training.Config(**{**NAMES, "workdir": str(folder), **changes})


def test_a_run_goes_on_where_it_stopped(tmp_path: Any) -> None:
    def digest(name: str, *epochs: int) -> str:
        for count in epochs:
            given = config(tmp_path / name, epochs=count)
            summary = training.run(given, training.prepare_all(given), lambda line: None)
        return summary["params_sha256"]

    assert digest("whole", 2) == digest("parts", 1, 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stages": 2}, "--replay has no pipeline: there all stages have their turns at once"),
        ({"engine": "spmd"}, "--replay has no pipeline"),
        ({"replay": None, "replay_shares": (1.0, 1.0)}, "which is drawn with --replay alone"),
        ({"replay": 0}, "--replay must be at least 1; got 0"),
        ({"method": "dfa"}, "those of method 'dfa' wait for a signal"),
        ({"greedy_epochs": 1, "epochs": 2}, "leave out replay, or greedy_epochs"),
    ],
)
def test_a_command_that_cannot_be(change: dict, says: str, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=says):
        training.prepare_all(config(tmp_path, **change))
