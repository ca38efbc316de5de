"""The platform that a program is traced for: that of the mesh that will run it, and not the default backend.

A program for the TPU chips of a topology may be compiled on a machine that has none.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax

_PLATFORM: ContextVar[str | None] = ContextVar("platform", default=None)


@contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Within it, what is traced will run on a platform: `cpu`, `gpu` or `tpu`."""
    token = _PLATFORM.set(platform)
    try:
        yield
    finally:
        _PLATFORM.reset(token)


def platform() -> str:
    """Where what is being traced will run; outside of an engine that is the default backend.

    Examples:
      >>> with traced_for("tpu"):
      ...     platform()
      'tpu'
    """
    return _PLATFORM.get() or jax.default_backend()


def platform_of(devices: Sequence[jax.Device] | None) -> str:
    """The platform of some devices; by default, and of none, that of the devices which jax uses by itself."""
    chosen = jax.devices() if devices is None or len(devices) == 0 else devices
    return chosen[0].platform


def traced(function: Callable[..., Any], platform: str) -> Callable[..., Any]:
    """A function that is traced for a platform, wherever that is done."""

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        with traced_for(platform):
            return function(*arguments)

    return run
