"""Measurements on a virtual machine: those during which its host ran something else on its cores are made again.

Such a disturbance comes in spells and takes one core and not the other; a pipeline, which waits for the slower core on
every tick, suffers from it most.  The kernel counts what the host took as `steal`.  The choice sees that count alone,
never a measured time.  On a machine of its own the count stays 0 and every measurement is the first.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

MOST = 0.02  # of the time of one core may be taken
TRIES = 6
counts = {"measurements": 0, "made_again": 0, "still_disturbed": 0}


def stolen(stat: str, cores: set[int]) -> float:
    """Seconds that the host has taken from these cores since the start.

    Args:
      stat: the text of `/proc/stat`.
      cores: by number.

    Examples:
      >>> text = "cpu 9 0 0 9 0 0 0 700\\ncpu0 5 0 0 4 0 0 0 300\\ncpu1 4 0 0 5 0 0 0 400\\nctxt 7"
      >>> ticks = os.sysconf("SC_CLK_TCK")
      >>> stolen(text, {1}) * ticks, stolen(text, {0, 1}) * ticks
      (400.0, 700.0)
    """
    found = (line.split() for line in stat.splitlines())
    ours = (int(fields[8]) for fields in found if fields[0] in {f"cpu{core}" for core in cores})
    return sum(ours) / os.sysconf("SC_CLK_TCK")


def taken() -> float:
    """Seconds that the host has taken from the cores of this process; 0 where the system does not tell."""
    stat = Path("/proc/stat")
    return stolen(stat.read_text(), os.sched_getaffinity(0)) if stat.exists() else 0.0


def undisturbed(measure: Callable[[], T]) -> T:
    """What `measure` gives while the host takes next to nothing; the least disturbed of `TRIES`, if none is so."""
    counts["measurements"] += 1
    tried: list[tuple[float, T]] = []
    while not tried or (tried[-1][0] > MOST and len(tried) < TRIES):
        before, began = taken(), time.perf_counter()
        result = measure()
        tried.append(((taken() - before) / (time.perf_counter() - began), result))
    share, result = min(tried, key=lambda each: each[0])
    counts["made_again"] += len(tried) > 1
    counts["still_disturbed"] += share > MOST
    return result
