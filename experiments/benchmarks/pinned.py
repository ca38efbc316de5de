"""Workers: this program again, in processes pinned to a core each, that hold programs and run the one asked for.

A benchmark starts itself with `--role`, and talks to its workers by lines: the name of a program in, one JSON object
with the seconds out.  Cores of a shared machine are not equally fast from one second to the next, so contenders take
turns, and what must share the machine runs at once.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from experiments.stolen_time import undisturbed

FLAGS = flags.FLAGS

# Otherwise glibc gives large arrays back to the system after every call and gets them again page by page: a call of one
# batch pays as much for that as a call of many, and the work of a stage alone would seem dearer than in a pipeline.
# One arena, because the others give back what is over 64 MiB all the same.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(10**11),
    "MALLOC_TOP_PAD_": str(2**26),
}


def define_flags() -> None:
    """The flag by which a worker knows itself."""
    flags.DEFINE_string("role", None, "set by the program itself")


def cores(count: int) -> list[int]:
    """The first cores of this process.

    Raises:
      ValueError: if there are fewer.
    """
    there = sorted(os.sched_getaffinity(0))
    if len(there) < count:
        raise ValueError(f"{count} pinned processes need as many cores; this machine has {len(there)}.")
    return there[:count]


class Worker:
    """A process of this program in a role, pinned to a core; it is ready once `hear` has answered."""

    def __init__(self, role: str, core: int, *more: str):
        spec = sys.modules["__main__"].__spec__
        if spec is None:
            raise RuntimeError("workers are started by name: run the benchmark as `python -m`.")
        given = [flag for flag in sys.argv[1:] if not flag.startswith("--role")]
        command = ["taskset", "-c", str(core), sys.executable, "-m", spec.name, *given, f"--role={role}", *more]
        pipe = subprocess.PIPE
        environment = {**os.environ, **KEEP_MEMORY}
        self.role = role
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def ask(self, program: str) -> None:
        """Begins a program; `hear` waits for it."""
        print(program, file=self._process.stdin, flush=True)

    def hear(self) -> dict[str, Any]:
        """The next answer; whatever else the worker's libraries print is passed over."""
        for line in self._process.stdout or ():
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"worker {self.role!r} stopped; its own message is above.")

    def end(self) -> None:
        """Tells it to stop; those of one mesh end together, so tell all before `wait`."""
        if self._process.stdin:
            self._process.stdin.close()

    def wait(self) -> None:
        self._process.wait()


def team(role: str, where: Sequence[int], *more: str) -> list[Worker]:
    """Workers that join each other by `jax.distributed`, or by whatever reads the same flags."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    join = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={len(where)}"]
    return [Worker(role, core, *more, *join, f"--process_id={i}") for i, core in enumerate(where)]


def at_once(workers: Sequence[Worker], program: str | Sequence[str]) -> list[float]:
    """Seconds of a program on every worker, all begun at the same time; of one each, if several are given.

    They are made again where the host disturbs them, so a program must do the same work every time.
    """
    programs = [program] * len(workers) if isinstance(program, str) else program

    def measure() -> list[float]:
        for worker, name in zip(workers, programs, strict=True):
            worker.ask(name)
        return [worker.hear()["seconds"] for worker in workers]

    return undisturbed(measure)


def serve(programs: Mapping[str, Callable[[], Any]], about: Mapping[str, Any]) -> None:
    """A worker's life: every program once, to compile; then whichever is asked for, until there are no more lines.

    Args:
      programs: name -> a call that returns when its work is done.
      about: what the first answer says.
    """
    for program in programs.values():
        program()
    print(json.dumps({"ready": FLAGS.role, **about}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        programs[line.strip()]()
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
