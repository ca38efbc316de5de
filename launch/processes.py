"""What `processes.sh` does once it has found a Python: starts the programs, hands signals on, and waits for all."""

import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

_TURN = 0.1  # seconds between two looks at the programs


def free_port() -> int:
    """A port below those that the system hands out by itself."""
    while True:
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port := random.randrange(15000, 30000)))
            except OSError:
                continue
            return port


def start(program: Sequence[str], count: int, number: int, port: str) -> subprocess.Popen:
    """One of the programs, on a core of its own; what a terminal sends to all reaches it through this one alone."""
    has_cores = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if has_cores else []

    def alone() -> None:
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if has_cores:
            os.sched_setaffinity(0, {cores[number % len(cores)]})

    place = (f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}", f"--process_id={number}")
    return subprocess.Popen([sys.executable, *program, *place], preexec_fn=alone)


def main(words: Sequence[str]) -> int:
    """Runs the programs; returns the worst of their statuses."""
    count, program = int(words[0]), words[1:]
    os.environ["LOCALGRAD_COMMAND"] = shlex.join(["bash", "launch/processes.sh", *words])  # how to go on
    os.environ["LOCALGRAD_LAUNCHER"] = str(os.getpid())  # whose end is theirs
    port, linger = os.environ.get("PORT") or str(free_port()), float(os.environ.get("LINGER") or 60)
    started: list[subprocess.Popen] = []
    stopped: list[int] = []

    def stop(signum: int, frame: object) -> None:
        stopped.append(signum)
        for process in started:
            if process.returncode is None:  # it was not waited for: its number is still its own
                process.terminate()

    for asks in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(asks) is not signal.SIG_IGN:  # under nohup a closed terminal is nothing
            signal.signal(asks, stop)
    for number in range(count):
        if not stopped:
            started.append(start(program, count, number, port))
            if stopped:  # the signal came before this one was on the list
                started[-1].terminate()
    worst, failed = 0, float("inf")
    left = list(started)
    while left:
        time.sleep(_TURN)
        for process in list(left):
            status = process.poll()
            if status is None:
                if time.monotonic() - failed >= linger:
                    process.kill()
                continue
            left.remove(process)
            worst = max(worst, status if status >= 0 else 128 - status)
            if status:
                failed = min(failed, time.monotonic())
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
