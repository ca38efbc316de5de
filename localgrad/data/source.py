"""Training batches.

All arithmetic on inputs happens on the device, inside the training step, with the same code in both modes: a resident
source keeps the whole set there and gathers by the keyed order; a streamed one has the host gather the same bytes.
Texts go through as they are; their batches may be grouped by length.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from localgrad import base
from localgrad.data.augment import Augment
from localgrad.data.batch_fetch import Fetch, data_keys, orders, resident_fetch, streamed_fetch
from localgrad.data.dataset import Dataset
from localgrad.data.groups import grouped
from localgrad.data.look import looked_at
from localgrad.data.scaling import scaling, targets
from localgrad.data.shuffle import LIMIT

RESIDENT_LIMIT = 2 * 1024**3


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
      dtype: floating type of x, but for texts; it is computed in float32 at least.  None leaves inputs as they are.
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
    _check_numbers(dataset, batch_size, seed, trials, views, augment)
    dataset = dataset._replace(labels=targets(dataset, dtype))
    dataset, groups = grouped(dataset, tuple(lengths), batch_size)
    kind, scale = scaling(dataset, mean, std, dtype)
    if augment is not None:
        traced_augment(augment, dataset, batch_size)  # refused where it does not take them
    config = Fetch(groups, batch_size, shuffle, augment, kind, trials, views)
    scale = put(scale)
    keys = data_keys(seed, trials)
    if resident is None:
        resident = dataset.inputs.nbytes <= resident_limit

    if resident:
        bound = put((keys, dataset.inputs, dataset.labels))
        fetch = jax.tree_util.Partial(resident_fetch(config), scale, *bound)
    else:
        fetch = jax.tree_util.Partial(streamed_fetch(config), scale, put(keys))
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
            example = np.asarray(orders(config, host_keys, jax.device_put(batch_id, _host())))
            items = {
                "batch_id": batch_id,
                "example": example,
                "inputs": dataset.inputs[example],
                "labels": dataset.labels[example],
            }
        placed_id, placed_items = put((batch_id, items))
        return base.Batches(placed_id, placed_items, fetch)

    return base.Source(batches, config.steps_per_epoch)


def _check_numbers(
    dataset: Dataset, batch_size: int, seed: int, trials: int | None, views: int, augment: Augment | None
) -> None:
    """Refuses what is out of range, or not of texts."""
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


def traced_augment(augment: Augment, dataset: Dataset, batch_size: int) -> core.ClosedJaxpr:
    """What an augmentation computes of a batch.

    Raises:
      ValueError: it does not take these inputs, such as a crop of the rows of a table.
    """
    inputs = jax.ShapeDtypeStruct((batch_size, *dataset.inputs.shape[1:]), dataset.inputs.dtype)
    keys = jax.eval_shape(lambda: jnp.broadcast_to(data_keys(0, None).augment, (batch_size,)))
    try:
        return jax.make_jaxpr(augment)(keys, inputs)
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error) or '-').splitlines()[0]}"
        raise ValueError(
            f"augment does not take the inputs of {dataset.name}, {inputs.dtype} {inputs.shape}: leave it out, or give "
            f"one that does ({reason})"
        ) from error


def _host() -> jax.Device | None:
    """The CPU, where an order can be had without waiting for the training steps an accelerator is busy with."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return None
