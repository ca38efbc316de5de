"""Signals that ask a run to stop, and the exception of a run that did."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ONE_STOP = 3.0  # seconds in which several signals ask for the same stop


class Interrupted(Exception):  # noqa: N818  # not an error: the run was asked to stop, and did
    """SIGTERM or Ctrl-C came; everything up to `step` is saved."""

    def __init__(self, step: int, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} after batch {step}")
        self.step, self.signum = step, signum


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the signal that asked for a stop, or 0; a later second signal stops at once.

    A terminal, a cluster or a service manager signals all processes of a run, and a launcher among them hands it on: a
    process then hears of one stop more than once, at about the same time; or only after it has stopped, because another
    process heard of it first.  So where it stopped, what was there before comes back with the first later signal.
    """
    caught, first = [0], [0.0]

    def catch(signum: int, frame: Any) -> None:
        if not first[0]:
            caught[0], first[0] = signum, time.monotonic()
        elif time.monotonic() - first[0] > _ONE_STOP:
            signal.signal(signum, before[signum])
            signal.raise_signal(signum)

    before: dict[int, Any] = {}
    in_main = threading.current_thread() is threading.main_thread()  # elsewhere Python lets nobody catch signals
    for wanted in (signal.SIGINT, signal.SIGTERM) if in_main else ():
        before[wanted] = signal.signal(wanted, catch)

    def stopped() -> int:
        if jax.process_count() == 1:
            return caught[0]
        from jax.experimental import multihost_utils  # all processes must stop at the same batch

        asked = int(jnp.max(multihost_utils.process_allgather(np.int32(caught[0]))))
        if asked and not first[0]:
            first[0] = time.monotonic()
        return asked

    try:
        yield stopped
    finally:
        for signum, handler in before.items():
            if not first[0]:
                signal.signal(signum, handler)
