"""Small random batches for a model, and the first of them as it comes to the blocks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Batches, BlockState, Key, Message, Model, Spec
from localgrad.data import batches
from localgrad.methods import trial_keys
from localgrad.pipeline import init
from localgrad.pipeline.feeding import enter
from localgrad.tasks import Task

States = Sequence[BlockState]


def random_inputs(rng: np.random.Generator, spec: Spec, count: int) -> np.ndarray:
    """Inputs `(count, *spec.shape)`: normal numbers, or token ids 1 and 2."""
    shape = (count, *spec.shape)
    if jnp.issubdtype(spec.dtype, jnp.integer):
        return rng.integers(1, 3, shape).astype(spec.dtype)
    return rng.normal(size=shape).astype(spec.dtype)


def random_targets(rng: np.random.Generator, task: Task, spec: Spec, count: int) -> np.ndarray:
    """Targets `(count, *spec.shape)` of a task: whole numbers below its outputs, 0 or 1 of several labels, or numbers.

    Tasks of your own may want others: then make batches yourself.
    """
    shape = (count, *spec.shape)
    if not jnp.issubdtype(spec.dtype, jnp.integer):
        return rng.normal(size=shape).astype(spec.dtype)
    return rng.integers(0, 2 if task.name == "multilabel" else task.outputs, shape).astype(spec.dtype)


def random_batches(model: Model, count: int = 4, seed: int = 0) -> Batches:
    """Random batches for a model, made from its `x_spec` and its task.

    Args:
      model: any model.
      count: number of batches.
      seed: of numpy's generator.

    Examples:
      >>> import localgrad as lg, optax
      >>> model = lg.dgl(lg.mlp((4,)), jax.ShapeDtypeStruct((8, 5), jnp.float32), 3, tx=optax.sgd(0.1))
      >>> [array.shape for array in random_batches(model, 2).items]
      [(2, 8, 5), (2, 8)]
    """
    rng = np.random.default_rng(seed)
    xs = random_inputs(rng, model.x_spec, count)
    ys = random_targets(rng, model.task, model.y_spec, count)
    return batches(jnp.asarray(xs), jnp.asarray(ys), first=0, task=model.task)


def or_random(model: Model, given: Batches | None) -> Batches:
    """The batches that were given, or random ones."""
    return random_batches(model) if given is None else given


def or_first(model: Model, states: States | None) -> tuple[BlockState, ...]:
    """The states that were given, or those with which the model begins."""
    return init(model, trial_keys(1, model.trials)) if states is None else tuple(states)


def some_of(given: Batches, start: int, stop: int) -> Batches:
    """The batches `start .. stop - 1` of a call."""
    cut = lambda tree: jax.tree.map(lambda x: x[start:stop], tree)
    return given._replace(batch_id=cut(given.batch_id), items=cut(given.items))


def first_message(model: Model, given: Batches) -> Message:
    """What the first block is given of the first batch."""
    item = jax.tree.map(lambda x: x[0], given.items)
    return enter(model, given.fetch(item, 0, model.batch_size))


def block_keys(model: Model, seed: int) -> list[Key]:
    """A key for each block."""
    return [trial_keys(seed + 100 * i, model.trials) for i in range(len(model.blocks))]
