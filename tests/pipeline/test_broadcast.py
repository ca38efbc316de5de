"""The broadcast schedule: what is late, by how much, and what is kept for how long."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import localgrad as lg
from localgrad import dfa, dgl, dkp, early_exit, mlp, sequential, spmd
from localgrad.base import Backward, BlockState, Forward, LocalBlock, Message, Model
from localgrad.blocks import cnn
from localgrad.data import batches
from localgrad.methods import trial_keys, trials
from localgrad.pipeline import delays_of, init, schedules, specs
from localgrad.pipeline.partition import state_bytes
from localgrad.pipeline.stash import stashes
from localgrad.report import largest_difference, params_sha256
from localgrad.tasks import classification
from localgrad.testing import random_batches

BATCH, CLASSES, STEPS = 8, 3, 12
NAN = float("nan")


@cache
def model_of(make: Callable = dfa, dtype=jnp.float32, norm: bool = False, widths: tuple[int, ...] = (7, 6)) -> Model:
    """Hidden blocks and the output, with a momentum and a decay that could move in a bubble."""
    tx = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.9))
    network = mlp(widths, norm=norm)
    return make(network, jax.ShapeDtypeStruct((BATCH, 5), dtype), CLASSES, tx=tx)


def examples(model: Model, steps: int = STEPS):
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(steps, *model.x_spec.shape)).astype(model.x_spec.dtype)
    return jnp.asarray(xs), jnp.asarray(rng.integers(0, CLASSES, (steps, *model.y_spec.shape)).astype(np.int32))


def trained(engine, states, model: Model, per_call: int = STEPS, key=None):
    xs, ys = examples(model)
    state, metrics = engine.load(states, jax.random.key(1) if key is None else key), []
    for start in range(0, STEPS, per_call):
        chosen = slice(start, start + per_call)
        fed = batches(xs[chosen], ys[chosen], first=start)
        state, reported = engine.run(state, fed)
        metrics.append(reported)
    states, last = engine.drain(state, fed)  # by the program of the calls: another need not be compiled
    return jax.device_get(states), jax.device_get([*metrics, last])


def losses(metrics, block: int) -> dict[int, float]:
    """The loss of a block by batch; each batch is reported once."""
    found: dict[int, float] = {}
    for call in metrics:
        for k, batch_id in enumerate(call.batch_id[block]):
            if batch_id >= 0:
                assert int(batch_id) not in found
                found[int(batch_id)] = float(call.values[block]["loss"][k])
    return found


# --- agreement with the sequential engine; digests are in test_exactness.py ------------------------------------------


def test_metrics_are_those_of_the_batch_they_name(x64: None, random_states: Callable) -> None:
    model = model_of(dtype=jnp.float64)
    states = random_states(model)
    engine = spmd(model, stages=3, bubble=NAN)
    found, metrics = trained(engine, states, model, per_call=4)
    delays = delays_of(engine.plan.cuts)
    assert delays == (2, 1, 0)
    expected, reported = trained(sequential(model, delays), states, model, per_call=6)
    assert largest_difference(found, expected) < 1e-12
    assert largest_difference(found, trained(sequential(model), states, model)[0]) > 1e-3
    for block in range(len(states)):
        ours, theirs = losses(metrics, block), losses(reported, block)
        assert list(ours) == list(theirs) == list(range(STEPS))
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-12)


@pytest.mark.parametrize("staleness", [pytest.param("locked", marks=pytest.mark.full), "delayed"])
def test_data_shards_agree_with_one(staleness: str, x64: None, random_states: Callable) -> None:
    model = model_of(dkp, jnp.float64, widths=(7,))
    states = random_states(model)
    one, two = (
        trained(spmd(model, stages=2, data_parallel=shards, staleness=staleness, bubble=NAN), states, model)[0]
        for shards in (1, 2)
    )
    assert largest_difference(one, two) < 1e-12


def test_blocks_with_losses_of_their_own_among_those_that_wait(x64: None, random_states: Callable) -> None:
    """They stay where they are, below and above one that waits, and are late with it."""
    waiting = model_of(dtype=jnp.float64, widths=(7, 6, 5))
    local = early_exit(mlp((7, 6, 5)), waiting.x_spec, CLASSES, tx=optax.sgd(0.1, momentum=0.9)).blocks
    model = waiting._replace(blocks=(local[0], waiting.blocks[1], local[2], waiting.blocks[3]))
    states = random_states(model)
    engine = spmd(model, stages=2, cuts=(0, 3, 4), bubble=NAN)
    found, _ = trained(engine, states, model)
    expected, _ = trained(sequential(model, delays_of(engine.plan.cuts)), states, model)
    assert largest_difference(found, expected) < 1e-12


def test_a_block_alone_has_nobody_to_tell(x64: None, random_states: Callable) -> None:
    spec = jax.ShapeDtypeStruct((BATCH, 5), jnp.float64)
    model = dgl(mlp((7,)), spec, CLASSES, tx=optax.sgd(0.1), last_gradient_weight=0.5)
    states = random_states(model)
    found, expected = (trained(engine, states, model)[0] for engine in (spmd(model, stages=1), sequential(model)))
    assert largest_difference(found, expected) < 1e-12


@pytest.mark.full
def test_trials_are_delayed_alike(x64: None, random_states: Callable) -> None:
    """Trial r of a batched model is the model alone: the vjp that waits is batched too."""
    one = model_of(dkp, jnp.float64)
    both, keys = trials(one, 2), trial_keys(0, 2)
    states = random_states(both)
    xs, ys = examples(both)
    engine = spmd(both, stages=2, bubble=NAN)
    state, _ = engine.run(engine.load(states, keys), batches(xs, ys))
    found = engine.states(state)
    delays = delays_of(engine.plan.cuts)
    for trial in range(2):
        alone = sequential(one, delays)
        state, _ = alone.run(
            alone.load(jax.tree.map(lambda x, r=trial: x[r], states), keys[trial]), batches(xs[:, trial], ys[:, trial])
        )
        assert largest_difference(jax.tree.map(lambda x, r=trial: x[r], found), alone.states(state)) < 1e-12


# --- the law of delays -----------------------------------------------------------------------------------------------


def quadratics(curvatures: np.ndarray, rate: float) -> Model:
    """Blocks of parameters w of their own, of losses curvature / 2 w^2, and of the gradient of the w that ran forward.

    There is a row of curvatures for each block, and a column for each of its parameters, which know nothing of each
    other.
    """

    def block(curvature: np.ndarray, last: bool) -> LocalBlock:
        tx = optax.sgd(rate)

        def block_init(key, message) -> BlockState:
            params = {"w": jnp.ones(curvature.shape, message["x"].dtype)}
            return BlockState(params, {}, {"w": tx.init(params)})

        def forward(state: BlockState, message: Message, key) -> Forward:
            w = state.params["w"]
            if not last:
                return Forward(message, state.model_state, stash={"w": w})
            loss = jnp.sum(0.5 * curvature * w**2)
            error = {"error": jnp.zeros_like(w)}
            return Forward(message, state.model_state, {"w": curvature * w}, {"loss": loss}, down=error)

        def backward(state: BlockState, stash, signal) -> Backward:
            loss = jnp.sum(0.5 * curvature * stash["w"] ** 2)
            return Backward({"w": curvature * stash["w"]}, {"loss": loss})

        return LocalBlock("quadratic", "none" if last else "top", block_init, forward, {"w": tx}, backward)

    x_spec, y_spec = jax.ShapeDtypeStruct((1, 1), jnp.float64), jax.ShapeDtypeStruct((1,), jnp.int32)
    nothing = lambda *args: []
    blocks = tuple(block(c, i == len(curvatures) - 1) for i, c in enumerate(curvatures))
    used = (frozenset({"w"}),) * len(blocks)
    enter = lambda x, y: {"x": x}
    return Model("quadratic", blocks, x_spec, y_spec, classification(2), enter, nothing, nothing, (len(blocks),), used)


@pytest.mark.parametrize("stages", [pytest.param(2, marks=pytest.mark.full), 4])
def test_stage_s_is_late_by_s_1_minus_s(stages: int, x64: None) -> None:
    """Descent with delay D on curvature c is stable while 0 < rate c < 2 sin(pi / (2 (2 D + 1))), and no longer."""
    delays = np.arange(stages)[::-1]
    bounds = 2 * np.sin(np.pi / (2 * (2 * delays + 1)))
    steps, rate = 1200, 0.5
    fed = batches(jnp.zeros((steps, 1, 1)), jnp.zeros((steps, 1), jnp.int32))
    shares = np.array([0.98, 1.02])  # both are trained at once
    model = quadratics(shares * bounds[:, None] / rate, rate)
    engine = spmd(model, stages=stages, bubble=NAN)
    assert delays_of(engine.plan.cuts) == tuple(delays)
    state, _ = engine.run(engine.load(init(model, jax.random.key(0)), jax.random.key(1)), fed)
    found = np.array([state.params["w"] for state in engine.states(state, fed)])
    for late, share, stable in zip(found.T, shares, (True, False), strict=True):
        curvatures = share * bounds / rate
        largest = np.zeros(stages)
        expected = np.ones((stages, steps + 1))
        for s, delay in enumerate(delays):
            for k in range(steps):
                seen = expected[s, max(k - delay, 0)]
                expected[s, k + 1] = expected[s, k] - rate * curvatures[s] * seen
            largest[s] = np.abs(expected[s, -20:]).max()
        np.testing.assert_allclose(late, expected[:, -1], rtol=1e-6, atol=1e-12)
        assert np.all(largest < 0.1 if stable else largest > 10), largest


# --- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.bits
def test_a_stash_is_kept_until_it_is_used_and_no_longer(random_states: Callable) -> None:
    """With NaN, everything is poisoned before it is written and after it is read; any other time would show."""
    model = model_of()
    states = random_states(model)
    clean, poisoned = (
        trained(spmd(model, stages=3, bubble=bubble), states, model, per_call=1)[0] for bubble in (0.0, NAN)
    )
    assert params_sha256(clean) == params_sha256(poisoned)


def test_memory_follows_the_law_of_the_ring() -> None:
    model = model_of(norm=True)
    by_stage = [state_bytes(stash.spec) for stash in stashes(model, *specs(model), [(0,), (1, 2)])]
    plan = spmd(model, stages=2, cuts=(0, 1, 3)).plan
    assert plan.stash_bytes == (2 * by_stage[0], by_stage[1])
    assert plan.stash_slot_bytes >= 2 * max(by_stage)
    locked = spmd(model, stages=2, cuts=(0, 1, 3), staleness="locked").plan
    assert locked.stash_bytes == tuple(by_stage)
    assert locked.stash_slot_bytes * 2 == plan.stash_slot_bytes


def test_weights_are_not_kept() -> None:
    """What waits is what the update of the weights needs: inputs and slopes, not the weights themselves."""
    tx = optax.sgd(0.1)
    wide = dfa(mlp((4096,)), jax.ShapeDtypeStruct((2, 512), jnp.float32), CLASSES, tx=tx)
    assert state_bytes(stashes(wide, *specs(wide))[0].spec) < 4096 * 512 * 4 / 10


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delays", "says"), [((1, 0), "one a block"), ((1, 1, 1), "the last 0"), ((-1, 0, 0), "none negative")]
)
def test_delays_that_cannot_be(delays: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sequential(model_of(), delays)


def test_local_methods_are_never_late() -> None:
    model = early_exit(cnn((4, 4)), jax.ShapeDtypeStruct((BATCH, 4, 4, 1), jnp.float32), CLASSES, tx=optax.sgd(0.1))
    with pytest.raises(ValueError, match="method 'early_exit' wait for no signal"):
        sequential(model, (1, 0))


def test_unknown_staleness() -> None:
    with pytest.raises(ValueError, match="unknown staleness 'stale'; there are delayed, locked"):
        spmd(model_of(), stages=2, staleness="stale")


def half(signal: str, stages: int) -> lg.base.Schedule:
    """A schedule of a stranger: a batch enters on every other tick, so that less is late."""
    return schedules.broadcast(stages)._replace(period=2)


@pytest.mark.parametrize("stages", [pytest.param(2, marks=pytest.mark.full), 3])
def test_a_registered_schedule_gives_the_sequential_numbers(stages, x64, monkeypatch, random_states):
    monkeypatch.setitem(schedules.STALENESS, "half", half)
    model = model_of(dtype=jnp.float64)
    engine = lg.spmd(model, stages=stages, staleness="half", bubble=float("nan"))
    delays = delays_of(engine.plan.cuts, "top", "half")
    assert max(delays) == {2: 0, 3: 1}[stages] and engine.plan.schedule.period == 2
    fed, states = random_batches(model, 6), random_states(model)
    found = []
    for one in (engine, lg.sequential(model, delays)):
        state, metrics = one.run(one.load(states, jax.random.key(1)), one.put(fed))
        metrics.check()
        found.append(one.states(state, fed))
    assert largest_difference(*found) < 1e-12


@pytest.mark.parametrize(
    "wrong", [{"wait": (9, 9)}, {"period": 0}, {"wait": (2, 1), "parts": 2}], ids=["wait", "period", "parts"]
)
def test_a_schedule_that_cannot_be_is_refused(wrong, monkeypatch):
    monkeypatch.setitem(schedules.STALENESS, "odd", lambda signal, stages: half(signal, stages)._replace(**wrong))
    with pytest.raises(
        ValueError, match=r"schedule 'odd' of 2 stages: .* expected wait=\(2, 1\), parts=1 and a period"
    ):
        schedules.stream_of("top", 2, "odd")
    with pytest.raises(ValueError, match="unknown staleness 'never'; there are delayed, locked, odd"):
        schedules.stream_of("top", 2, "never")
    with pytest.raises(ValueError, match="there is a schedule 'locked' already"):
        lg.register_schedule("locked", half)
