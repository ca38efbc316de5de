"""What every method promises: a row in `ROWS` is all that a new one needs.

It learns, and it keeps the law of `localgrad.testing`; all of it in float64, where the law is exact to rounding.
`full` holds every row to all of both; without it two rows are, but for the engines, which `tests/pipeline` has.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad import testing
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
    gim,
    infopro,
    kp,
    mixed_error,
    mono_forward,
    noprop,
    overlapping,
    predsim,
    rotation,
    scl,
    simclr,
    usf,
)
from localgrad.pipeline import sequential
from localgrad.report.digest import params_sha256

BATCH, CLASSES, PER_CALL, STAGES = 8, 3, 2, 3
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
    return bp(mlp((5, 5)), vectors(), CLASSES, tx=optax.adam(1e-2))


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

DRAWS, NORMS = mlp((4, 3, 3), dropout=0.2), mlp((4, 3, 3), norm=True)
SGD = optax.sgd(0.1, momentum=0.9)
LAWFUL: dict[str, Callable[[], Model]] = {  # what learns from pairs or from images alone, or is made of a row
    "deep_supervision": lambda: deep_supervision(DRAWS, vectors(), CLASSES, tx=SGD, weight=0.5),
    "infopro": lambda: infopro(cnn((2, 3, 3)), images(), CLASSES, tx=SGD, loss="softmax"),
    "mixed": lambda: mixed_error(scl(DRAWS[:2], vectors(), CLASSES, tx=SGD, head="linear"), 0.5),
    "simclr": lambda: simclr(NORMS, vectors(), CLASSES, tx=SGD, hidden=24, width=5),
    "rotation": lambda: rotation(DRAWS, images(), CLASSES, tx=SGD),
    "gim": lambda: gim(DRAWS, images(), CLASSES, tx=SGD, patch=2, steps=1, negatives=3),
    "overlap": lambda: overlapping(early_exit(DRAWS, vectors(), CLASSES, tx=SGD)),
}


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
    """Separable clouds, one a class, `(calls, PER_CALL, B, ...)`."""
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


def test_training_repeats_bit_for_bit(row: Row, as_batches: Callable[..., Batches]) -> None:
    first, again = (params_sha256(trained(row, as_batches)[0]) for _ in range(2))
    assert first == again != params_sha256(row.start)
    other_key = params_sha256(trained(row, as_batches, key=8)[0])
    draws = row.model.blocks[0].name.startswith("dropout") or row.model.method in DRAWING
    assert (other_key != first) == draws  # the key is used for nothing else


def test_it_keeps_the_law(row: Row) -> None:
    testing.check_model(row.model, stages=STAGES, states=row.start, without=("engines", "bubbles"))


@pytest.mark.full
def test_it_keeps_the_rest_of_it(row: Row) -> None:
    testing.check_model(row.model, stages=STAGES, states=row.start)


@pytest.mark.full
@pytest.mark.parametrize("name", LAWFUL)
def test_they_keep_the_law(name: str, x64: None) -> None:
    testing.check_model(LAWFUL[name](), stages=STAGES)
