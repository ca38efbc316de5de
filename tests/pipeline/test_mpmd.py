"""The engine of a program a stage: the sequential engine's numbers on every schedule, and nothing padded or copied."""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad import delays_of, mpmd, sequential, spmd
from localgrad.base import Engine, Model
from localgrad.data import batches
from localgrad.methods import METHODS
from localgrad.pipeline.partition import state_bytes
from localgrad.report import params_sha256
from localgrad.testing import random_batches
from localgrad.testing.engines import trained
from localgrad.training import Config, prepare
from localgrad.training.placement import resolve

from .common import examples as examples_of
from .common import initial, make_model
from .test_moments import NAN, ROWS, same, train

# --- the sequential engine's numbers ---------------------------------------------------------------------------------


def digest_of(engine: Engine, name: str, per_call: int, count: int = 14) -> str:
    """The digest after some batches of the small models that the tests of the pipeline share."""
    xs, ys = examples_of(name)
    state = engine.load(initial(name), jax.random.key(2))
    for start in range(0, count, per_call):
        chosen = slice(start, start + per_call)
        state, _ = engine.run(state, batches(xs[chosen], ys[chosen], first=start))
    return params_sha256(jax.device_get(engine.states(state)))


# A part of the table; experiments/results/check_programs.md holds the whole of it.
@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize(
    ("name", "stages", "per_call"),
    [
        ("mlp", 3, 7),
        pytest.param("cnn", 2, 14, marks=pytest.mark.full),
        *(pytest.param("mlp", stages, 1, marks=pytest.mark.full) for stages in (1, 2, 4)),
        *(pytest.param("cnn", stages, 7, marks=pytest.mark.full) for stages in (1, 3, 6)),
        *(pytest.param("cnn-norm", stages, 7, marks=pytest.mark.full) for stages in (1, 2, 3)),
    ],
)
def test_float32_digests_are_equal(name: str, stages: int, per_call: int) -> None:
    model = make_model(name)
    ours, theirs = (digest_of(engine, name, 14) for engine in (mpmd(model, stages=stages), sequential(model)))
    assert ours == theirs != params_sha256(initial(name))
    assert digest_of(mpmd(model, stages=stages), name, per_call) == theirs


# test_moments.py has every schedule, whose numbers it holds both kinds of pipelines against.


@cache
def small(method: str, dtype: Any = jnp.float64, **options: Any) -> Model:
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
    network = lg.mlp((7, 6, 6, 5), **options)
    return METHODS[method].make(network, jax.ShapeDtypeStruct((8, 5), dtype), 3, tx=tx)


def assert_agree(model: Model, ours: Engine, theirs: Engine, states: Sequence[Any]) -> None:
    """States and the metrics of every batch, to 1e-12."""
    given = random_batches(model, 7)
    (mine, told), (other, expected) = (trained(model, engine, states, given, per_call=3) for engine in (ours, theirs))
    assert lg.report.largest_difference(mine, other) < 1e-12
    for i in range(len(model.blocks)):
        rows = [
            {int(b): float(v) for b, v in zip(one.batch_id[i], one.values[i]["loss"], strict=True) if b >= 0}
            for one in (told, expected)
        ]
        assert rows[0] == pytest.approx(rows[1], rel=0, abs=1e-12) and sorted(rows[0]) == list(range(7))


@pytest.mark.slow
@pytest.mark.parametrize("staleness", ["delayed", pytest.param("locked", marks=pytest.mark.full)])
def test_errors_at_the_output_reach_all_stages(staleness: str, x64: None, random_states: Callable) -> None:
    model = small("dkp", norm=True, dropout=0.2)
    engine = mpmd(model, stages=3, staleness=staleness)
    delays = delays_of(engine.plan.cuts) if staleness == "delayed" else None
    assert engine.plan.schedule.delays == ((2, 1, 0) if delays else (0, 0, 0))
    assert_agree(model, engine, sequential(model, delays), random_states(model))


@pytest.mark.full
@pytest.mark.bits  # compiled quickly, norms of parts of a batch make 2e-12 of the last bit on some processors
@pytest.mark.parametrize("method", ["bp", "dtp"])  # which learns at once as well
def test_micro_batches_are_those_of_the_pipeline(method: str, x64: None, random_states: Callable) -> None:
    model = small(method, norm=True, dropout=0.2)
    options = {"stages": 3, "micro_batches": 4}
    ours, theirs = mpmd(model, **options), spmd(model, bubble=NAN, **options)
    assert ours.plan.schedule == theirs.plan.schedule and ours.plan.schedule.parts == 4
    assert_agree(model, ours, theirs, random_states(model))


@pytest.mark.slow
def test_reading_the_states_does_not_disturb_what_is_in_flight(x64: None) -> None:
    make, options, _ = ROWS["relay"]
    model = make()
    engine = mpmd(model, **options)

    class Looking:
        """The same, looked at after every call."""

        load, drain, put = engine.load, engine.drain, engine.put

        @staticmethod
        def run(state: Any, fed: Any) -> Any:
            state, metrics = engine.run(state, fed)
            engine.states(state)
            return state, metrics

    same(train(Looking, model, (3, 3)), train(engine, model, (6,)))  # type: ignore[arg-type]


# --- what is on a device ---------------------------------------------------------------------------------------------


def test_a_device_holds_its_own_stage_and_the_caller_keeps_what_it_gave(random_states: Callable) -> None:
    model = small("early_exit", jnp.float32)
    states = random_states(model)
    engine = mpmd(model, stages=3)
    loaded = engine.load(states, jax.random.key(1))
    state, metrics = engine.run(loaded, random_batches(model, 2))
    assert all(leaf.is_deleted() for stage in loaded.stages for leaf in jax.tree.leaves(stage.blocks))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(states))
    for device, stage, size in zip(jax.devices(), state.stages, engine.plan.stage_bytes, strict=False):
        assert {leaf.device for leaf in jax.tree.leaves(stage)} == {device}
        assert state_bytes(stage.blocks) == size <= engine.plan.slot_bytes == max(engine.plan.stage_bytes)
    found = engine.states(state)
    assert {leaf.device for leaf in jax.tree.leaves((found, metrics))} == {jax.devices()[0]}
    engine.run(state, random_batches(model, 2))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(found))


def test_equal_stages_are_traced_once_and_later_calls_trace_nothing(
    random_states: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    counts = []
    for widths in ((5, 5), (6, 4)):
        spec = jax.ShapeDtypeStruct((8, 5), jnp.float32)
        model = lg.early_exit(lg.mlp(widths), spec, 3, tx=optax.adam(1e-2))
        engine, fed = mpmd(model, stages=2), random_batches(model, 2)
        state = engine.load(random_states(model), jax.random.key(1))
        for _ in range(2):
            caplog.clear()
            with jax.log_compiles(), caplog.at_level(logging.WARNING):
                state, _ = engine.run(state, fed)
            counts.append(sum("Finished tracing" in r.message and " _forward " in r.message for r in caplog.records))
    assert counts == [1, 0, 2, 0]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused(random_states: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("early_exit", jnp.float32)
    with pytest.raises(ValueError, match="stages=3 times data_parallel=1 needs 3 devices; there are 2"):
        mpmd(model, stages=3, devices=jax.devices()[:2])
    with pytest.raises(ValueError, match="unknown staleness 'late'"):
        mpmd(model, stages=2, staleness="late")
    engine = mpmd(model, stages=2)
    state = engine.load(random_states(model), jax.random.key(1))
    with pytest.raises(ValueError, match="batches of 16 examples for a model of batches of 8"):
        engine.run(state, batches(np.zeros((1, 16, 5), np.float32), np.zeros((1, 16), np.int32)))
    with pytest.raises(TypeError, match="run takes Batches"):
        engine.run(state, ())  # type: ignore[arg-type]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="mpmd drives the devices of one process, and there are 2: use spmd"):
        mpmd(model, stages=2)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"data_parallel": 2}, "--engine=mpmd has one pipeline: leave out --data_parallel, or say --engine=spmd"),
        (
            {"method": "dfa", "stages": 2},
            "--engine=mpmd saves no batches in flight.* --stages=2 method 'dfa' learns late",
        ),
        ({"method": "bp", "stages": 2, "asynchronous": "stashed"}, "--engine=mpmd saves no batches in flight"),
    ],
)
def test_what_a_run_cannot_ask_of_it_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        prepare(Config(**{"method": "early_exit", **fields}, engine="mpmd", widths=(8, 8), workdir="nowhere"))


def test_a_run_of_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="--engine=mpmd drives the devices of one process, and there are 2"):
        resolve(Config(method="early_exit", engine="mpmd", stages=2), small("early_exit", jnp.float32))


def test_a_run_on_it_has_its_plan() -> None:
    job = prepare(Config(method="bp", widths=(8, 6), stages=2, engine="mpmd", workdir="nowhere"))
    assert (job.config.engine, job.config.micro_batches, job.config.cuts) == ("mpmd", 8, (0, 1, 2))
    assert job.engine.plan.slot_bytes == max(job.engine.plan.stage_bytes)
