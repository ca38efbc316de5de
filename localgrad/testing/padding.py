"""A batch of sequences gives the same with more padding."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import Model, Spec
from localgrad.data import batches
from localgrad.pipeline import sequential
from localgrad.testing.compare import assert_same, assert_same_states, name_of, tolerance_of
from localgrad.testing.engines import trained
from localgrad.testing.examples import States, or_first, random_targets

_ADVICE = (
    "Weigh every sum and mean over places by the mask, and draw dropout in shapes that do not grow with the length."
)


def check_padding(
    make: Callable[[Spec], Model], x_spec: Spec, *, more: int = 5, count: int = 3, states: States | None = None
) -> None:
    """Sequences that are padded further give the same states, losses and predictions.

    Args:
      make: `x_spec -> Model` of token ids `(B, T)` whose 0 is padding, and of one target an example.
      x_spec: shape and dtype of the shorter batch.
      more: places of padding that the longer one has in addition.
      count: batches to train on.
      states: to begin with; by default those of `init`.

    Raises:
      AssertionError: naming the block, the leaf and the difference.
    """
    rng = np.random.default_rng(0)
    examples, length = x_spec.shape
    sizes = rng.integers(1, length + 1, (count, examples, 1))
    ids = np.where(np.arange(length) < sizes, rng.integers(1, 3, (count, examples, length)), 0)
    short = make(x_spec)
    long = make(jax.ShapeDtypeStruct((examples, length + more), x_spec.dtype))
    ys = random_targets(rng, short.task, short.y_spec, count)
    first, found = or_first(short, states), []
    for model, xs in ((short, ids), (long, np.pad(ids, ((0, 0), (0, 0), (0, more))))):
        inputs = jnp.asarray(xs, x_spec.dtype)
        fed = batches(inputs, jnp.asarray(ys), first=0, task=model.task)
        after, metrics = trained(model, sequential(model), first, fed)
        found.append((after, metrics.values, [model.predict(after, inputs[0], exit) for exit in model.exits]))
    limit, where = tolerance_of(short), f"{more} places of padding more against without"
    for i, pair in enumerate(zip(found[0][1], found[1][1], strict=True)):
        assert_same(*pair, limit, f"{name_of(short, i)}, {where}, metrics", _ADVICE)
    assert_same_states(short, found[0][0], found[1][0], limit, where, _ADVICE)
    for exit, ours, theirs in zip(short.exits, found[0][2], found[1][2], strict=True):
        assert_same(ours, theirs, limit, f"scores of exit {exit}, {where}", _ADVICE)
