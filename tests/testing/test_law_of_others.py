"""The law of blocks, tasks, schedules and texts: kept by the library's own, and broken by each of these."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from localgrad import al, testing
from localgrad.base import Block, Schedule
from localgrad.blocks import cnn, mlp, transformer
from localgrad.pipeline import schedules
from localgrad.tasks import Score, Task, classification, multilabel, regression, tokens

SPEC = jax.ShapeDtypeStruct((4, 5), jnp.float32)
DENSE = mlp((3,))[0]
NORM = mlp((3,), norm=True)[0]


@pytest.mark.parametrize(
    ("block", "spec"),
    [
        (mlp((3,), norm=True, dropout=0.5)[0], SPEC),
        (cnn((2,), dropout=0.5)[0], jax.ShapeDtypeStruct((2, 4, 4, 1), jnp.float32)),
        (
            transformer(9, layers=1, width=4, heads=2, feed_forward=4, dropout=0.5)[0],
            jax.ShapeDtypeStruct((2, 4), "int32"),
        ),
    ],
    ids=["mlp", "cnn", "transformer"],
)
def test_blocks_of_the_library_keep_the_law(block: Block, spec: jax.ShapeDtypeStruct) -> None:
    testing.check_block(block, spec)


def changed(block: Block, change: Callable[..., Any]) -> Block:
    """A block whose `apply` goes through `change(apply, params, model_state, x, key, train)`."""

    def apply(params: Any, model_state: Any, x: jax.Array, *, key: Any, train: bool) -> Any:
        return change(block.apply, params, model_state, x, key, train)

    return block._replace(apply=apply, name="odd")


def always_training(apply: Any, params: Any, model_state: Any, x: Any, key: Any, train: bool) -> Any:
    return apply(params, model_state, x, key=key, train=True)


def dropping_state(apply: Any, params: Any, model_state: Any, x: Any, key: Any, train: bool) -> Any:
    y, moved = apply(params, model_state, x, key=key, train=train)
    return y, {} if train else moved


def key_of_its_own(apply: Any, params: Any, model_state: Any, x: Any, key: Any, train: bool) -> Any:
    y, moved = apply(params, model_state, x, key=key, train=train)
    return y + (jax.random.normal(jax.random.key(1), y.shape) if train else 0.0), moved


def key_in_prediction(apply: Any, params: Any, model_state: Any, x: Any, key: Any, train: bool) -> Any:
    y, moved = apply(params, model_state, x, key=key, train=train)
    return y + jax.random.normal(key, y.shape), moved


def drawing_by_numpy(apply: Any, params: Any, model_state: Any, x: Any, key: Any, train: bool) -> Any:
    y, moved = apply(params, model_state, x, key=key, train=train)
    return y * np.random.default_rng().uniform(), moved


def of_its_batch(apply: Any, params: Any, model_state: Any, x: Any, key: Any, train: bool) -> Any:
    y, moved = apply(params, model_state, x, key=key, train=train)
    return y - jnp.mean(y, axis=0, keepdims=True), moved


def infinite(apply: Any, params: Any, model_state: Any, x: Any, key: Any, train: bool) -> Any:
    y, moved = apply(params, model_state, x, key=key, train=train)
    return y / jnp.zeros_like(y), moved


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (changed(NORM, always_training), "`apply\\(..., train=False\\)` moves the model state: .* differs by"),
        (changed(NORM, dropping_state), "gives a model state of another kind"),
        (changed(DENSE, key_of_its_own), "`apply`: random numbers are drawn at test_law_of_others.py"),
        (changed(DENSE, key_in_prediction), "does not predict: .* leave out what draws"),
        (changed(DENSE, drawing_by_numpy), "`apply` is another program when it is traced again"),
        (changed(DENSE, of_its_batch), "predicts an example by those beside it"),
        (changed(DENSE, infinite), "is not finite"),
        (
            DENSE._replace(name="odd", summary=lambda y: jnp.mean(y, axis=1)),
            "`summary` gives float32\\[4\\] for outputs",
        ),
    ],
    ids=["train", "state", "key", "prediction", "numpy", "batch", "finite", "summary"],
)
def test_a_block_that_breaks_the_law_is_named(block: Block, message: str) -> None:
    with pytest.raises(AssertionError, match=f"block 'odd'.*{message}"):
        testing.check_block(block, SPEC)


@pytest.mark.parametrize(
    "task", [classification(3), regression(2), multilabel(3), tokens(5)], ids=lambda task: task.name
)
def test_tasks_of_the_library_keep_the_law(task: Task) -> None:
    testing.check_task(task)


FLAT = classification(3)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (FLAT._replace(encode=lambda y, dtype: jax.nn.one_hot(y, 4, dtype=dtype)), r"`encode` gives float32\[4, 4\]"),
        (FLAT._replace(loss=lambda scores, y: jnp.zeros(())), "`loss` has no gradient along the scores"),
        (FLAT._replace(loss=lambda scores, y: jnp.sum(scores**2)), "make it a mean over examples"),
        (FLAT._replace(loss=lambda scores, y: jnp.mean(scores**2)), "`loss` is .* for a target that is none"),
        (FLAT._replace(check=lambda y, dtype: jnp.zeros((), dtype)), "`check` is 0 for a target that is none"),
        (FLAT._replace(check=lambda y, dtype: jnp.ones((), dtype)), "`check` of targets that are fine gives 1.0"),
        (FLAT._replace(scores={}), "has no scores"),
        (FLAT._replace(scores={"mean": Score(lambda scores, y: jnp.mean(scores))}), "'mean' gives float32\\[\\]"),
        (FLAT._replace(scores={"odd": Score(FLAT.scores["accuracy"].of, "most")}), "has best='most'"),
        (FLAT._replace(y_spec=lambda x: jax.ShapeDtypeStruct((7,), jnp.int32)), r"`y_spec` gives int32\[7\] for 4"),
    ],
)
def test_a_task_that_breaks_the_law_is_named(task: Task, message: str) -> None:
    with pytest.raises(AssertionError, match=f"task 'classification'.*{message}"):
        testing.check_task(task)


class Late(Schedule):
    """Says that nothing is late."""

    @property
    def delays(self) -> tuple[int, ...]:
        return (0,) * self.stages


class Forgetful(Schedule):
    """Keeps nothing between two ticks."""

    @property
    def places(self) -> tuple[int, ...]:
        return (0,) * self.stages


class Short(Schedule):
    """Stops when the last batch has entered."""

    @property
    def drain(self) -> int:
        return 0


class Twice(Schedule):
    """Takes each batch forward on two ticks."""

    def forward(self, tick: int, stage: int) -> tuple[int, int] | None:
        return ((tick - stage) // 2, 0) if tick >= stage else None


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Late(*schedules.broadcast(3)), "stage 0 learns 2 batches late, and `delays` says 0"),
        (Forgetful(*schedules.broadcast(3)), "stage 0 keeps 3 batches or parts between two ticks, and `places` says 0"),
        (Short(*schedules.broadcast(3)), "is not done within 5 ticks"),
        (Twice(*schedules.broadcast(3)), "the pass of stage 0 on batch 0, part 0, is done twice"),
        (Schedule("broadcast", (1, 1, 1)), "learning of stage 0 on batch 0, part 0, is on tick 1, and its signal"),
        (Schedule("chain", (3, 2, 1)), "and the stage above's on"),
    ],
)
def test_a_schedule_that_breaks_the_law_is_named(schedule: Schedule, message: str) -> None:
    with pytest.raises(AssertionError, match=f"schedule '{schedule.name}'.*{message}"):
        testing.check_schedule(schedule)


@pytest.mark.slow
def test_a_mean_over_padding_is_caught(x64: None) -> None:
    def make(spec: jax.ShapeDtypeStruct) -> Any:
        careless = transformer(9, layers=1, width=4, heads=2, feed_forward=4, dtype=jnp.float64)
        network = [block._replace(summary=lambda y: jnp.mean(y, axis=1)) for block in careless]
        return al(network, spec, 3, tx=optax.sgd(0.1), target_width=4)

    with pytest.raises(AssertionError, match="block 1 .*, 5 places of padding more against without.* differs by"):
        testing.check_padding(make, jax.ShapeDtypeStruct((2, 4), jnp.int32))
