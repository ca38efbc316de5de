"""From a configuration to its optimizers: rates over a block's own updates, and what of them a flag changes."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad import training
from localgrad.blocks import mlp
from localgrad.methods import METHODS
from localgrad.training import Config
from localgrad.training.recipes import build_optimizers
from localgrad.training.restoring import restore

ONE = {"x": jnp.ones(())}


def rates(tx: optax.GradientTransformation, count: int) -> list[float]:
    """What is made of so many gradients of one; of plain SGD these are the rates."""
    state, found = tx.init(ONE), []
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(count):
            update, state = tx.update(ONE, state, ONE)
            found.append(-float(update["x"]))
    return found


def weights(epoch_steps: int, count: int, **given: Any) -> list[float]:
    inputs: Any = SimpleNamespace(epoch_steps=epoch_steps)
    config = Config(**{"method": "bp", "optimizer": "sgd", "learning_rate": 1.0, **given})
    return rates(build_optimizers(config, inputs)[0](1.0), count)


def test_a_rate_falls_over_the_updates_that_there_are() -> None:
    """Ten batches an epoch and one update in four: after the epochs there have been 2, 5, 7 and 10."""
    found = weights(10, 10, epochs=4, double_buffered=4, schedule="cosine")
    expected = [float(optax.cosine_decay_schedule(1.0, 10)(n)) for n in range(10)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    fewer = weights(10, 4, epochs=8, double_buffered=20, schedule="cosine")
    np.testing.assert_allclose(fewer, [float(optax.cosine_decay_schedule(1.0, 4)(n)) for n in range(4)], rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"schedule": "step", "step_epochs": (1,)}, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),
        ({"schedule": "step", "step_epochs": (2,)}, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]),
        ({"schedule": "step", "step_epochs": (1, 3, 9)}, [0, 0, 1, 1, 1, 1, 1, 2, 2, 2]),
    ],
)
def test_a_step_is_at_the_end_of_its_epoch(given: dict, expected: list[int]) -> None:
    found = weights(10, 10, epochs=4, double_buffered=4, step_factor=0.5, **given)
    np.testing.assert_allclose(found, 0.5 ** np.array(expected), rtol=1e-6)


def test_a_warm_up_of_epochs_is_of_their_updates() -> None:
    found = weights(10, 10, epochs=4, double_buffered=4, warmup_epochs=2, schedule="step", step_epochs=(1,))
    np.testing.assert_allclose(found, [0, 0.2, 0.4, 0.6, 0.8, 1, 1, 0.1, 0.1, 0.1], rtol=1e-5)


def test_more_batches_an_update_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="--double_buffered=41 learns once in so many batches, and this run has 40"):
        weights(10, 1, epochs=4, double_buffered=41)


BESIDE = {"optimizer": "heavy_ball", "learning_rate": 0.1, "clip_norm": 0.5, "weight_decay": 0.1}


@pytest.mark.parametrize(("method", "rate"), [("critic", 1e-4), ("dtp", 2e-3), ("direct_tp", 2e-3)])
@pytest.mark.parametrize(
    ("given", "times"),
    [({"schedule": "constant"}, 1), ({"weight_decay": 1e-6}, 1), ({"learning_rate": 3e-2}, None)],
)
def test_a_flag_of_what_learns_beside_leaves_the_rest_to_the_method(method, rate, given, times) -> None:
    inputs: Any = SimpleNamespace(epoch_steps=10)
    config = Config(method=method, **BESIDE, **{f"feedback_{name}": value for name, value in given.items()})
    _, feedback = build_optimizers(config, inputs)
    assert feedback is not None
    expected = rate if times else given["learning_rate"]
    np.testing.assert_allclose(rates(feedback(1.0), 3), [expected] * 3, rtol=1e-3)  # Adam's
    assert build_optimizers(Config(method=method, **BESIDE), inputs)[1] is None
    assert METHODS[method].beside_rate == rate


def test_feedback_without_an_optimizer_of_its_own_has_the_weights() -> None:
    inputs: Any = SimpleNamespace(epoch_steps=10)
    config = Config(method="dkp", optimizer="sgd", learning_rate=0.1, feedback_schedule="cosine")
    _, feedback = build_optimizers(config, inputs)
    assert feedback is not None
    assert rates(feedback(1.0), 1) == [pytest.approx(0.1)]


def test_a_replayed_rate_falls_over_a_blocks_own_turns(tmp_path) -> None:
    """Each block's count ends where its schedule does: the turns are known before they are drawn."""
    config = Config(
        method="early_exit", net="mlp", dataset="digits", widths=(8, 8), limit=320, batch_size=32, epochs=2,
        optimizer="sgd", schedule="cosine", replay=4, replay_shares=(1.0, 3.0), workdir=str(tmp_path / "run"),
    )  # fmt: skip
    (job,) = training.prepare_all(config)
    training.run(config, [job], lambda line: None)
    states = restore(job.specs, config.workdir).states
    counts = [
        int(optax.tree_utils.tree_get(state.opt_state, "count"))  # type: ignore[arg-type]
        for state in states
    ]
    assert counts[0] == 20 < min(counts[1:])
    for block, state, count in zip(job.model.blocks, states, counts, strict=True):
        ((names, tx),) = block.tx.items()
        ones = {group: jax.tree.map(jnp.ones_like, state.params[group]) for group in names.split("+")}
        moved = []
        for at in (count - 1, count, count + 5):
            first = optax.tree_utils.tree_set(tx.init(ones), count=jnp.int32(at))
            with jax.numpy_dtype_promotion("standard"):
                moved.append(-float(jax.tree.leaves(tx.update(ones, first, ones)[0])[0].ravel()[0]))
        assert 0 < moved[0] < 1e-2 * config.learning_rate
        assert moved[1:] == [0, 0]


def test_decay_apart_is_as_said_where_a_profile_multiplies_rates() -> None:
    """NECO's g and h learn at twice the rate; what is taken from them is the share that was said."""
    inputs: Any = SimpleNamespace(epoch_steps=10)
    make = lambda times: build_optimizers(
        Config(method="al", optimizer="sgd", learning_rate=0.1, weight_decay=0.01, decay_on="all",
               decay_times_rate=times, clip_norm=1e3), inputs)[0]  # fmt: skip
    spec = jax.ShapeDtypeStruct((4, 5), jnp.float32)
    for times, shares in ((False, {"f": 0.01, "g": 0.01}), (True, {"f": 0.001, "g": 0.002})):
        model = METHODS["al"](mlp((6, 5)), spec, 3, make(times))
        for group, share in shares.items():
            names, tx = next((names, tx) for names, tx in model.blocks[0].tx.items() if group in names.split("+"))
            ones = {name: {"x": jnp.ones(())} for name in names.split("+")}
            nothing, gradient = jax.tree.map(jnp.zeros_like, ones), ones
            with jax.numpy_dtype_promotion("standard"):
                alone = tx.update(nothing, tx.init(ones), ones)[0][group]["x"]
                update = tx.update(gradient, tx.init(ones), ones)[0][group]["x"]
            np.testing.assert_allclose(alone, -share, rtol=1e-5)
            np.testing.assert_allclose(update - alone, -0.1 * (2 if group == "g" else 1), rtol=1e-3)
