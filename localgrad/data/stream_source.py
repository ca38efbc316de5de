"""Batches for training and for evaluation out of a loader."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from localgrad import base
from localgrad.data.dataset import Dataset
from localgrad.data.evaluation import filled_up
from localgrad.data.scaling import normalised, scaling, targets
from localgrad.data.streams import Chunk, Look, Stream


def stream_source(
    stream: Stream,
    look: Look,
    *,
    batch_size: int,
    mean: np.ndarray | None = None,
    std: np.ndarray | None = None,
    dtype: Any = jnp.float32,
    put: Callable[[base.PyTree], base.PyTree] = jax.device_put,
) -> base.Source:
    """Training batches of a stream, one pass an epoch; the partial last batch of each is dropped.

    Asked for a batch that is not the next, it begins that epoch's pass anew and passes over what comes before: a run
    that goes on in the middle of an epoch meets the batches that were left only if the loader keeps its order.

    Args:
      stream: the loader.
      look: what a pass over it found.
      batch_size, mean, std, dtype, put: as for `source`.

    Raises:
      ValueError: fewer examples than one batch; later, an epoch that is shorter than the first look.
    """
    steps = look.examples // batch_size
    if not steps:
        raise ValueError(f"{stream.name} gives {look.examples} examples, less than one batch of {batch_size}.")
    kind, scale = scaling(_like(stream, look), mean, std, dtype)
    fetch = jax.tree_util.Partial(_fetch(kind, batch_size), put(scale))
    passing: list[Iterator[Chunk]] = [iter(())]
    place = [-1]  # the batch that comes next

    def next_chunk(step: int) -> Chunk:
        if step != place[0] or not step % steps:
            passing[0] = stream.chunks(batch_size)
            for _ in range(step % steps):
                next(passing[0], None)
        found = next(passing[0], None)
        if found is None or len(found[0]) < batch_size:
            raise ValueError(f"{stream.name} gave fewer than {look.examples} examples in epoch {step // steps + 1}.")
        place[0] = step + 1
        return found

    def batches(first: int, count: int) -> base.Batches:
        xs, ys = zip(*(next_chunk(step) for step in range(first, first + count)), strict=True)
        y = targets(_like(stream, look)._replace(labels=np.stack(ys)), dtype)
        ids, items = put((np.arange(first, first + count, dtype=np.int32), (np.stack(xs), y)))
        return base.Batches(ids, items, fetch)

    return base.Source(batches, steps)


@dataclass(frozen=True)
class stream_batches:  # noqa: N801  # called like a function, as `eval_batches` is
    """Masked evaluation batches of a stream, as `eval_batches` makes them; each `for` is a pass."""

    stream: Stream
    batch_size: int
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    dtype: Any = jnp.float32

    def __iter__(self) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
        for x, y in self.stream.chunks(self.batch_size):
            nothing = Look(len(x), x.dtype, np.zeros(()), np.ones(()))
            kind, scale = scaling(_like(self.stream, nothing), self.mean, self.std, self.dtype)
            y = targets(_like(self.stream, nothing)._replace(labels=y), self.dtype)
            mask = np.arange(self.batch_size) < len(x)
            x, y, mask = jax.device_put((filled_up(x, self.batch_size), filled_up(y, self.batch_size), mask))
            yield (x if kind is None else normalised(scale, x, kind)), y, mask


def _like(stream: Stream, look: Look) -> Dataset:
    """A set of one example of zeros, of a stream's shapes, for what asks a set for those."""
    return Dataset(stream.name, np.zeros((1, *stream.shape), look.dtype), np.zeros(1, np.int32), task=stream.task)


@cache  # one function object for equal arguments, so that an engine compiles once
def _fetch(kind: np.dtype | None, batch_size: int) -> Callable[..., tuple[jax.Array, jax.Array]]:
    def fetch(scale: Any, item: tuple[jax.Array, jax.Array], start: jax.Array | int, count: int):
        x, y = (jax.lax.dynamic_slice_in_dim(array, start, count) for array in item)
        return (x if kind is None else normalised(scale, x, kind)), y

    fetch.batch_size = batch_size  # type: ignore[attr-defined]
    return fetch
