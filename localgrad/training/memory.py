"""Whether what a run keeps on its devices can be there at all, by shapes: before anything is made or compiled."""

import math
import os

import jax

from localgrad.base import Model
from localgrad.pipeline import specs

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


def check_memory(model: Model, stages: int) -> None:
    """Refuses a network whose parameters and optimizer states alone are more than the devices hold.

    What a step needs besides, activations and gradients, is not counted: a network that passes may still not fit.

    Args:
      model: of all trials.
      stages: devices that the blocks are spread over, evenly at best.

    Raises:
      ValueError: with both sizes.
    """
    needed = sum(map(_bytes, jax.tree.leaves(specs(model)[0])))
    device = jax.local_devices()[0]
    there = (device.memory_stats() or {}).get("bytes_limit")
    if there is None:  # devices of a CPU share the machine's memory
        share, where, there = needed / jax.process_count(), "this machine", _of_machine()
    else:
        share, where = needed / stages, f"{device.device_kind}"
    if there is not None and share > there:
        raise ValueError(
            f"the parameters and optimizer states of this network take {share / 2**30:,.0f} GiB, and {where} has "
            f"{there / 2**30:,.0f}: choose smaller --widths, --target_width or hidden layers, fewer --trials at a "
            "time, or more --stages on devices of their own."
        )


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def _of_machine() -> int | None:
    """Bytes of memory of this machine, where the system says it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
