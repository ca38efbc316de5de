"""Writes down what the devices do in a window of batches, for TensorBoard's profiler."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import jax


class Trace:
    """Starts and stops jax's profiler around a window of batches; it takes whole calls of the engine.

    Args:
      window: `(FROM, TO)`, numbers of batches since the start of training; None writes nothing.
      folder: where TensorBoard is to look.
    """

    def __init__(self, window: Sequence[int] | None, folder: str | PathLike):
        self._window, self._folder = window, folder
        self._under_way = False

    def before(self, step: int, count: int) -> None:
        """Before a call that trains on batches `step .. step + count - 1`."""
        if self._window is not None and not self._under_way:
            start, stop = self._window
            if step < stop and step + count > start:
                jax.profiler.start_trace(str(self._folder))
                self._under_way = True

    def after(self, step: int, arrays: Any) -> None:
        """After a call; `step` batches have been fed, and `arrays` are what it gave."""
        if self._under_way and self._window is not None and step >= self._window[1]:
            jax.block_until_ready(arrays)
            self.close()

    def close(self) -> None:
        """Stops a trace under way."""
        if self._under_way:
            jax.profiler.stop_trace()
            self._under_way, self._window = False, None
