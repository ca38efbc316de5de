"""The examples of a batch, fetched inside the training step: their order, their augmentation, their scale."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from localgrad.data.augment import Augment
from localgrad.data.groups import order_in_groups
from localgrad.data.scaling import Scale, normalised
from localgrad.data.shuffle import permuted
from localgrad.keys import GENERATOR

STREAM = 0x64617461  # sets the keys of the data apart from all others that are made of the same seed


class Keys(NamedTuple):
    """The randomness of a source, or of each of its trials: typed keys, scalar or `(R,)`."""

    order: jax.Array
    augment: jax.Array


class Fetch(NamedTuple):
    """What is static of it in the jitted step; sources with equal ones share its compilation."""

    groups: tuple[int, ...]  # examples of each, which stand one after the other
    batch_size: int
    shuffle: bool
    augment: Augment | None
    dtype: np.dtype | None  # None: texts, which go through as they are
    trials: int | None
    views: int

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return sum(examples // self.batch_size for examples in self.groups)


# One function for each `Fetch`, so that a jitted step knows it again and is not traced again.


@cache
def resident_fetch(config: Fetch) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The fetch of a resident source: an item is a batch id."""

    def fetch(
        scale: Scale | None,
        keys: Keys,
        inputs: jax.Array,
        labels: jax.Array,
        item: jax.Array,
        start: jax.Array,
        count: int,
    ) -> tuple[jax.Array, jax.Array]:
        _check_count(config, count)

        def one(keys: Keys) -> tuple[jax.Array, jax.Array]:
            example = _order(config, keys, item, start, count)
            return _finished(config, scale, keys, item, example, inputs[example]), labels[example]

        return one(keys) if config.trials is None else jax.vmap(one)(keys)

    fetch.batch_size = config.batch_size  # type: ignore[attr-defined]  # which engines look at
    return fetch


@cache
def streamed_fetch(config: Fetch) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The fetch of a streamed source: an item holds the bytes of its batch."""

    def fetch(
        scale: Scale | None, keys: Keys, item: dict[str, jax.Array], start: jax.Array, count: int
    ) -> tuple[jax.Array, jax.Array]:
        _check_count(config, count)
        batch_id = item["batch_id"]

        def one(keys: Keys, example: jax.Array, inputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
            window = partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=count)
            return _finished(config, scale, keys, batch_id, window(example), window(inputs)), window(labels)

        arrays = keys, item["example"], item["inputs"], item["labels"]
        return one(*arrays) if config.trials is None else jax.vmap(one)(*arrays)

    fetch.batch_size = config.batch_size  # type: ignore[attr-defined]  # which engines look at
    return fetch


def _order(config: Fetch, keys: Keys, batch_id: jax.Array, start: jax.Array | int, count: int) -> jax.Array:
    """The examples `start .. start + count - 1` of a batch, int32 `(count,)`."""
    epoch, step = batch_id // config.steps_per_epoch, batch_id % config.steps_per_epoch
    if len(config.groups) > 1:
        return order_in_groups(config.groups, config.batch_size, config.shuffle, keys.order, epoch, step, start, count)
    first = step * config.batch_size + jnp.asarray(start, jnp.int32)
    position = first + jnp.arange(count, dtype=jnp.int32)
    (examples,) = config.groups
    return permuted(keys.order, epoch, position, examples) if config.shuffle else position


@partial(jax.jit, static_argnums=0)
def orders(config: Fetch, keys: Keys, batch_id: jax.Array) -> jax.Array:
    """The examples of whole batches: int32 `(K, B)`, or `(K, R, B)` for R trials."""

    def one(keys: Keys, batch_id: jax.Array) -> jax.Array:
        return _order(config, keys, batch_id, 0, config.batch_size)

    over_trials = one if config.trials is None else jax.vmap(one, in_axes=(0, None))
    return jax.vmap(over_trials, in_axes=(None, 0))(keys, batch_id)


def _finished(
    config: Fetch, scale: Scale | None, keys: Keys, batch_id: jax.Array, example: jax.Array, inputs: jax.Array
) -> jax.Array:
    if config.dtype is None:
        return inputs
    if config.augment is None:
        views = [inputs] * config.views
    else:
        # By example and not by place in the batch: data shards draw what one device would.
        batch_key = jax.random.fold_in(keys.augment, batch_id)
        own = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(batch_key, example)
        of_view = lambda view: jax.vmap(jax.random.fold_in, in_axes=(0, None))(own, view) if config.views > 1 else own
        views = [config.augment(of_view(view), inputs) for view in range(config.views)]
    finished = [normalised(scale, view, config.dtype) for view in views]
    return jnp.stack(finished, axis=1) if config.views > 1 else finished[0]


def data_keys(seed: int, trials: int | None) -> Keys:
    """The keys of a seed, or of those of several trials; the same under any default generator of jax."""

    def one(seed: jax.Array) -> Keys:
        # Not the default generator, under some of which the draws of an example depend on those beside it.
        order, augment = jax.random.split(jax.random.fold_in(jax.random.key(seed, impl=GENERATOR), STREAM))
        return Keys(order, augment)

    if trials is None:
        return one(jnp.uint32(seed))
    return jax.vmap(one)(jnp.arange(trials, dtype=jnp.uint32) + jnp.uint32(seed))


def _check_count(config: Fetch, count: int) -> None:
    if not 1 <= count <= config.batch_size:
        raise ValueError(f"fetch of count={count} examples; expected 1 .. {config.batch_size}, the batch_size")
