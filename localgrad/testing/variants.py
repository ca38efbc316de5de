"""The same with and without jit, and as one of several trials as alone."""

import jax
import jax.numpy as jnp

from localgrad.base import Batches, Model
from localgrad.data import batches as batches_of
from localgrad.methods import trials
from localgrad.pipeline import sequential
from localgrad.testing.compare import assert_finite, assert_learnt, assert_same_states, name_of, tolerance_of
from localgrad.testing.engines import trained
from localgrad.testing.examples import States, or_first, or_random, some_of


def check_variants(model: Model, batches: Batches | None = None, *, states: States | None = None) -> None:
    """A step of the sequential engine gives the same with and without jit, and only finite numbers.

    Args:
      model: any model.
      batches: random ones by default; the first two are used.
      states: by default those of `init`.

    Raises:
      AssertionError: naming the block, the leaf and the difference.

    Examples:
      >>> import localgrad as lg, optax
      >>> model = lg.dgl(lg.mlp((4,)), jax.ShapeDtypeStruct((8, 5), jnp.float32), 3, tx=optax.sgd(0.1))
      >>> check_variants(model)
    """
    given, first = some_of(or_random(model, batches), 0, 2), or_first(model, states)
    engine = sequential(model)
    with_jit = trained(model, engine, first, given)
    with jax.disable_jit():
        without = trained(model, engine, first, given)
    assert_learnt(model, with_jit[1])
    for i, state in enumerate(with_jit[0]):
        where, advice = f"{name_of(model, i)}, after {len(given.batch_id)} batches", "Look for a division by zero."
        assert_finite({"state": state, "metrics": with_jit[1].values[i]}, where, advice)
    advice = "Compute the same whether arrays are traced or not: no test of their type or value decides what is done."
    assert_same_states(model, with_jit[0], without[0], tolerance_of(model), "with jit against without", advice)


def check_trials(model: Model, batches: Batches | None = None, *, count: int = 2, states: States | None = None) -> None:
    """Trials that train as one model give the numbers of each alone; each has a key and, here, batches of its own.

    Args:
      model: a model without trials.
      batches: random ones by default; trial r is given them from the r-th on, around the end.
      count: of trials.
      states: of each trial at the start; by default those of `init`.

    Raises:
      AssertionError: naming the trial, the block, the leaf and the difference.

    Examples:
      >>> import localgrad as lg, optax
      >>> model = lg.dgl(lg.mlp((4,)), jax.ShapeDtypeStruct((8, 5), jnp.float32), 3, tx=optax.sgd(0.1))
      >>> check_trials(model)
    """
    given, first = or_random(model, batches), or_first(model, states)
    many, examples = trials(model, count), [_arrays(model, given, turn) for turn in range(count)]
    xs, ys = (jnp.stack([one[which] for one in examples], axis=1) for which in (0, 1))
    stacked = jax.tree.map(lambda x: jnp.stack([x] * count), first)
    fed = batches_of(xs, ys, first=0, task=model.task)
    together, _ = trained(many, sequential(many), stacked, fed)
    advice = (
        "Every array of a trial must follow from its own state, message and key: what `jax.vmap` cannot map is shared."
    )
    alone = sequential(model)
    for r, (x, y) in enumerate(examples):
        theirs, _ = trained(model, alone, first, batches_of(x, y, first=0, task=model.task), seed=7 + r)
        ours = jax.tree.map(lambda leaf, r=r: leaf[r], together)
        where = f"as trial {r + 1} of {count} against alone"
        assert_same_states(model, ours, theirs, tolerance_of(model), where, advice)


def _arrays(model: Model, given: Batches, turn: int) -> tuple[jax.Array, jax.Array]:
    """Inputs and targets `(K, B, ...)` of the batches, beginning with another one."""
    count = len(given.batch_id)
    rows = [jax.tree.map(lambda x, k=k: x[(k + turn) % count], given.items) for k in range(count)]
    pairs = [given.fetch(row, 0, model.batch_size) for row in rows]
    return jnp.stack([x for x, _ in pairs]), jnp.stack([y for _, y in pairs])
