"""Optimizers by name do what optax's own do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.methods import kernels
from localgrad.training.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer

PARAMS = {"w": jnp.array([1.0, -2.0, 3.0])}
GRADS = {"w": jnp.array([0.5, -4.0, 0.1])}


def steps(tx, count=3):
    params, state = PARAMS, tx.init(PARAMS)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(count):
            updates, state = tx.update(GRADS, state, params)
            params = optax.apply_updates(params, updates)
    return np.asarray(params["w"])


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_every_optimizer_moves_the_parameters(name, schedule):
    more = {"step_epochs": (1,)} if schedule == "step" else {}
    assert np.all(steps(make_optimizer(name, 0.1, schedule=schedule, steps=10, **more)(1.0)) != PARAMS["w"])


def test_scale_clip_and_decay():
    make = make_optimizer("sgd", 0.1, schedule="constant", steps=10, weight_decay=0.01, clip_norm=1.0)
    norm = float(jnp.linalg.norm(GRADS["w"]))
    expected = PARAMS["w"] - 0.2 * (GRADS["w"] / norm + 0.01 * PARAMS["w"])
    np.testing.assert_allclose(steps(make(2.0), 1), expected, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_decay_that_is_not_times_the_rate(name):
    plain = make_optimizer(name, 0.1, schedule="constant", steps=10)(1.0)
    if name == "adamw":  # optax's own default decays
        plain = optax.adam(0.1)
    decayed = make_optimizer(name, 0.1, schedule="constant", steps=10, weight_decay=0.25, decay_times_rate=False)(1.0)
    np.testing.assert_allclose(steps(decayed, 1), steps(plain, 1) - 0.25 * PARAMS["w"], rtol=1e-6)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("times_rate", [True, False])
def test_only_what_is_masked_decays(name, times_rate):
    make = make_optimizer(
        name, 0.1, schedule="constant", steps=10, weight_decay=0.25, decay_times_rate=times_rate, decayed=kernels("f")
    )
    dense = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((2,))}
    params = {"f": dense, "g": dense}
    tx, zeros = make(1.0), jax.tree.map(jnp.zeros_like, params)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = tx.update(zeros, tx.init(params), params)
    moved = jax.tree.map(lambda x: bool(jnp.any(x != 0)), updates)
    assert moved == {"f": {"kernel": True, "bias": False}, "g": {"kernel": False, "bias": False}}


def test_the_schedule_of_dkp():
    rates = [float(SCHEDULES["stairs"](1.0, 100, 10)(step)) for step in (0, 9, 10, 29, 30)]
    np.testing.assert_allclose(rates, [1, 1, 0.85, 0.85**2, 0.85**3], rtol=1e-6)


def test_the_schedule_of_neco():
    rates = [float(SCHEDULES["neco"](1.0, 100, 10)(step)) for step in (0, 50, 70, 85, 95)]
    np.testing.assert_allclose(rates, [1, 0.1, 0.01, 0.001, 0.0005], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "rate", "options", "says"),
    [
        ("adamm", 0.1, {"schedule": "constant"}, "unknown optimizer 'adamm'; there are adam"),
        ("adam", 0.1, {"schedule": "linear"}, "unknown schedule 'linear'"),
        ("adam", 0.0, {"schedule": "constant"}, "must be positive"),
        ("adam", float("nan"), {"schedule": "constant"}, "must be positive"),
        ("adam", 0.1, {"schedule": "constant", "clip_norm": 0.0}, "must be positive"),
        ("adam", float("inf"), {"schedule": "constant"}, "all of them finite"),
        ("adam", 0.1, {"schedule": "constant", "clip_norm": float("inf")}, "all of them finite"),
        ("adam", 0.1, {"schedule": "constant", "weight_decay": float("nan")}, "all of them finite"),
        ("adam", 0.1, {"schedule": "constant", "weight_decay": float("inf")}, "all of them finite"),
    ],
)
def test_what_cannot_be_is_refused(name, rate, options, says):
    with pytest.raises(ValueError, match=says):
        make_optimizer(name, rate, steps=10, **options)


def rates(schedule, steps=100, epoch=10, **more):
    """The rate at each step: what plain gradient descent subtracts of a gradient of one."""
    tx = make_optimizer("sgd", 0.5, schedule=schedule, steps=steps, epoch=epoch, **more)(2.0)
    params, found = {"w": jnp.zeros(())}, []
    state = tx.init(params)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(steps):
            updates, state = tx.update({"w": jnp.ones(())}, state, params)
            found.append(-float(updates["w"]))
    return np.array(found)


def test_a_rate_falls_every_few_epochs():
    expected = 0.2 ** (np.arange(100) // 30)
    np.testing.assert_allclose(rates("step", step_epochs=(3,), step_factor=0.2), expected, rtol=1e-5)


def test_a_rate_falls_after_some_epochs():
    fallen = np.searchsorted([20, 50, 70], np.arange(100), side="right")
    np.testing.assert_allclose(rates("step", step_epochs=(2, 5, 7)), 0.1**fallen, rtol=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_a_warm_up_comes_before_the_schedule(schedule):
    more = {"step_epochs": (3,)} if schedule == "step" else {}
    np.testing.assert_allclose(rates(schedule, warmup=20, **more)[:20], np.arange(20) / 20, rtol=1e-6)
    np.testing.assert_allclose(rates(schedule, warmup=20, **more)[20:], rates(schedule, steps=80, **more), rtol=1e-6)


def test_momentum_is_nesterovs_and_the_heavy_ball_polyaks():
    nesterov, plain = np.zeros(3), np.zeros(3)
    grads, velocity = np.asarray(GRADS["w"]), np.zeros(3)
    for _ in range(3):
        velocity = 0.9 * velocity + grads
        nesterov, plain = nesterov - 0.1 * (grads + 0.9 * velocity), plain - 0.1 * velocity
    for name, moved in (("momentum", nesterov), ("heavy_ball", plain)):
        found = steps(make_optimizer(name, 0.1, schedule="constant", steps=10)(1.0))
        np.testing.assert_allclose(found, np.asarray(PARAMS["w"]) + moved, rtol=1e-5)


def test_rmsprop_divides_by_the_root_of_the_mean_square():
    found = steps(make_optimizer("rmsprop", 0.1, schedule="constant", steps=10)(1.0), 1)
    expected = np.asarray(PARAMS["w"]) - 0.1 * np.sign(GRADS["w"]) / np.sqrt(0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"schedule": "step"}, "step_epochs of schedule=step is every how many epochs the rate falls"),
        ({"schedule": "step", "step_epochs": (3, 2)}, r"in ascending order; got \(3, 2\)"),
        ({"schedule": "step", "step_epochs": (0,)}, r"got \(0,\)"),
        ({"schedule": "step", "step_epochs": (1,), "step_factor": 0.0}, "step_factor is positive and finite; got 0.0"),
        ({"schedule": "cosine", "step_factor": 0.5}, "are of schedule=step; the schedule is 'cosine'"),
        ({"schedule": "constant", "warmup": 10}, "the warm-up is shorter than the run of 10 batches; got 10 batches"),
        ({"schedule": "constant", "warmup": -1}, "got -1 batches"),
    ],
)
def test_what_a_schedule_cannot_be(options, says):
    with pytest.raises(ValueError, match=says):
        make_optimizer("adam", 0.1, steps=10, **options)
