"""The same again, with and without jit, and as one of several trials as alone."""

import jax
import jax.numpy as jnp

from localgrad.base import Batches, BlockState, Metrics, Model
from localgrad.data import batches as batches_of
from localgrad.methods import trials
from localgrad.pipeline import sequential
from localgrad.testing.compare import (
    assert_finite,
    assert_learnt,
    assert_same,
    assert_same_reports,
    assert_same_states,
    name_of,
    tolerance_of,
)
from localgrad.testing.engines import trained
from localgrad.testing.examples import States, or_first, or_random, some_of

Trained = tuple[tuple[BlockState, ...], Metrics]


def check_variants(model: Model, batches: Batches | None = None, *, states: States | None = None) -> None:
    """Training gives finite numbers, every bit of them again when it is repeated, and the same without jit.

    States and the metrics of every batch are compared.

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
    with_jit, again = (trained(model, engine, first, given) for _ in range(2))
    with jax.disable_jit():
        without = trained(model, engine, first, given)
    assert_learnt(model, with_jit[1])
    for i, state in enumerate(with_jit[0]):
        where, advice = f"{name_of(model, i)}, after {len(given.batch_id)} batches", "Look for a division by zero."
        assert_finite({"state": state, "metrics": with_jit[1].values[i]}, where, advice)
    advice = "Nothing but state, message and key may decide what is done."
    _assert_same(model, with_jit, again, 0.0, "trained twice", advice)
    advice = "Compute the same whether arrays are traced or not: no test of their type or value decides what is done."
    _assert_same(model, with_jit, without, tolerance_of(model), "with jit against without", advice)


def check_trials(model: Model, batches: Batches | None = None, *, count: int = 2, states: States | None = None) -> None:
    """Trials that train as one model give the numbers of each alone, in states, metrics and predictions.

    Each has a key, a state to begin with, and batches of its own.

    Args:
      model: a model without trials.
      batches: random ones by default; trial r is given them from the r-th on, around the end.
      count: of trials.
      states: of the first trial at the start, by default those of `init`; each other trial begins where a training on
        its batches from the start of the trial before it ends.

    Raises:
      AssertionError: naming the trial, the block, the leaf and the difference.

    Examples:
      >>> import localgrad as lg, optax
      >>> model = lg.dgl(lg.mlp((4,)), jax.ShapeDtypeStruct((8, 5), jnp.float32), 3, tx=optax.sgd(0.1))
      >>> check_trials(model)
    """
    given, alone, many = or_random(model, batches), sequential(model), trials(model, count)
    examples = [_arrays(model, given, turn) for turn in range(count)]
    fed = [batches_of(x, y, first=0, task=model.task) for x, y in examples]
    starts = [or_first(model, states)]
    for own in fed[1:]:
        starts.append(trained(model, alone, starts[-1], own)[0])
    xs, ys = (jnp.stack([one[which] for one in examples], axis=1) for which in (0, 1))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    together, reports = trained(many, sequential(many), stacked, batches_of(xs, ys, first=0, task=model.task))
    x = examples[0][0][0]
    scores = jax.jit(many.predict)(together, x) if model.exits else None
    advice = (
        "Every array of a trial must follow from its own state, message and key: what `jax.vmap` cannot map is shared."
    )
    for r, (start, own) in enumerate(zip(starts, fed, strict=True)):
        theirs = trained(model, alone, start, own, seed=7 + r)
        state = jax.tree.map(lambda leaf, r=r: leaf[r], together)
        report = reports._replace(values=jax.tree.map(lambda leaf, r=r: leaf[:, r], reports.values))
        where = f"as trial {r + 1} of {count} against alone"
        _assert_same(model, (state, report), theirs, tolerance_of(model), where, advice)
        if scores is not None:
            predicted = jax.jit(model.predict)(theirs[0], x)
            assert_same(scores[r], predicted, tolerance_of(model), f"what is predicted {where}", advice)


def _assert_same(model: Model, ours: Trained, theirs: Trained, tolerance: float, where: str, advice: str) -> None:
    """States and metrics are the same."""
    assert_same_states(model, ours[0], theirs[0], tolerance, where, advice)
    assert_same_reports(model, ours[1], theirs[1], tolerance, where, advice)


def _arrays(model: Model, given: Batches, turn: int) -> tuple[jax.Array, jax.Array]:
    """Inputs and targets `(K, B, ...)` of the batches, beginning with another one."""
    count = len(given.batch_id)
    rows = [jax.tree.map(lambda x, k=k: x[(k + turn) % count], given.items) for k in range(count)]
    pairs = [given.fetch(row, 0, model.batch_size) for row in rows]
    return jnp.stack([x for x, _ in pairs]), jnp.stack([y for _, y in pairs])
