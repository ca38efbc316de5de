"""What a program calls: where it stands, how it joins the others, agrees with them, and leaves."""

import atexit
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax._src.clusters import ClusterEnv  # nothing public says what jax.distributed finds of a cluster

from localgrad.processes.facts import software
from localgrad.processes.guest import Guest
from localgrad.processes.hub import Hub, Member
from localgrad.processes.wire import free_port, listen, serve_tunnel, split_address

PATIENCE = 30.0  # seconds
_GRACE = 5.0  # seconds in which others may come to the same error by themselves
_NEVER = 10**7  # seconds; the service of jax need not look for the dead
_END = 30  # seconds; all have come to their end when the service of jax ends
_DETECTION = 300  # seconds in which a cluster must say where process 0 is

_guest: list[Guest] = []  # this process's place in a run of several; as with jax, a process has at most one


class Place(NamedTuple):
    """Where a process stands in a run: process `process` of `processes`, with process 0 at `host:port`.

    `local_devices` are the devices that are its own, where the cluster says so.
    """

    host: str
    port: int
    processes: int
    process: int
    local_devices: Sequence[int] | None = None


def place(coordinator: str, count: int | None = None, process: int | None = None) -> Place:
    """The place that the flags give, or that the cluster gives where `coordinator` is `auto`.

    Raises:
      ValueError: if they are no place; one line.
    """
    if coordinator != "auto":
        if count is None or process is None:
            raise ValueError("--coordinator, --num_processes and --process_id go together; one of them is missing.")
        if not 0 <= process < count:
            raise ValueError(f"--process_id={process} must be one of 0 .. {count - 1}, as --num_processes={count}.")
        return Place(*split_address(coordinator), count, process)
    address, count, process, local = ClusterEnv.auto_detect_unset_distributed_params(
        None, count, process, None, None, _DETECTION
    )
    if address is None or count is None or process is None:
        raise ValueError(
            "--coordinator=auto: nothing here says who the processes are, as TPU pods, SLURM and GKE do; give "
            "--coordinator=HOST:PORT, --num_processes and --process_id."
        )
    return Place(*split_address(address), count, process, local)


def join(
    place: Place,
    facts: dict[str, Any],
    *,
    patience: float = PATIENCE,
    resume: str = "the command that started it",
    launcher: int | None = None,
) -> None:
    """Meets the other processes of a run and starts `jax.distributed`; before anything else uses jax.

    From then on the process leaves with status `PEER_LOST` and one line when another dies, falls silent or fails.

    Args:
      place: where this process stands.
      facts: what all must have in common besides the software, by field, as JSON has it.
      patience: seconds to wait for the others to come, and later for a sign of life.
      resume: the command that goes on where the run stopped, to be printed.
      launcher: process id of the program that started this one; once that is gone, this one gets a SIGTERM.

    Raises:
      ValueError: if the processes do not find each other, or do not belong together; one line.
    """
    service, hub = free_port(), None
    if place.process == 0:
        hub = Hub(_listen(place), place.processes, service, patience)
    member = Member(place.process, socket.gethostname(), os.getpid())
    try:
        guest = Guest(
            (place.host, place.port), member, place.processes, {**facts, **software()}, patience, resume, hub,
            _watch(launcher),
        )  # fmt: skip
    except ValueError:
        if hub is not None:
            hub.linger(2.0)  # the others hear it too
        raise
    _guest.append(guest)
    sys.excepthook = _hook(guest, sys.excepthook)
    jax.config.update("jax_enable_preemption_service", False)  # it would take the first SIGTERM for itself
    here = f"127.0.0.1:{service if place.process == 0 else serve_tunnel((place.host, place.port))}"
    jax.distributed.initialize(
        here, place.processes, place.process, place.local_devices,
        heartbeat_timeout_seconds=_NEVER, shutdown_timeout_seconds=_END, coordinator_bind_address=here,
    )  # fmt: skip
    atexit.register(guest.finish)  # runs before jax's own, which was registered earlier


def agree(facts: Callable[[], dict[str, Any]]) -> None:
    """Compares facts with those of all other processes; where there are none, nothing happens.

    Args:
      facts: gives values by field, as JSON has them; called only where there is something to compare with.

    Raises:
      ValueError: on every process, if they differ; one line.
    """
    for guest in _guest:
        guest.agree(facts())


def wait_for_blame(error: str) -> None:
    """Before an error is shown: does not return where another process is its cause, and one line says so instead."""
    for guest in _guest:
        guest.wait_for_blame(error)


def leave(code: int, why: str) -> None:
    """Ends this process with an exit status, and tells the others why; where there are none, nothing happens."""
    for guest in _guest:
        sys.stdout.flush()
        guest.leave(code, why, _GRACE)


def _listen(place: Place) -> socket.socket:
    try:
        return listen(place.host, place.port)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "another program, or another process 0, listens there" if taken else error.strerror
        raise ValueError(
            f"process 0 cannot listen at --coordinator={place.host}:{place.port}: {why}. Choose another port."
        ) from None


def _hook(guest: Guest, before: Callable) -> Callable[[type[BaseException], BaseException, Any], None]:
    """What an error that nobody catches does: the others are told, and do not wait for this process."""

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if kind is KeyboardInterrupt:
            print("stopped by SIGINT", file=sys.stderr, flush=True)
            guest.leave(128 + signal.SIGINT, "it was stopped by SIGINT", _GRACE)
        guest.wait_for_blame(f"{kind.__name__}: {error}")
        before(kind, error, trace)
        sys.stderr.flush()
        guest.leave(1, f"{kind.__name__}: {str(error).partition(chr(10))[0][:200]}", _GRACE)

    return hook


def _watch(launcher: int | None) -> Callable[[], None]:
    """A function that sends this process a SIGTERM, once, when the program that started it is gone."""
    child = os.getppid() == launcher  # not where a wrapper stands between
    told: list[int] = []

    def gone(launcher: int) -> bool:
        if child:
            return os.getppid() != launcher
        try:
            os.kill(launcher, 0)
        except OSError:
            return True
        return False

    def look() -> None:
        if launcher is not None and not told and gone(launcher):
            told.append(launcher)
            os.kill(os.getpid(), signal.SIGTERM)

    return look
