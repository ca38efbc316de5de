"""Blocks that learn at two moments: every schedule gives the numbers of the sequential engine with its delays."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad import mpmd, sequential, spmd, trials
from localgrad.base import Backward, BlockState, Engine, Forward, LocalBlock, Metrics, Model
from localgrad.data import batches
from localgrad.methods import trial_keys
from localgrad.pipeline import delays_of, hand_over, init, pipeline_state, schedules, signal_of
from localgrad.report import largest_difference
from localgrad.testing import check_schedule
from tests.pipeline import toys

BATCH, FEATURES, COUNT = 8, 5, 6
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(COUNT, BATCH, FEATURES))
YS = RNG.integers(0, toys.CLASSES, (COUNT, BATCH)).astype(np.int32)
TX = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
NAN = float("nan")


@cache
def dni(dropout: float = 0.0) -> Model:
    return toys.dni(TX, (6, 4, 7), BATCH, FEATURES, dropout)


@cache
def targets() -> Model:
    return toys.targets(TX, (6, 4, 7), BATCH, FEATURES)


def train(engine: Engine, model: Model, per_call: Sequence[int] = (COUNT,)) -> tuple[tuple[BlockState, ...], Metrics]:
    """The states after all batches, and what was reported of them, in the order of the calls."""
    key = jax.random.key(0) if model.trials is None else trial_keys(0, model.trials)
    state, calls, at = engine.load(init(model, key), key), [], 0
    for count in per_call:
        xs, ys = XS[at : at + count], YS[at : at + count]
        if model.trials is not None:
            xs, ys = (np.stack([array] * model.trials, axis=1) for array in (xs, ys))
        state, metrics = engine.run(state, engine.put(batches(xs, ys)))
        calls, at = [*calls, metrics], at + count
    states, rest = engine.drain(state)
    return states, jax.tree.map(lambda *each: jnp.concatenate(each), *calls, *([rest] if rest.values[0] else []))


def by_batch(metrics: Metrics) -> list[dict[int, dict[str, float]]]:
    """Of each block, what it reported of each batch."""
    found = []
    for values, ids in zip(metrics.values, metrics.batch_id, strict=True):
        rows = {int(b): {name: float(x[at]) for name, x in values.items()} for at, b in enumerate(ids) if b >= 0}
        found.append(rows)
    return found


def same(ours: Any, theirs: Any) -> None:
    """States to 1e-12, and every block has reported every batch once, with the same numbers."""
    assert largest_difference(ours[0], theirs[0]) < 1e-12
    reports = by_batch(ours[1]), by_batch(theirs[1])
    for mine, other in zip(*reports, strict=True):
        assert sorted(mine) == sorted(other) == list(range(COUNT))
        for batch, values in mine.items():
            assert values == pytest.approx(other[batch], rel=0, abs=1e-12)


ROWS: dict[str, tuple[Any, dict[str, Any], bool]] = {
    "relay": (dni, {"stages": 3, "cuts": (0, 2, 3, 4)}, True),
    "relay, dropout and shards": (lambda: dni(), {"stages": 2, "data_parallel": 2}, True),
    "relay, locked": (lambda: dni(0.2), {"stages": 3, "staleness": "locked"}, False),
    "relay, one stage": (dni, {"stages": 1}, False),
    "chain": (targets, {"stages": 3, "micro_batches": 1}, False),
    "chain, parts and shards": (targets, {"stages": 2, "micro_batches": 2, "data_parallel": 2}, False),
    "streamed chain": (targets, {"stages": 3, "asynchronous": "stashed"}, True),
    "streamed chain, shards": (targets, {"stages": 2, "data_parallel": 2, "asynchronous": "stashed"}, True),
    "streamed chain, current weights": (targets, {"stages": 4, "asynchronous": "current"}, True),
}
QUICK = ("relay", "chain")
SLOW = ("relay, dropout and shards",)


def marked(row: str) -> Any:
    """A row with how long it takes."""
    return row if row in QUICK else pytest.param(row, marks=pytest.mark.slow if row in SLOW else pytest.mark.full)


@cache
def in_sequence(make: Any, delays: tuple[int, ...] | None, weights: str = "stashed") -> tuple[Any, Metrics]:
    """What `train` gives of the sequential engine, which several tests hold others against."""
    return train(sequential(make(), delays, weights=weights), make())


def expected_of(name: str, cuts: Sequence[int]) -> tuple[Any, Metrics]:
    """What a row of the table is held against."""
    make, options, late = ROWS[name]
    delays = delays_of(cuts, signal_of(make())) if late else None
    return in_sequence(make, delays, options.get("asynchronous", "stashed"))


@pytest.mark.parametrize("name", [marked(row) for row in ROWS])
def test_every_schedule_gives_the_sequential_numbers(name: str, x64: None) -> None:
    make, options, _ = ROWS[name]
    engine = spmd(make(), bubble=NAN, **options)
    same(train(engine, make(), (3, 3)), expected_of(name, engine.plan.cuts))


ALONE = {name: row for name, row in ROWS.items() if "data_parallel" not in row[1]}


# Here, and not beside the other tests of that engine, because the numbers to be held against are the same.
@pytest.mark.parametrize(
    "name",
    [row if row in ("relay", "streamed chain") else pytest.param(row, marks=pytest.mark.full) for row in ALONE],
)
def test_a_program_a_stage_gives_the_sequential_numbers(name: str, x64: None) -> None:
    make, options, late = ROWS[name]
    engine = mpmd(make(), **options)
    assert not late or any(engine.plan.schedule.delays)
    same(train(engine, make(), (3, 3)), expected_of(name, engine.plan.cuts))


def test_a_blocks_loss_is_the_sum_of_both_moments(x64: None) -> None:
    _, metrics = in_sequence(dni, None)
    for values in metrics.values[:-1]:
        assert np.all(values["loss"] != values["away"]) and np.all(values["away"] > 0)


def test_delays_change_the_numbers(x64: None) -> None:
    """A test of delays could pass because they do nothing."""
    in_time, late = (in_sequence(dni, delays)[0] for delays in (None, (1, 0, 1, 0)))
    moved = [largest_difference(a.params, b.params) for a, b in zip(in_time, late, strict=True)]
    assert min(moved) > 1e-6


@pytest.mark.slow
def test_trials_are_each_alone(x64: None) -> None:
    model = dni()
    together, _ = train(spmd(trials(model, 2), stages=2, bubble=NAN), trials(model, 2))
    alone, _ = train(spmd(model, stages=2), model)
    assert largest_difference(jax.tree.map(lambda x: x[0], together), alone) < 1e-12
    assert largest_difference(jax.tree.map(lambda x: x[1], together), alone) > 1e-3


@pytest.mark.full  # test_handover.py has the same of an error from the output
@pytest.mark.slow
@pytest.mark.parametrize("make", [dni, targets])
def test_the_sequential_engine_goes_on_where_a_pipeline_was_left(make: Any, x64: None) -> None:
    model = make()
    signal, cuts = signal_of(model), (0, 1, 3, len(model.blocks))
    options = {"asynchronous": "stashed"} if signal == "above" else {}
    engine, late = spmd(model, stages=3, cuts=cuts, **options), sequential(model, delays_of(cuts, signal))
    key, half = jax.random.key(0), 4
    state, _ = engine.run(engine.load(init(model, key), key), engine.put(batches(XS[:half], YS[:half])))
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)
    assert shapes(tuple(state)) == shapes(tuple(pipeline_state(model, cuts)))
    state, _ = late.run(hand_over(model, cuts, jax.device_get(state), half), batches(XS[half:], YS[half:]))
    assert largest_difference(late.states(state), train(late, model)[0]) < 1e-12


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_nobody_hands_down_is_not_waited_for(x64: None) -> None:
    model = dni()
    silent = model.blocks[-1]._replace(
        forward=lambda *args: model.blocks[-1].forward(*args)._replace(down=None), name="silent"
    )
    with pytest.raises(ValueError, match="'synthetic' waits for what 'silent' hands down, and that hands down nothing"):
        sequential(model._replace(blocks=(*model.blocks[:-1], silent)))
    with pytest.raises(ValueError, match="'synthetic' is the last and waits for 'next': nobody is above it"):
        spmd(model._replace(blocks=model.blocks[:-1]), stages=2)
    deaf = model.blocks[0]._replace(backward=None)
    with pytest.raises(ValueError, match=r"waits for a signal \(next\) and has no `backward`"):
        sequential(model._replace(blocks=(deaf, *model.blocks[1:])))


def test_blocks_wait_for_one_kind_of_signal(x64: None) -> None:
    model = dni()
    other = model.blocks[0]._replace(signal="top")
    with pytest.raises(ValueError, match="wait for different signals, next and top"):
        sequential(model._replace(blocks=(other, *model.blocks[1:])))


def test_one_optimizer_is_of_one_moment(x64: None) -> None:
    model = dni()
    first = model.blocks[0]
    both = first._replace(
        tx={"f+guess": TX}, init=lambda *args: first.init(*args)._replace(opt_state={"f+guess": TX.init({})})
    )
    with pytest.raises(
        ValueError, match=r"'f\+guess' of block 'synthetic' spans groups that learn at different moments"
    ):
        sequential(model._replace(blocks=(both, *model.blocks[1:])))


def test_what_belongs_to_another_schedule_is_refused(x64: None) -> None:
    with pytest.raises(ValueError, match="asynchronous='stashed' is for methods whose gradients come down"):
        spmd(dni(), stages=2, asynchronous="stashed")
    with pytest.raises(ValueError, match="unknown asynchronous='late'; there are stashed, current"):
        spmd(targets(), stages=2, asynchronous="late")
    with pytest.raises(ValueError, match="streams whole batches: leave out micro_batches=2"):
        spmd(targets(), stages=2, asynchronous="stashed", micro_batches=2)
    for delays in (None, (1, 1, 0, 0)):
        with pytest.raises(ValueError, match="unknown weights 'late'; there are stashed, current"):
            sequential(targets(), delays, weights="late")
    with pytest.raises(ValueError, match="no delay is less than that of the block above"):
        sequential(targets(), (1, 2, 0, 0))


# --- the law of delays -----------------------------------------------------------------------------------------------


def quadratics(curvatures: Sequence[float], signal: str, rate: float) -> Model:
    """Blocks of one parameter w each, whose gradient is that of curvature / 2 w^2 at the w that ran forward."""

    def block(curvature: float, last: bool) -> LocalBlock:
        tx = optax.sgd(rate)

        def block_init(key, message) -> BlockState:
            params = {"w": jnp.ones((), message["x"].dtype)}
            return BlockState(params, {}, {"w": tx.init(params)})

        at_once = last and signal == "next"

        def forward(state, message, key) -> Forward:
            w = state.params["w"]
            loss, grads = 0.5 * curvature * w**2, {"w": curvature * w}
            if at_once:
                return Forward(message, {}, grads, {"loss": loss}, down=jnp.zeros_like(w))
            return Forward(message, {}, stash={"w": w}, down=jnp.zeros_like(w))

        def backward(state, stash, signal) -> Backward:
            w = stash["w"]
            return Backward({"w": curvature * w}, {"loss": 0.5 * curvature * w**2}, jnp.zeros_like(w))

        return LocalBlock("quadratic", "none" if at_once else signal, block_init, forward, {"w": tx}, backward)  # type: ignore[arg-type]

    blocks = [block(c, i == len(curvatures) - 1) for i, c in enumerate(curvatures)]
    return toys.model_of("quadratic", blocks, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("signal", "delays"), [("next", (1, 1, 0)), ("above", (3, 1, 0))])
def test_the_law_of_delays(signal: str, delays: tuple[int, ...], x64: None) -> None:
    """Descent with delay D on curvature c is stable while 0 < rate c < 2 sin(pi / (2 (2 D + 1))), and no longer."""
    late, steps, rate = np.array(delays), 1200, 0.5
    bounds = 2 * np.sin(np.pi / (2 * (2 * late + 1)))
    fed = batches(jnp.zeros((steps, 1, 1)), jnp.zeros((steps, 1), jnp.int32))
    for share, stable in ((0.98, True), (1.02, False)):
        curvatures = share * bounds / rate
        model = quadratics(curvatures.tolist(), signal, rate)
        engine = spmd(model, stages=3, bubble=NAN, asynchronous="stashed" if signal == "above" else None)
        assert delays_of(engine.plan.cuts, signal) == engine.plan.schedule.delays == delays  # type: ignore[arg-type]
        state, _ = engine.run(engine.load(init(model, jax.random.key(0)), jax.random.key(1)), fed)
        found = [float(state.params["w"]) for state in engine.states(state)]
        expected = np.ones((3, steps + 1))
        for s, delay in enumerate(delays):
            for k in range(steps):
                expected[s, k + 1] = expected[s, k] - rate * curvatures[s] * expected[s, max(k - delay, 0)]
        np.testing.assert_allclose(found, expected[:, -1], rtol=1e-6, atol=1e-12)
        largest = np.abs(expected[:, -20:]).max(axis=1)
        assert np.all(largest < 0.1 if stable else largest > 10), largest


# --- schedules as values ---------------------------------------------------------------------------------------------

SCHEDULES = {
    "local": schedules.local(3),
    "relay": schedules.relay(3),
    "relay, locked": schedules.relay(3, "locked"),
    "broadcast": schedules.broadcast(3),
    "broadcast, locked": schedules.broadcast(3, "locked"),
    "chain": schedules.chain(3, 4),
    "streamed chain": schedules.streamed_chain(3),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_one_story(name: str) -> None:
    check_schedule(SCHEDULES[name])


def test_delays_by_block_follow_from_the_stages() -> None:
    assert delays_of((0, 2, 5, 6)) == (2, 2, 1, 1, 1, 0)
    assert delays_of((0, 2, 5, 6), "next") == (0, 1, 0, 0, 1, 0)
    assert delays_of((0, 2, 5, 6), "above") == (3, 3, 1, 1, 1, 0)
