"""The pipeline is a reordering of sequential training: the same bits, batch by batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad import dfa, init, mlp, params_sha256, sequential, spmd
from localgrad.data import batches
from localgrad.pipeline import delays_of

from .common import NEWEST, STEPS, examples, initial, make_model, trained


# A part of the table; experiments/results/exactness_*.json hold the whole of it.
@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize(
    ("name", "stages", "per_call"),
    [
        ("mlp", 4, 32),
        pytest.param("mlp-wide", 3, 32, marks=pytest.mark.full),
        pytest.param("mlp", 0, 1, marks=pytest.mark.full),
        pytest.param("mlp", 1, 7, marks=pytest.mark.full),
        pytest.param("mlp", 2, 1, marks=pytest.mark.full),
        pytest.param("cnn", 2, 7, marks=pytest.mark.full),
        pytest.param("cnn", 3, 1, marks=pytest.mark.full),
        pytest.param("cnn", 6, 32, marks=pytest.mark.full),
        pytest.param(
            "cnn-norm",
            3,
            7,
            marks=pytest.mark.skipif(not NEWEST, reason="jax 0.10 lays out a weight gradient otherwise in a loop"),
        ),
    ],
)
def test_float32_digests_are_equal(name, stages, per_call):
    assert params_sha256(trained(name, stages, per_call).states) == params_sha256(trained(name, 0).states)


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize(
    ("staleness", "stages"),
    [
        ("delayed", 4),
        *(pytest.param("locked", stages, marks=pytest.mark.full) for stages in (1, 2, 4)),
        pytest.param("delayed", 2, marks=pytest.mark.full),
    ],
)
def test_digests_of_direct_feedback(staleness, stages):
    """Locked, as unpipelined training; delayed, as the sequential engine with the same delays."""
    tx = optax.sgd(0.1, momentum=0.9)
    model = dfa(mlp((16, 12, 8)), jax.ShapeDtypeStruct((12, 20), jnp.float32), 10, tx=tx)
    states = init(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(32, 12, 20)), jnp.float32)
    fed = batches(xs, jnp.asarray(rng.integers(0, 10, (32, 12)), jnp.int32))
    pipeline = spmd(model, stages=stages, staleness=staleness, bubble=float("nan"))
    delays = delays_of(pipeline.plan.cuts) if staleness == "delayed" else None
    assert delays is None or max(delays) == stages - 1
    found = []
    for engine in (pipeline, sequential(model, delays)):
        state, _ = engine.run(engine.load(states, jax.random.key(1)), fed)
        found.append(params_sha256(engine.states(state)))
    assert found[0] == found[1]


@pytest.mark.slow
def test_training_moves_every_parameter():
    """Equality would be cheap if nothing were learnt."""
    for before, after in zip(initial("mlp"), trained("mlp", 4).states, strict=True):
        assert all(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before.params, after.params)), strict=True))


@pytest.mark.slow
def test_every_block_is_updated_once_a_batch():
    for state in trained("mlp", 4).states:
        counts = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == np.int32]
        assert counts
        assert all(np.all(count == STEPS) for count in counts)


@pytest.mark.full  # test_broadcast.py and test_mpmd.py have the same of smaller networks
@pytest.mark.slow
def test_metrics_are_those_of_the_batch_they_name():
    ours, theirs = trained("mlp", 4), trained("mlp", 0)
    calls = [*ours.metrics, jax.device_get(ours.engine.drain(ours.engine_state)[1])]
    for i in range(4):
        ids = np.concatenate([call.batch_id[i] for call in calls])
        losses = np.concatenate([call.values[i]["loss"] for call in calls])
        assert list(ids[ids >= 0]) == list(range(STEPS))
        assert (ids < 0).sum() == 3  # S - 1 ticks once a run: before the batches came, or after
        expected = np.concatenate([call.values[i]["loss"] for call in theirs.metrics])
        np.testing.assert_array_equal(losses[ids >= 0], expected)


@pytest.mark.slow
def test_reading_the_states_does_not_disturb_the_pipeline():
    """`states` finishes a copy; the batches in flight go on as if nobody had looked."""
    engine, model = trained("mlp", 4).engine, make_model("mlp")
    xs, ys = map(jnp.asarray, examples("mlp"))

    def run(look):
        state = engine.load(initial("mlp"), jax.random.key(2))
        for start in (0, 32):
            chosen = slice(start, start + 32)
            state, _ = engine.run(state, batches(xs[chosen], ys[chosen], first=start))
            if look:
                engine.states(state)
        return params_sha256(engine.states(state))

    assert run(look=True) == run(look=False)
    assert model.batch_size == xs.shape[1]


@pytest.mark.full  # test_numbers.py has the same of smaller networks
@pytest.mark.parametrize("stages", [0, 4])
def test_a_loss_that_is_not_finite_stops_all_updates_from_that_batch_on(stages):
    """Block 2 fails on batch 5: it and the blocks above keep their states of before it, and nothing becomes NaN."""
    model = make_model("mlp-plain")
    fragile = model.blocks[1]

    def forward(state, message, key):
        broken = jnp.where(jnp.max(message["s"]) > 1e6, jnp.nan, 0.0).astype(jnp.float32)
        found = fragile.forward(state, message, key)
        grads, metrics = jax.tree.map(lambda leaf: leaf + broken, (found.grads, found.metrics))
        return found._replace(grads=grads, metrics=metrics)

    model = model._replace(blocks=(model.blocks[0], fragile._replace(forward=forward), *model.blocks[2:]))
    engine = spmd(model, stages=stages, bubble=float("nan")) if stages else sequential(model)
    xs, ys = (array[:9].copy() for array in examples("mlp-plain"))
    xs[5] = 1e9
    state = engine.load(initial("mlp-plain"), jax.random.key(2))
    state, metrics = engine.run(state, batches(jnp.asarray(xs), jnp.asarray(ys)))
    states, rest = engine.drain(state)
    states, calls = jax.device_get((states, [metrics, rest]))

    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(states))
    for state in states[1:]:
        counts = [int(leaf) for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == np.int32]
        assert set(counts) == {5}
    ids = np.concatenate([call.batch_id[1] for call in calls if call.values[1]])
    losses = np.concatenate([call.values[1]["loss"] for call in calls if call.values[1]])
    assert list(ids[~np.isfinite(losses)]) == [5]


def test_an_equal_network_runs_without_a_choice():
    model = make_model("mlp-equal")
    assert spmd(model, stages=2).plan.uniform
    assert not spmd(model, stages=2, uniform=False).plan.uniform
    assert not spmd(make_model("mlp-plain"), stages=2).plan.uniform


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stages": 5}, "between 1 and 4"),
        ({"stages": 4, "data_parallel": 3}, "needs 12 devices"),
        ({"stages": 1, "data_parallel": 5}, "does not divide"),
        ({"stages": 2, "cuts": (0, 4)}, "cuts must be 3 ascending"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        spmd(make_model("mlp-plain"), **options)
