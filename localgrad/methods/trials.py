"""Independent trials as one model: `vmap` of every function of every block."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from localgrad.base import BlockState, Key, LocalBlock, Message, Model, PyTree, Spec
from localgrad.descent import Around, descending
from localgrad.keys import over_keys


def trials(model: Model, count: int) -> Model:
    """Trains `count` independent copies of a model as one.

    Every array gains a first axis of that length, keys too: trial r has the r-th key, so its numbers are those of the
    model alone with that key, under any of jax's generators.  Where the keys are not threefry's, what draws from them
    runs one trial after another, since a `vmap` would draw from the first alone.  The optimizer is mapped as well, so
    norms and clips stay per trial.

    Args:
      model: a model without trials.
      count: number of trials R, at least one.

    Returns:
      A `Model` of inputs `(R, B, ...)` and labels `(R, B)`; `predict` maps states over trials and shares `x (B, ...)`;
      so does `features` without keys.

    Raises:
      ValueError: if `count` is below one or the model has trials already.
    """
    if count < 1 or model.trials is not None:
        raise ValueError(f"trials must be at least 1, of a model without trials; got {count} of {model.trials}.")

    def lead(spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, *spec.shape), spec.dtype)

    def predict(states: tuple[BlockState, ...], x: jax.Array, exit: int | None = None) -> jax.Array:
        return jax.vmap(lambda states: model.predict(states, x, exit))(states)

    def features(states: tuple[BlockState, ...], x: jax.Array, keys: Sequence[Key] | None = None) -> list[jax.Array]:
        if keys is None:
            return jax.vmap(lambda states: model.features(states, x))(states)
        return over_keys(model.features, states, x, list(keys))  # each trial trains on a batch of its own

    def complete(keys: Key, states: tuple[BlockState, ...]) -> tuple[BlockState, ...]:
        """One trial after another: each gets the bits that it gets alone."""
        assert model.complete is not None
        of = lambda trial: jax.tree.map(lambda x: x[trial], states)
        each = [model.complete(keys[trial], of(trial)) for trial in range(count)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    return model._replace(
        blocks=tuple(map(_mapped, model.blocks)),
        x_spec=lead(model.x_spec),
        y_spec=lead(model.y_spec),
        enter=jax.vmap(model.enter),
        predict=predict,
        features=features,
        trials=count,
        complete=None if model.complete is None else complete,
    )


def trial_keys(seed: int, count: int | None) -> Key:
    """The key of one run, or the keys of trials: trial r has that of `seed + r`.

    Examples:
      >>> trial_keys(3, 2)[1] == jax.random.key(4)
      Array(True, dtype=bool)
    """
    return jax.random.key(seed) if count is None else jnp.stack([jax.random.key(seed + r) for r in range(count)])


def _mapped(block: LocalBlock) -> LocalBlock:
    def init(key: Key, message: Spec) -> BlockState:
        one = jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape[1:], spec.dtype), message)
        return over_keys(lambda key: block.init(key, one), key)

    def forward(state: BlockState, message: Message, key: Key) -> Any:
        return over_keys(block.forward, state, message, key)

    backward = None if block.backward is None else partial(over_keys, block.backward)  # a stash may hold keys
    tx = {key: _mapped_transform(transform) for key, transform in block.tx.items()}
    return block._replace(init=init, forward=forward, backward=backward, tx=tx, made_of=None)


def _mapped_transform(tx: optax.GradientTransformation) -> Around:
    inner = descending(tx)

    def update(grads: PyTree, opt_state: PyTree, params: PyTree = None, **extra: jax.Array) -> tuple[PyTree, PyTree]:
        one = lambda grads, opt_state, params, extra: inner.update(grads, opt_state, params, **extra)
        return over_keys(one, grads, opt_state, params, extra)  # a state may hold the key of noise

    return Around(jax.vmap(inner.init), update)
