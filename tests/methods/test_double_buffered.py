"""Backpropagation with weights that are one update old: two versions of them, on any stages the same."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad import testing, training
from localgrad.base import DivergedError, Model
from localgrad.blocks import mlp
from localgrad.report import largest_difference

SPEC = jax.ShapeDtypeStruct((4, 5), jnp.float64)
EVERY, KEY = 4, jax.random.key(3)


def build(tx: optax.GradientTransformation | None = None, dropout: float = 0.0) -> Model:
    return lg.bp(mlp((7, 6, 4), dropout=dropout), SPEC, 3, tx=tx or optax.sgd(0.3, momentum=0.9))


def after(engine: lg.Engine, start: Any, given: Any) -> tuple[Any, Any]:
    state, metrics = engine.run(engine.load(start, KEY), engine.put(given))
    states, rest = engine.drain(state, given)
    metrics.check()
    rest.check()
    return states, metrics


def test_it_is_the_recursion_of_the_paper(x64: None, random_states: Callable) -> None:
    plain, tx = build(), optax.sgd(0.3, momentum=0.9)
    model = lg.double_buffered(plain, EVERY)
    given, start = testing.random_batches(model, 5 * EVERY), random_states(model)
    ours, _ = after(lg.sequential(model), start, given)
    states = random_states(plain)
    params = [state.params for state in states]

    @jax.jit
    def gradient(params: list, x: jax.Array, y: jax.Array) -> list:
        put = lambda params: tuple(s._replace(params=p) for s, p in zip(states, params, strict=True))
        loss = lambda params: plain.task.loss(plain.predict(put(params), x), y)
        return jax.grad(loss)(params)

    before, own = params, tx.init(params)
    for t in range(5):
        pairs = [given.fetch(jax.tree.map(lambda a, k=k: a[k], given.items), 0, 4) for k in range(4 * t, 4 * t + 4)]
        each = [gradient(before, x, y) for x, y in pairs]
        mean = jax.tree.map(lambda *grads: sum(grads) / EVERY, *each)
        updates, own = tx.update(mean, own, params)
        before, params = params, optax.apply_updates(params, updates)
    assert largest_difference([state.params for state in ours], params) <= 1e-12
    assert largest_difference(ours[0].params, start[0].params) > 1e-3


@pytest.mark.full
def test_stages_change_nothing(x64: None, random_states: Callable) -> None:
    """The streamed pipeline of three stages gives the numbers of the sequential engine without delays."""
    model = lg.double_buffered(build(optax.adam(1e-2, eps=1e-3), dropout=0.2), EVERY)
    given, start = testing.random_batches(model, 3 * EVERY + 1), random_states(model)
    alone, _ = after(lg.sequential(model), start, given)
    for more in ({"asynchronous": "stashed"}, {"asynchronous": "current"}, {"micro_batches": 1}):
        found, _ = after(lg.spmd(model, stages=3, **more), start, given)
        assert largest_difference([s.params for s in found], [s.params for s in alone]) <= 1e-12, more


@pytest.mark.slow
def test_the_pipeline_gives_the_same_numbers(x64: None) -> None:
    assert testing.check_engines(lg.double_buffered(build(dropout=0.2), 2), stages=2) <= 1e-12


@pytest.mark.slow
def test_too_few_batches_are_noticed(x64: None, random_states: Callable) -> None:
    model = lg.double_buffered(build(), 1)
    given = testing.random_batches(model, 6)
    with pytest.raises(DivergedError, match="of block 1"):
        after(lg.sequential(model, (3, 1, 0)), random_states(model), given)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: lg.double_buffered(build(), 0), "an update is of at least one batch; got 0"),
        (
            lambda: lg.double_buffered(lg.dgl(mlp((4,)), SPEC, 3, tx=optax.sgd(0.1)), 2),
            "such as bp, before they are run in several trials; method 'dgl' is not so here",
        ),
        (lambda: lg.double_buffered(lg.trials(build(), 2), 2), "method 'bp' is not so here"),
    ],
)
def test_what_is_refused(make: Callable, says: str, x64: None) -> None:
    with pytest.raises(ValueError, match=says):
        make()


NAMES = {"method": "bp", "widths": (8, 6, 4), "limit": 320, "epochs": 1}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"stages": 3, "asynchronous": "stashed", "double_buffered": 3},
            "a gradient comes down 3 stages in 4 batches; give at least 4",
        ),
        ({"double_buffered": 0}, "--double_buffered must be at least 1; got 0"),
        ({"method": "al", "double_buffered": 2}, "method 'al' is not so here"),
    ],
)
def test_a_command_that_cannot_be(change: dict, says: str, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=says):
        training.prepare_all(training.Config(**{**NAMES, **change}, workdir=str(tmp_path)))


@pytest.mark.slow
def test_a_command_trains_with_two_versions(tmp_path: Any) -> None:
    config = training.Config(**NAMES, double_buffered=2, schedule="cosine", workdir=str(tmp_path))
    (job,) = training.prepare_all(config)
    training.run(config, [job], lambda line: None)
    state = training.restore(job.specs, str(tmp_path)).states[0]
    assert {int(kept.version) for kept in state.opt_state.values()} == {job.total_steps // 2}
    assert np.isfinite(np.asarray(jax.tree.leaves(state.params)[0])).all()
