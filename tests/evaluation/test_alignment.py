"""Alignment is measured within one training step: backpropagation's update is the true gradient itself."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from localgrad.base import Block, BlockState, Model
from localgrad.blocks import bilstm, cnn, from_linen, mlp, remat, resnet, transformer
from localgrad.evaluation.alignment import aligner, exact_cosine
from localgrad.methods import METHODS, bp, bp_fc, dfa, freeze, kp, scl
from localgrad.tasks import regression

BATCH, CLASSES, WORDS = 12, 3, 30
RNG = np.random.default_rng(0)
Y = jnp.asarray(np.arange(BATCH) % CLASSES, jnp.int32)
TX = optax.sgd(0.1)


def vectors(dtype: type = np.float32) -> jax.Array:
    return jnp.asarray(RNG.normal(size=(BATCH, 5)), dtype)


def images() -> jax.Array:
    return jnp.asarray(RNG.normal(size=(BATCH, 6, 6, 2)), jnp.float32)


def texts() -> jax.Array:
    places = np.arange(7) < RNG.integers(1, 8, (BATCH, 1))
    return jnp.asarray(np.where(places, RNG.integers(1, WORDS, (BATCH, 7)), 0), jnp.int32)


NETWORKS: dict[str, Callable[[], tuple[list[Block], jax.Array]]] = {
    "mlp": lambda: (mlp((9, 8, 7), norm=True, dropout=0.4), vectors()),
    "cnn": lambda: (cnn((4, 5), norm=True, dropout=0.4), images()),
    "cnn, norm alone": lambda: (cnn((4, 5), norm=True, activation="relu"), images()),
    "cnn, dropout alone": lambda: (cnn((4, 5), dropout=0.4), images()),
    "kept less": lambda: ([remat(block) for block in mlp((9, 8), norm=True, dropout=0.4)], vectors()),
    "coarse": lambda: (mlp((9, 8, 7), norm=True, dropout=0.4, blocks=2), vectors()),
    "resnet": lambda: (resnet("resnet20", width_factor=1 / 8, blocks=3), images()),
    "bilstm": lambda: (bilstm(WORDS, widths=(5,), embed_width=7, dropout=0.3, buckets=(4,)), texts()),
    "transformer": lambda: (transformer(WORDS, width=8, feed_forward=6, heads=2, dropout=0.3), texts()),
}


def spec_of(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def moved(states: Sequence[BlockState]) -> tuple[BlockState, ...]:
    """Running statistics far from those of any batch here, as if training had long gone on with other inputs."""
    far = lambda leaf: 3 * leaf + 2 if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
    return tuple(state._replace(model_state=jax.tree.map(far, state.model_state)) for state in states)


def updates(model: Model, x: jax.Array, random_states: Callable) -> list[float | None]:
    return aligner(model)(moved(random_states(model)), x, Y)["update"]


@pytest.mark.parametrize(
    ("net", "method"),
    [
        ("mlp", "bp"),
        ("cnn", "bp"),
        *(pytest.param(net, "bp", marks=pytest.mark.full) for net in NETWORKS if net not in ("mlp", "cnn")),
        *(pytest.param(net, "bp_matched", marks=pytest.mark.full) for net in ("cnn", "bilstm", "transformer")),
    ],
)
def test_backpropagation_is_the_true_gradient(net: str, method: str, random_states: Callable) -> None:
    """In float32, with batch norm, with dropout, and running statistics that have nothing to do with the batch."""
    network, x = NETWORKS[net]()
    model = METHODS[method](network, spec_of(x), CLASSES, lambda scale: optax.sgd(scale))
    found = updates(model, x, random_states)
    assert len(found) == len(model.blocks)
    np.testing.assert_allclose(found, 1, rtol=0, atol=1e-6)


def test_what_is_frozen_has_no_angle(random_states: Callable) -> None:
    network, x = [*cnn((4, 5), norm=True), *mlp((6,), norm=True, dropout=0.4)], images()
    for statistics in ("moving", "first"):
        model = bp_fc(network, spec_of(x), CLASSES, tx=TX, statistics=statistics)
        found = updates(model, x, random_states)
        assert found[:2] == [None, None] and found[3] is None
        assert found[2] == pytest.approx(1, abs=1e-6)


def test_a_frozen_block_of_a_grown_network_runs_as_in_training(random_states: Callable) -> None:
    x = vectors()
    model = freeze(bp(mlp((9, 8), norm=True, dropout=0.4), spec_of(x), CLASSES, tx=TX), 1)
    found = updates(model, x, random_states)
    np.testing.assert_allclose(found, 1, rtol=0, atol=1e-6)


def test_direct_feedback_of_true_transposes_is_the_true_gradient(x64: None, random_states: Callable) -> None:
    """On a linear network; the first feedback is the product of all that is above."""
    linear = lambda width: from_linen(linen.Dense(width), name=f"linear{width}")
    x = vectors(np.float64)
    model = dfa([linear(7), linear(6)], spec_of(x), CLASSES, tx=TX)
    first, second, output = random_states(model)
    kernel = lambda params: next(leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2)
    w_2, w_3 = kernel(second.params["f"]), kernel(output.params["head"])
    true = lambda state, matrix: state._replace(params={**state.params, "feedback": {"kernel": matrix.T}})
    found = aligner(model)((true(first, w_2 @ w_3), true(second, w_3), output), x, Y)
    np.testing.assert_allclose(found["update"][:2], 1, rtol=1e-12)
    np.testing.assert_allclose(found["weights"][1], 1, rtol=1e-12)
    assert found["weights"][0] is found["weights"][2] is found["update"][2] is None
    drawn = aligner(model)((first, second, output), x, Y)
    assert all(abs(value) < 0.999 for value in drawn["update"][:2])


def test_kp_with_true_transposes_is_the_true_gradient(random_states: Callable) -> None:
    x = images()
    model = kp(cnn((4, 5), norm=True, dropout=0.4), spec_of(x), CLASSES, tx=TX)
    drawn = random_states(model)

    def true(state: BlockState) -> BlockState:
        own = state.params.get("f", state.params.get("head"))
        shape = state.params["feedback"]["kernel"].shape
        kernel = next(leaf for leaf in jax.tree.leaves(own) if leaf.shape == shape)
        return state._replace(params={**state.params, "feedback": {"kernel": kernel}})

    found = aligner(model)((drawn[0], *map(true, drawn[1:])), x, Y)
    np.testing.assert_allclose(found["update"][:2], 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["weights"][1:], 1, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_two_views_are_one_batch_to_the_statistics_and_two_to_dropout(random_states: Callable) -> None:
    """The output block reads both views, and its loss is the network's: the last block's head is trained on all."""
    x = vectors()
    model = scl(mlp((9, 8), norm=True, dropout=0.4), spec_of(x), CLASSES, tx=TX, views=2, head="linear")
    found = updates(model, x, random_states)
    assert found[2] is None and all(value is not None and -1 <= value <= 1 for value in found[:2])


def test_cosines_are_exact_over_many_numbers() -> None:
    """A float32 sum of so many squares is off by more than 1e-6 of it on some machines; this one is not."""
    many = np.full(3_000_000, 0.1, np.float32)
    assert exact_cosine({"a": many}, {"a": many}) == pytest.approx(1, abs=1e-12)
    assert exact_cosine({"a": many}, {"a": -many}) == pytest.approx(-1, abs=1e-12)
    rng = np.random.default_rng(0)
    assert all(abs(exact_cosine(x, x) or 0) <= 1 for x in rng.normal(size=(200, 7)))  # never beyond, by rounding
    assert exact_cosine({"a": many}, {"a": 0 * many}) is None
    assert exact_cosine(None, {"a": many}) is None
    assert exact_cosine({"a": np.full(3, 1e30, np.float32)}, {"a": np.full(3, 1e-30, np.float32)}) == pytest.approx(1)


def test_of_any_task_the_update_of_backpropagation_is_the_true_gradient(random_states):
    x, y = vectors(), jnp.asarray(RNG.normal(size=(BATCH, 2)), jnp.float32)
    model = bp(mlp((6, 5)), spec_of(x), regression(2), tx=TX)
    found = aligner(model)(random_states(model), x, y)["update"]
    assert found[:-1] == pytest.approx([1.0] * (len(found) - 1), abs=1e-6)
