"""Training batches.

All arithmetic on inputs happens on the device, inside the training step, with the same code in both modes: a resident
source keeps the whole set there and gathers by the keyed order; a streamed one has the host gather the same bytes.
Texts go through as they are; their batches may be grouped by length.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from localgrad import base
from localgrad.data.augment import Augment
from localgrad.data.dataset import Dataset, looked_at
from localgrad.data.groups import grouped, order_in_groups
from localgrad.data.scaling import Scale, normalised, scaling
from localgrad.data.shuffle import LIMIT, permuted
from localgrad.keys import GENERATOR

RESIDENT_LIMIT = 2 * 1024**3
STREAM = 0x64617461  # sets the keys of the data apart from all others that are made of the same seed


class Keys(NamedTuple):
    """The randomness of a source, or of each of its trials: typed keys, scalar or `(R,)`."""

    order: jax.Array
    augment: jax.Array


class Config(NamedTuple):
    """What is static in the jitted step; sources with equal ones share its compilation."""

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


def source(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    mean: np.ndarray | None = None,
    std: np.ndarray | None = None,
    dtype: Any = jnp.float32,
    augment: Augment | None = None,
    views: int = 1,
    trials: int | None = None,
    shuffle: bool = True,
    lengths: Sequence[int] = (),
    resident: bool | None = None,
    resident_limit: int = RESIDENT_LIMIT,
    put: Callable[[base.PyTree], base.PyTree] = jax.device_put,
) -> base.Source:
    """Makes training batches whose order and augmentation only depend on the seed, the batch id and the example.

    That holds under any default generator of jax: the keys are threefry's.

    `batches(first, count)` gives `base.Batches` whose `fetch(item, start, count)` returns x `(count, ...)` of `dtype`,
    normalised, or of texts the numbers of their words, int32 `(count, L)`, and y int32 `(count,)`; count is static,
    start may be traced.  With `trials=R` both get a leading axis R, and trial r is bit for bit what a source of
    `seed + r` gives.  Resident and streamed sources are bit for bit equal too.  Any batch can be asked for at any time:
    there is no state.

    Args:
      dataset: the training split, of images, texts or any other numbers; it is looked through once, here.
      batch_size: examples a batch; a partial last batch of an epoch is dropped.
      seed: seeds the order of each epoch and the augmentation.
      mean, std: scalars or `(C,)`, in units of the inputs `(N, ..., C)`, as `pixel_stats` gives them; None, both of
        them, leaves the numbers as they are (bytes of images too).  Texts take none.
      dtype: floating type of x, but for texts; it is computed in float32 at least.
      augment: `(keys (B,), inputs (B, ...)) -> inputs`, before normalisation, see `augmentation`; None changes nothing.
      views: number of times V that each example is augmented, independently; above one x is `(count, V, ...)`.
      trials: number of independent trials R, or None for one without the leading axis.
      shuffle: False keeps the order of the dataset in every epoch.
      lengths: of texts, ascending: a batch holds texts of at most the same of these lengths, see `length_groups`, and
        batches of all groups are mixed.  A group of less than a batch joins the next; of each, a partial last batch is
        dropped.
      resident: True keeps the whole set on the device, once for all trials; False sends it batch by batch; None
        chooses the former if the inputs fit `resident_limit`.
      resident_limit: bytes of inputs.
      put: places a tree of host arrays; an engine's `put` for its mesh.

    Returns:
      A `base.Source`.

    Raises:
      ValueError: an argument is out of range, or the dataset is not as `Dataset` says; the message names it.
    """
    dataset = looked_at(dataset)
    examples = len(dataset.inputs)
    if not 1 <= batch_size <= examples:
        raise ValueError(
            f"batch_size={batch_size} with {examples} training examples of {dataset.name}; "
            f"expected 1 .. {examples}: a partial batch is never trained on"
        )
    if trials is not None and trials < 1:
        raise ValueError(f"trials={trials}; expected at least 1, or None for one without a trial axis")
    if not 0 <= seed < 2**32 - (trials or 1):
        raise ValueError(f"seed={seed}; expected 0 .. 2**32 - 1, together with the trials counted up from it")
    if views < 1:
        raise ValueError(f"views={views}; expected at least 1")
    if dataset.words is not None and (augment is not None or views > 1):
        raise ValueError(f"{dataset.name} holds texts, and augmentation and views are of pictures: leave them out")
    dataset, groups = grouped(dataset, tuple(lengths), batch_size)
    kind, scale = scaling(dataset, mean, std, dtype)
    if augment is not None:
        _check_augment(augment, dataset, batch_size)
    config = Config(groups, batch_size, shuffle, augment, kind, trials, views)
    scale = put(scale)
    keys = _keys(seed, trials)
    if resident is None:
        resident = dataset.inputs.nbytes <= resident_limit

    if resident:
        bound = put((keys, dataset.inputs, dataset.labels))
        fetch = jax.tree_util.Partial(_resident(config), scale, *bound)
    else:
        fetch = jax.tree_util.Partial(_streamed(config), scale, put(keys))
        host_keys = jax.device_put(keys, _host())

    def batches(first: int, count: int) -> base.Batches:
        if first < 0 or count < 1 or first + count > LIMIT:
            raise ValueError(
                f"batches(first={first}, count={count}); expected first >= 0, count >= 1 and a sum of at most {LIMIT}"
            )
        batch_id = np.arange(first, first + count, dtype=np.int32)
        if resident:
            items: base.PyTree = batch_id
        else:
            example = np.asarray(_orders(config, host_keys, jax.device_put(batch_id, _host())))
            items = {
                "batch_id": batch_id,
                "example": example,
                "inputs": dataset.inputs[example],
                "labels": dataset.labels[example],
            }
        placed_id, placed_items = put((batch_id, items))
        return base.Batches(placed_id, placed_items, fetch)

    return base.Source(batches, config.steps_per_epoch)


# Fetching: one function for each configuration, so that a jitted step knows it again and is not traced anew.


@cache
def _resident(config: Config) -> Callable[..., tuple[jax.Array, jax.Array]]:
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
def _streamed(config: Config) -> Callable[..., tuple[jax.Array, jax.Array]]:
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


def _order(config: Config, keys: Keys, batch_id: jax.Array, start: jax.Array | int, count: int) -> jax.Array:
    """The examples `start .. start + count - 1` of a batch, int32 `(count,)`."""
    epoch, step = batch_id // config.steps_per_epoch, batch_id % config.steps_per_epoch
    if len(config.groups) > 1:
        return order_in_groups(config.groups, config.batch_size, config.shuffle, keys.order, epoch, step, start, count)
    first = step * config.batch_size + jnp.asarray(start, jnp.int32)
    position = first + jnp.arange(count, dtype=jnp.int32)
    (examples,) = config.groups
    return permuted(keys.order, epoch, position, examples) if config.shuffle else position


@partial(jax.jit, static_argnums=0)
def _orders(config: Config, keys: Keys, batch_id: jax.Array) -> jax.Array:
    """The examples of whole batches: int32 `(K, B)`, or `(K, R, B)` for R trials."""

    def one(keys: Keys, batch_id: jax.Array) -> jax.Array:
        return _order(config, keys, batch_id, 0, config.batch_size)

    over_trials = one if config.trials is None else jax.vmap(one, in_axes=(0, None))
    return jax.vmap(over_trials, in_axes=(None, 0))(keys, batch_id)


def _finished(
    config: Config, scale: Scale | None, keys: Keys, batch_id: jax.Array, example: jax.Array, inputs: jax.Array
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


# Arguments


def _check_augment(augment: Augment, dataset: Dataset, batch_size: int) -> None:
    """Refuses an augmentation that does not take these inputs, such as a crop of the rows of a table."""
    inputs = jax.ShapeDtypeStruct((batch_size, *dataset.inputs.shape[1:]), dataset.inputs.dtype)
    keys = jax.eval_shape(lambda: jnp.broadcast_to(_keys(0, None).augment, (batch_size,)))
    try:
        jax.eval_shape(augment, keys, inputs)
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error) or '-').splitlines()[0]}"
        raise ValueError(
            f"augment does not take the inputs of {dataset.name}, {inputs.dtype} {inputs.shape}: leave it out, or give "
            f"one that does ({reason})"
        ) from error


def _keys(seed: int, trials: int | None) -> Keys:
    def one(seed: jax.Array) -> Keys:
        # Not the default generator, under some of which the draws of an example depend on those beside it.
        order, augment = jax.random.split(jax.random.fold_in(jax.random.key(seed, impl=GENERATOR), STREAM))
        return Keys(order, augment)

    if trials is None:
        return one(jnp.uint32(seed))
    return jax.vmap(one)(jnp.arange(trials, dtype=jnp.uint32) + jnp.uint32(seed))


def _check_count(config: Config, count: int) -> None:
    if not 1 <= count <= config.batch_size:
        raise ValueError(f"fetch of count={count} examples; expected 1 .. {config.batch_size}, the batch_size")


def _host() -> jax.Device | None:
    """The CPU, where an order can be had without waiting for the training steps an accelerator is busy with."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return None
