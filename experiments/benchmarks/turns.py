"""What the benchmarks share: contenders that take turns within one run, and the ratio of their times."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from absl import flags
from numpy.typing import ArrayLike

from experiments.stolen_time import undisturbed
from localgrad.cli import shell


def define_flags(repetitions: int) -> None:
    """The flags of every benchmark."""
    flags.DEFINE_integer("repetitions", repetitions, "measurements of each contender, taken in turns")
    flags.DEFINE_bool("smoke", False, "the smallest size, for tests")
    flags.DEFINE_string("out", "experiments/results", "folder of the JSON, the markdown table and the figure")
    shell.define_process_flags()


def in_turns(programs: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of every program, one value a repetition.

    Args:
      programs: name -> a call that returns arrays, which are waited for, or nothing; each runs once before, to compile.
      repetitions: how often each is measured; one after another, so that what disturbs the machine disturbs all.
    """
    for program in programs.values():
        jax.block_until_ready(program())
    seconds: dict[str, list[float]] = {name: [] for name in programs}

    def measure(program: Callable[[], Any]) -> float:
        began = time.perf_counter()
        jax.block_until_ready(program())
        return time.perf_counter() - began

    for _ in range(repetitions):
        for name, program in programs.items():
            seconds[name].append(undisturbed(partial(measure, program)))
    return seconds


def ratio(of: ArrayLike, to: ArrayLike) -> dict[str, float]:
    """Median, least and largest of `of / to` over the repetitions of one run, and the ratio of the fastest of each.

    On a machine that others share the fastest is what was disturbed least.

    Examples:
      >>> ratio([2.0, 3.0, 4.0], [1.0, 2.0, 1.0])
      {'median': 2.0, 'min': 1.5, 'max': 4.0, 'fastest': 2.0}
    """
    each = np.asarray(of) / np.asarray(to)
    fastest = float(np.min(of) / np.min(to))
    return {"median": float(np.median(each)), "min": float(each.min()), "max": float(each.max()), "fastest": fastest}


def show(figure: Mapping[str, float]) -> str:
    """A ratio as text, with its spread.

    Examples:
      >>> show({"median": 3.0, "min": 2.0, "max": 4.0})
      '3.00 (2.00 to 4.00)'
    """
    return f"{figure['median']:.2f} ({figure['min']:.2f} to {figure['max']:.2f})"
