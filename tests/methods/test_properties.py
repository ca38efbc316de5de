"""What every method promises, on every network: a row in `ROWS` is all that a new one needs.

All of it in float64, where the promises are exact to rounding.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad.base import Batches, BlockState, Engine, Model
from localgrad.blocks import cnn, mlp
from localgrad.methods import (
    al,
    auglocal,
    bp,
    deep_supervision,
    dgl,
    dkp,
    drtp,
    early_exit,
    ff,
    infopro,
    kp,
    mono_forward,
    noprop,
    predsim,
    scl,
    trial_keys,
    trials,
    usf,
)  # fmt: skip
from localgrad.pipeline import init, sequential
from localgrad.report.digest import params_sha256

BATCH, CLASSES, PER_CALL, TRIALS = 8, 3, 2, 3
VECTORS, IMAGES = (BATCH, 5), (BATCH, 4, 4, 1)
DRAWING = ("ff", "noprop")  # methods that draw something themselves
States = tuple[BlockState, ...]


def vectors() -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(VECTORS, jnp.float64)


def images() -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(IMAGES, jnp.float64)


def neco() -> Model:
    tx = {"f+b": optax.sgd(1.0, 0.9), "g+h": optax.sgd(2.0, 0.9)}
    return al(mlp((6, 5)), vectors(), CLASSES, tx=tx, profile="neco", target_width=4)


def iclr() -> Model:
    tx = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.3, momentum=0.9))
    return al(mlp((6, 5)), vectors(), CLASSES, tx=tx, profile="iclr", target_width=4)


def iclr_head() -> Model:
    return al(mlp((6, 5)), vectors(), CLASSES, tx=optax.adam(1e-2), profile="iclr_head", target_width=4)


def dropout_and_norm() -> Model:
    schedule = optax.cosine_decay_schedule(0.1, 200)
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.add_decayed_weights(1e-3), optax.sgd(schedule, 0.9))
    network = [block._replace(name="dropout") for block in mlp((6, 5), norm=True, dropout=0.2)]
    return al(network, vectors(), CLASSES, tx=tx, profile="iclr_head", target_width=4)


def convolutions() -> Model:
    tx = optax.sgd(0.1, momentum=0.9, nesterov=True)
    return al(cnn((4, 6)), images(), CLASSES, tx=tx, profile="iclr_head", target_width=4)


def contrastive() -> Model:
    return scl(mlp((6, 5)), vectors(), CLASSES, tx=optax.adam(1e-2), head="linear")


def exits() -> Model:
    return early_exit(cnn((4, 6)), images(), CLASSES, tx=optax.sgd(0.1, momentum=0.9), pool=16)


def greedy() -> Model:
    return dgl(mlp((6, 5)), vectors(), CLASSES, tx=optax.adam(1e-2))


def similar() -> Model:
    return predsim(mlp((6, 5), norm=True, activation="leaky_relu"), vectors(), CLASSES, tx=optax.adam(1e-2), beta=0.5)


def backprop() -> Model:
    return bp(mlp((6, 5)), vectors(), CLASSES, tx=optax.adam(1e-2))


def direct() -> Model:
    return dkp(mlp((6, 5), norm=True, activation="relu"), vectors(), CLASSES, tx=optax.adam(1e-2))


def targets() -> Model:
    return drtp(mlp((6, 5), activation="tanh"), vectors(), CLASSES, tx=optax.adam(1e-2), fan="in")


def aligned() -> Model:
    return kp(mlp((6, 5)), vectors(), CLASSES, tx=optax.adam(1e-2))


def signs() -> Model:
    return usf(mlp((6, 5)), vectors(), CLASSES, tx=optax.sgd(0.1, momentum=0.9))


def supervised() -> Model:
    return deep_supervision(mlp((6, 5)), vectors(), CLASSES, tx=optax.adam(1e-2))


def mono() -> Model:
    return mono_forward(mlp((6, 5)), vectors(), CLASSES, tx=optax.adam(1e-2), prediction="sum")


def augmented() -> Model:
    return auglocal(mlp((6, 6, 5)), vectors(), CLASSES, tx=optax.adam(1e-2))


def informed() -> Model:
    return infopro(mlp((6, 5)), vectors(), CLASSES, tx=optax.adam(1e-2), loss="softmax")


def forward() -> Model:
    return ff(mlp((16, 16)), images(), CLASSES, tx=optax.adam(3e-2), threshold=0.5, label_scale=3.0)


def denoising() -> Model:
    tx = optax.adam(1e-2)
    return noprop(mlp((6, 5)), vectors(), CLASSES, tx=tx, steps=3, hidden=8, weights="one")


ROWS: list[Callable[[], Model]] = [dropout_and_norm, backprop]
MORE: list[Callable[[], Model]] = [  # half a minute each
    neco, iclr, iclr_head, convolutions, contrastive, exits, greedy, similar, direct, targets, aligned, signs,
    supervised, mono, augmented, informed, forward, denoising,
]  # fmt: skip


class Row(NamedTuple):
    """A model of the table, its engine, compiled once for all tests, and a state to start from."""

    model: Model
    engine: Engine
    start: States


@pytest.fixture(
    scope="module",
    params=[*ROWS, *(pytest.param(make, marks=pytest.mark.full) for make in MORE)],
    ids=lambda make: make.__name__,
)
def row(request: pytest.FixtureRequest, random_states: Callable[..., States]) -> Iterator[Row]:
    with jax.enable_x64(True):
        model = request.param()
        yield Row(model, sequential(model), random_states(model))


def data(model: Model, calls: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Separable clouds, one a class; `(calls, PER_CALL, B, ...)`."""
    rng = np.random.default_rng(seed)
    shape = model.x_spec.shape[1:]
    y = rng.integers(0, CLASSES, (calls, PER_CALL, BATCH)).astype(np.int32)
    centres = np.random.default_rng(9).normal(size=(CLASSES, *shape))
    return centres[y] + 0.1 * rng.normal(size=(*y.shape, *shape)), y


def contrastive_floors(labels: np.ndarray) -> np.ndarray:
    """What a supervised contrastive loss cannot fall below: the mean over anchors of log(their positives)."""
    rows = labels.reshape(-1, labels.shape[-1])
    positives = (rows[:, :, None] == rows[:, None, :]).sum(axis=2) - 1
    return np.log(np.maximum(positives, 1)).mean(axis=1)


def trained(row: Row, as_batches: Callable[..., Batches], calls: int = 1, key: int = 7) -> tuple[States, list[Any]]:
    state, metrics = row.engine.load(row.start, jax.random.key(key)), []
    for call, (x, y) in enumerate(zip(*data(row.model, calls), strict=True)):
        state, found = row.engine.run(state, as_batches(x, y, first=call * PER_CALL))
        metrics.append(found)
    return row.engine.states(state), metrics


def assert_close(tree: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), tree, other)


def test_loss_falls_and_nothing_is_compiled_twice(row: Row, as_batches: Callable[..., Batches]) -> None:
    _, metrics = trained(row, as_batches, calls=100 // PER_CALL)
    assert row.engine.run._cache_size() == 1  # type: ignore[attr-defined]
    for i in range(len(row.model.blocks)):
        losses = np.concatenate([found.values[i]["loss"] for found in metrics])
        assert losses.shape == (100,) and np.isfinite(losses).all()
        if row.model.method == "scl" and i < len(row.model.blocks) - 1:
            losses = losses - contrastive_floors(data(row.model, 100 // PER_CALL)[1])
        assert losses[-10:].mean() < 0.75 * losses[:10].mean(), (i, losses)
    np.testing.assert_array_equal(np.concatenate([found.batch_id[0] for found in metrics]), np.arange(100))


def test_every_exit_learns(row: Row, as_batches: Callable[..., Batches]) -> None:
    states, _ = trained(row, as_batches, calls=100 // PER_CALL)
    x, y = data(row.model, 8, seed=1)
    x, y = x.reshape(-1, *x.shape[3:]), y.reshape(-1)
    for exit in row.model.exits:
        scores = jax.jit(row.model.predict, static_argnums=2)(states, jnp.asarray(x), exit)
        assert (np.argmax(np.asarray(scores), 1) == y).mean() > 0.9, exit


def test_jit_changes_nothing(row: Row, as_batches: Callable[..., Batches]) -> None:
    states, metrics = trained(row, as_batches)
    with jax.disable_jit():
        eager, eager_metrics = trained(row, as_batches)
    assert_close((states, metrics), (eager, eager_metrics))


def test_training_repeats_bit_for_bit(row: Row, as_batches: Callable[..., Batches]) -> None:
    first, again = (params_sha256(trained(row, as_batches)[0]) for _ in range(2))
    assert first == again != params_sha256(row.start)
    other_key = params_sha256(trained(row, as_batches, key=8)[0])
    draws = row.model.blocks[0].name.startswith("dropout") or row.model.method in DRAWING
    assert (other_key != first) == draws  # the key is used for nothing else


def reached(jaxpr: Any) -> list[bool]:
    """For each output of a jaxpr, whether it may depend on any input."""
    live = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(x in live for x in equation.invars if not isinstance(x, jax.extend.core.Literal)):
            live.update(equation.outvars)
    return [not isinstance(x, jax.extend.core.Literal) and x in live for x in jaxpr.outvars]


def test_no_gradient_crosses_a_block(row: Row) -> None:
    """The derivative of block i's loss along block j's parameters is zero, by value and by jaxpr."""
    if row.model.blocks[0].signal != "none":
        pytest.skip("backpropagation is what crosses blocks")
    x, y = data(row.model, 1)
    rng = np.random.default_rng(3)

    def losses(params: tuple[Any, ...]) -> list[jax.Array]:
        message, found = row.model.enter(jnp.asarray(x[0, 0]), jnp.asarray(y[0, 0])), []
        for block, state, param in zip(row.model.blocks, row.start, params, strict=True):
            state = state._replace(params=param)
            passed = block.forward(state, message, jax.random.key(1))
            message = passed.message
            found.append(passed.metrics["loss"])
        return found

    params = tuple(state.params for state in row.start)
    for j in range(len(params)):

        def along(direction: Any, j: int = j) -> list[jax.Array]:
            def one(param: Any) -> list[jax.Array]:
                return losses((*params[:j], param, *params[j + 1 :]))

            return jax.jvp(one, (params[j],), (direction,))[1]

        direction = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params[j])
        slopes = jax.jit(along)(direction)
        assert [bool(slope != 0) for slope in slopes] == [i == j for i in range(len(params))]
        assert reached(jax.make_jaxpr(along)(direction).jaxpr) == [i == j for i in range(len(params))]


def test_trials_equal_each_alone(row: Row, as_batches: Callable[..., Batches], random_states: Callable) -> None:
    many = trials(row.model, TRIALS)
    engine = sequential(many)
    starts = [random_states(row.model, seed) for seed in range(TRIALS)]
    sets = [data(row.model, 1, seed) for seed in range(TRIALS)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    xs, ys = (np.stack([one[which][0] for one in sets], 1) for which in (0, 1))
    state, metrics = engine.run(engine.load(stacked, trial_keys(7, TRIALS)), as_batches(xs, ys))
    together = engine.states(state)
    for r, (start, (x, y)) in enumerate(zip(starts, sets, strict=True)):
        alone, alone_metrics = row.engine.run(row.engine.load(start, jax.random.key(7 + r)), as_batches(x[0], y[0]))
        assert_close(jax.tree.map(lambda leaf, r=r: leaf[r], together), alone.blocks)
        assert_close(jax.tree.map(lambda leaf, r=r: leaf[:, r], metrics.values), alone_metrics.values)
    shared = jnp.asarray(sets[0][0][0, 0])
    scores = jax.jit(many.predict)(together, shared)
    last = jax.jit(row.model.predict)(jax.tree.map(lambda leaf: leaf[-1], together), shared)
    assert scores.shape == (TRIALS, BATCH, CLASSES)
    assert_close(scores[-1], last)


def test_trials_begin_as_each_alone() -> None:
    spec = jax.ShapeDtypeStruct(VECTORS, jnp.float32)
    model = al(mlp((4,)), spec, CLASSES, tx=optax.adam(1e-2), target_width=4)
    together = init(trials(model, 2), trial_keys(5, 2))
    for r in range(2):
        alone = init(model, trial_keys(5 + r, None))
        jax.tree.map(lambda a, b, r=r: np.testing.assert_array_equal(a[r], b), together, alone)
    kernel = np.asarray(together[0].params["f"]["Dense_0"]["kernel"])
    assert (kernel[0] != kernel[1]).any()


def test_keys_of_trials(x64: None) -> None:
    keys = trial_keys(3, 4)
    assert keys.shape == (4,)
    for r in range(4):
        assert keys[r] == jax.random.key(3 + r)
    assert trial_keys(3, None) == jax.random.key(3)


@pytest.mark.parametrize("count", [0, -1])
def test_too_few_trials_are_refused(count: int) -> None:
    spec = jax.ShapeDtypeStruct(VECTORS, jnp.float32)
    model = al(mlp((4,)), spec, CLASSES, tx=optax.sgd(0.1), target_width=4)
    with pytest.raises(ValueError, match=f"trials must be at least 1, of a model without trials; got {count} of None"):
        trials(model, count)
    with pytest.raises(ValueError, match="got 2 of 3"):
        trials(trials(model, 3), 2)
