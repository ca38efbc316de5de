"""Texts of about the same length in one batch: groups of lengths, and the order of batches of one group each."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from localgrad.data.dataset import Dataset
from localgrad.data.shuffle import permuted

_SHORTEST = 8  # tokens of the shortest group of texts


def length_groups(length: int) -> tuple[int, ...]:
    """Lengths that texts of at most `length` tokens are grouped by: halves of it, down to 8 or so, ascending.

    Examples:
      >>> length_groups(70)
      (9, 18, 35, 70)
    """
    found = [length]
    while found[-1] > 2 * _SHORTEST - 1:
        found.append(-(-found[-1] // 2))
    return tuple(reversed(found))


def steps_per_epoch(dataset: Dataset, batch_size: int, lengths: Sequence[int] = ()) -> int:
    """Full batches in an epoch of a `source` of the same arguments."""
    return sum(examples // batch_size for examples in _groups(dataset, tuple(lengths), batch_size)[1])


def grouped(dataset: Dataset, lengths: tuple[int, ...], batch_size: int) -> tuple[Dataset, tuple[int, ...]]:
    """The set in the order of its groups, the order within them kept, and the number of examples in each.

    Args:
      dataset: a set of texts; any set for no lengths, which is one group.
      lengths: ascending, of the longest text of each group.
      batch_size: a group of fewer examples joins the next.

    Raises:
      ValueError: for lengths that do not ascend, or of images.
    """
    if not lengths:
        return dataset, (len(dataset.inputs),)
    group, sizes = _groups(dataset, lengths, batch_size)
    order = np.argsort(group, kind="stable")
    return dataset._replace(inputs=dataset.inputs[order], labels=dataset.labels[order]), sizes


def _groups(dataset: Dataset, lengths: tuple[int, ...], batch_size: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """The group of lengths of each example `(N,)`, and the sizes of the groups that batches are made of."""
    if not lengths:
        return np.zeros(len(dataset.inputs), np.int64), (len(dataset.inputs),)
    if dataset.words is None or any(a >= b for a, b in zip(lengths, lengths[1:], strict=False)):
        raise ValueError(f"lengths={lengths}; expected ascending lengths of texts, and {dataset.name} to hold texts")
    group = np.searchsorted(lengths, (dataset.inputs > 0).sum(axis=1))
    group = np.minimum(group, len(lengths) - 1)
    sizes: list[int] = []
    waiting = 0
    for size in np.bincount(group, minlength=len(lengths)).tolist():
        waiting += size
        if waiting >= batch_size:
            sizes.append(waiting)
            waiting = 0
    if sizes:
        sizes[-1] += waiting  # fewer than a batch are left: they join the last group
    else:
        sizes = [waiting]
    return group, tuple(sizes)


def order_in_groups(
    groups: Sequence[int],
    batch_size: int,
    shuffle: bool,
    key: jax.Array,
    epoch: jax.Array,
    step: jax.Array,
    start: jax.Array | int,
    count: int,
) -> jax.Array:
    """The examples `start .. start + count - 1` of a batch of one group, int32 `(count,)`.

    Batches of all groups are mixed, and so are the examples of each.

    Args:
      groups: examples of each group, which stand one after the other.
      batch_size, shuffle, key: of the source.
      epoch, step: which epoch, and which of its batches; int32 scalars that may be traced.
      start, count: the part of the batch; count is static.
    """
    group_keys = jax.random.split(key, len(groups) + 1)
    ends = np.cumsum([examples // batch_size for examples in groups])
    if shuffle:
        (step,) = permuted(group_keys[-1], epoch, step[None], int(ends[-1]))
    group = jnp.sum(step >= jnp.asarray(ends, jnp.int32), dtype=jnp.int32)
    first = jnp.asarray(start, jnp.int32) + jnp.arange(count, dtype=jnp.int32)

    def of(i: int) -> Callable[[jax.Array], jax.Array]:
        batches_before = int(ends[i - 1]) if i else 0
        examples_before = sum(groups[:i])

        def examples(step: jax.Array) -> jax.Array:
            position = (step - batches_before) * batch_size + first
            if shuffle:
                position = permuted(group_keys[i], epoch, position, groups[i])
            return position + examples_before

        return examples

    return lax.switch(group, [of(i) for i in range(len(groups))], step)
