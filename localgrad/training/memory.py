"""Whether what a run keeps on its devices can be there at all, by shapes: before anything is made or compiled."""

import math
import os
from itertools import pairwise

import jax

from localgrad.base import Model
from localgrad.pipeline import specs
from localgrad.training.run_config import RunConfig

_ARRAY = 2**48  # bytes, 256 TiB; the compiler counts no further than 2**63


def check_sizes(model: Model) -> None:
    """Refuses an array that no machine will hold, before a plan is made: the compiler's own counts would overflow.

    Raises:
      ValueError: with the shape of the largest.
    """
    leaves = [leaf for leaf in jax.tree.leaves(specs(model)[0]) if leaf.ndim]
    largest = max(leaves, key=_bytes, default=None)
    if largest is not None and _bytes(largest) > _ARRAY:
        raise ValueError(
            f"this network has an array of shape {largest.shape}, {_bytes(largest) / 2**40:,.0f} TiB: choose smaller "
            "--widths, --target_width or hidden layers, or fewer --trials at a time."
        )


def check_memory(model: Model, config: RunConfig) -> None:
    """Refuses a network whose states, and what goes in and out of one block, are more than the devices hold.

    The states are parameters and what optimizers keep.  What a step needs besides, gradients and what is inside of a
    block, is not counted: a network that passes may still not fit.

    Args:
      model: of all trials.
      config: the stages that the blocks are spread over, evenly at best, and the parts that batches are cut in.

    Raises:
      ValueError: with both sizes.
    """
    states, messages = (list(map(_of_tree, trees)) for trees in specs(model))
    passing = max(sum(pair) for pair in pairwise(messages)) / (config.micro_batches or 1)
    device = jax.local_devices()[0]
    there = (device.memory_stats() or {}).get("bytes_limit")
    if there is None:  # devices of a CPU share the machine's memory
        share, where, there = sum(states) / jax.process_count(), "this machine", _of_machine()
        passing /= jax.process_count()
    else:
        share, where = sum(states) / config.stages, f"{device.device_kind}"
        passing /= config.data_parallel
    if there is not None and share + passing > there:
        raise ValueError(
            f"the parameters and optimizer states of this network take {share / 2**30:,.0f} GiB, and a batch at its "
            f"widest block {passing / 2**30:,.0f}; {where} has {there / 2**30:,.0f}: choose smaller --widths, "
            "--target_width, --batch_size or hidden layers, fewer --trials at a time, or more --stages on devices of "
            "their own."
        )


def _of_tree(tree: object) -> int:
    return sum(map(_bytes, jax.tree.leaves(tree)))


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _of_machine() -> int | None:
    """Bytes of memory of this machine, where the system says it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
