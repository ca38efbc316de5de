"""How few examples a block may be given at once: one alone says nothing where examples are compared with each other.

Contrastive and similarity losses, and norms by statistics of the batch, learn nothing from one example: the loss is a
constant, or the output is. Batches, data shards and micro-batches below what a model needs are refused.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from localgrad.base import BlockState, Forward, Model, PyTree, Spec
from localgrad.keys import fold_in
from localgrad.pipeline.specs import key_spec, once_a_model, specs

_ROWS = 4  # of the probe: two that stay as they are, and two that become others
_OUTPUT, _LOSS = 1e-3, 1e-4  # relative differences that rounding does not make


def least_examples(model: Model, smallest: int = 1) -> int:
    """The fewest examples that a model can learn from at once.

    A model says so of its losses (`Model.least_examples`).  Norms and whatever else couples examples are found by
    trying: see `couples`.

    Args:
      model: any model.
      smallest: the smallest part in question; where it is large enough for any coupling, nothing is tried.

    Returns:
      A number of examples.
    """
    message = jax.eval_shape(model.enter, model.x_spec, model.y_spec)
    rows = max(leaf.shape[model.batch_axis] for leaf in jax.tree.leaves(message) if leaf.ndim > model.batch_axis)
    views = max(1, rows // model.batch_size)  # of each example, all in one message
    if smallest * views >= 2 or not couples(model):
        return model.least_examples
    return max(model.least_examples, -(-2 // views))


def check_examples(model: Model, part: int, argument: str) -> None:
    """Refuses a part of a batch that a model cannot learn from.

    Args:
      model: any model.
      part: the examples that it is given at once.
      argument: what made the part so small, for example `batch_size=1`.

    Raises:
      ValueError: naming the argument, and the fewest examples.
    """
    least = least_examples(model, part)
    if part < least:
        examples = "1 example" if part == 1 else f"{part} examples"
        raise ValueError(
            f"{argument} gives method {model.method!r} {examples} at a time, and its loss or its norms compare at "
            f"least {least} with each other: nothing would be learnt. Choose parts of at least {least} examples."
        )


@once_a_model
def couples(model: Model) -> bool:
    """Whether any block of a model, while it trains, compares the examples of a batch with each other.

    Tried with random parameters, on batches (a, b), (a, b'), (a', b) and (a', b') of two halves: examples are coupled
    if what a block hands on of a depends on b, if its model state depends on the examples at all, or if its loss is
    not what a gives plus what b gives.

    Args:
      model: any model; only shapes, `enter`, and its blocks' `forward` and `backward` are used.
    """
    few = _with_batch(model, _ROWS)
    rng = np.random.default_rng(0)
    given = specs(few)
    states = [_random(rng, spec) for spec in given[0]]
    xs = [_examples(rng, few) for _ in range(2)]
    y_spec = few.y_spec
    kinds = jnp.arange(_ROWS, dtype=y_spec.dtype) % 2
    y = jnp.broadcast_to(jnp.expand_dims(kinds, range(1, y_spec.ndim - few.batch_axis)), y_spec.shape)
    key = jnp.broadcast_to(jax.random.key(0), key_spec(few).shape)
    half = _ROWS // 2

    def downs(passed: Sequence[Forward]) -> list[PyTree]:
        """What each block is given of the passes."""
        top, above = passed[-1].down, [*(each.down for each in passed[1:]), None]
        return [top if block.signal == "top" else own for block, own in zip(few.blocks, above, strict=True)]

    def both(a: jax.Array, b: jax.Array) -> jax.Array:
        cut = lambda x, start, stop: jax.lax.slice_in_dim(x, start, stop, axis=few.batch_axis)
        return jnp.concatenate([cut(a, 0, half), cut(b, half, _ROWS)], axis=few.batch_axis)

    @jax.jit
    def run(states: list[BlockState], x: jax.Array) -> tuple[list[PyTree], list[PyTree], list[jax.Array]]:
        messages, passed = [few.enter(x, y)], []
        for i, (block, state) in enumerate(zip(few.blocks, states, strict=True)):
            passed.append(block.forward(state, messages[-1], fold_in(key, i)))
            messages.append(passed[-1].message)
        moved, losses, above = [each.model_state for each in passed], [], None
        for block, state, each, down in reversed(list(zip(few.blocks, states, passed, downs(passed), strict=True))):
            metrics = [each.metrics]
            if block.signal != "none":
                assert block.backward is not None
                made = block.backward(state, each.stash, above if block.signal == "above" else down)
                metrics, above = [*metrics, made.metrics], made.down
            losses += [own["loss"] for own in metrics if "loss" in own]
        return messages[1:], moved, losses

    pairs = [(xs[0], xs[0]), (xs[0], xs[1]), (xs[1], xs[0]), (xs[1], xs[1])]
    same, upper, lower, other = (jax.device_get(run(states, both(a, b))) for a, b in pairs)
    first = lambda messages: [
        np.split(leaf, 2, axis=few.batch_axis)[0]
        for leaf in jax.tree.leaves(messages)
        if leaf.ndim > few.batch_axis and leaf.shape[few.batch_axis] % _ROWS == 0
    ]
    if any(_differ(*pair) for pair in zip(first(same[0]), first(upper[0]), strict=True)):
        return True
    if any(
        not np.array_equal(*pair, equal_nan=True)
        for pair in zip(jax.tree.leaves(same[1]), jax.tree.leaves(other[1]), strict=True)
    ):
        return True
    return any(_differ(a + d, b + c, _LOSS) for a, b, c, d in zip(same[2], upper[2], lower[2], other[2], strict=True))


def _with_batch(model: Model, size: int) -> Model:
    """The same model with another batch size."""

    def resized(spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = list(spec.shape)
        shape[model.batch_axis] = size
        return jax.ShapeDtypeStruct(tuple(shape), spec.dtype)

    return model._replace(x_spec=resized(model.x_spec), y_spec=resized(model.y_spec))


def _examples(rng: np.random.Generator, model: Model) -> jax.Array:
    shape, dtype = model.x_spec.shape, model.x_spec.dtype
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.asarray(rng.integers(1, 3, shape), dtype)
    return jnp.asarray(rng.normal(size=shape), dtype)


def _random(rng: np.random.Generator, state: Spec) -> BlockState:
    """Parameters that let signals through, and a model state without negative numbers, as a variance is."""

    def noise(spec: jax.ShapeDtypeStruct) -> jax.Array:
        scale = max(1, int(np.prod(spec.shape[:-1]))) ** -0.5 if spec.ndim > 1 else 0.3
        return jnp.asarray(scale * rng.normal(size=spec.shape), spec.dtype)

    def still(spec: jax.ShapeDtypeStruct) -> jax.Array:
        is_float = jnp.issubdtype(spec.dtype, jnp.floating)
        return jnp.abs(noise(spec)) if is_float else jnp.zeros(spec.shape, spec.dtype)

    return BlockState(jax.tree.map(noise, state.params), jax.tree.map(still, state.model_state), ())


def _differ(ours: np.ndarray, theirs: np.ndarray, tolerance: float = _OUTPUT) -> bool:
    if not np.issubdtype(np.asarray(ours).dtype, np.floating):
        return not np.array_equal(ours, theirs)
    return not np.allclose(ours, theirs, rtol=0, atol=tolerance * np.max(np.abs(ours), initial=1e-30), equal_nan=True)
