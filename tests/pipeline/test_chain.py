"""The chain schedule: backpropagation over stages is backpropagation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad import bp, kp, mlp, sequential, spmd
from localgrad.data import batches
from localgrad.methods import trial_keys, trials
from localgrad.pipeline import specs
from localgrad.pipeline.partition import state_bytes
from localgrad.pipeline.schedules import parts_of
from localgrad.pipeline.stash import stashes
from localgrad.report import largest_difference

BATCH, CLASSES, STEPS = 12, 3, 4
TX = optax.chain(optax.clip_by_global_norm(0.5), optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.9))


def trained(engine, model, states, key=None):
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(STEPS, *model.x_spec.shape)), model.x_spec.dtype)
    fed = batches(xs, jnp.asarray(rng.integers(0, CLASSES, (STEPS, *model.y_spec.shape)), jnp.int32))
    state, metrics = engine.run(engine.load(states, jax.random.key(1) if key is None else key), fed)
    return jax.device_get((engine.states(state), metrics))


@pytest.mark.parametrize(
    ("make", "stages", "micro_batches", "shards"),
    [(bp, 3, 4, 1), (kp, 2, 3, 2), pytest.param(bp, 2, 1, 3, marks=pytest.mark.full)],
)
def test_micro_batches_give_the_gradient_of_the_batch(make, stages, micro_batches, shards, x64, random_states):
    """To 1e-12, for losses that are means over examples, without batch norm and dropout."""
    model = make(mlp((7, 6, 5)), jax.ShapeDtypeStruct((BATCH, 5), jnp.float64), CLASSES, tx=TX)
    states = random_states(model)
    engine = spmd(model, stages=stages, data_parallel=shards, micro_batches=micro_batches, bubble=float("nan"))
    assert engine.plan.schedule.parts == micro_batches
    (found, metrics), (expected, reported) = (trained(each, model, states) for each in (engine, sequential(model)))
    assert largest_difference(found, expected) < 1e-12
    assert largest_difference(metrics.values, reported.values) < 1e-12
    assert all(np.array_equal(ids, np.arange(STEPS)) for ids in metrics.batch_id)


def test_batch_norm_sees_one_part_at_a_time(x64, random_states):
    """With batch norm a whole batch as one part is the same training; several parts are another, and said to be."""
    model = bp(mlp((7, 6), norm=True), jax.ShapeDtypeStruct((BATCH, 5), jnp.float64), CLASSES, tx=TX)
    states = random_states(model)
    expected = trained(sequential(model), model, states)[0]
    whole, parts = (
        trained(spmd(model, stages=2, micro_batches=count, bubble=float("nan")), model, states)[0] for count in (1, 2)
    )
    assert largest_difference(whole, expected) < 1e-12
    assert largest_difference(parts, expected) > 1e-6


@pytest.mark.full
def test_trials(x64, random_states):
    one = bp(mlp((7, 6)), jax.ShapeDtypeStruct((BATCH, 5), jnp.float64), CLASSES, tx=TX)
    model, keys = trials(one, 2), trial_keys(0, 2)
    states = random_states(model)
    found, expected = (
        trained(engine, model, states, keys)[0]
        for engine in (spmd(model, stages=2, micro_batches=3), sequential(model))
    )
    assert largest_difference(found, expected) < 1e-12


def test_weights_are_kept_once_and_not_for_every_part():
    """The way down needs the weights; they are those of the state until the batch is done."""
    model = bp(mlp((64, 64, 64)), jax.ShapeDtypeStruct((8, 64), jnp.float32), CLASSES, tx=TX)
    plan = spmd(model, stages=2, micro_batches=8).plan
    assert sum(plan.stash_bytes) < 3 * 64 * 64 * 4
    shapes = [x.shape for stash in stashes(model, *specs(model)) for x in stash.spec]
    assert (64, 64) in shapes
    borrowed = stashes(model, *specs(model), borrow=True)
    assert (64, 64) not in [x.shape for stash in borrowed for x in stash.spec]
    assert state_bytes([stash.spec for stash in borrowed]) > 0


def test_the_number_of_parts():
    assert parts_of(128, 1, None) == 1
    assert parts_of(128, 2, None) == 8
    assert parts_of(12, 2, None) == 6
    assert parts_of(7, 2, None) == 7
    with pytest.raises(ValueError, match="micro_batches=5 do not divide the 12 examples"):
        parts_of(12, 2, 5)
