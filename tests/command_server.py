"""Has imported what the programs import, and forks for each that it is asked for: see `tests.commands`.

A line of its input is a job; the status of each follows on its output.  No array is made here, so that jax has no
threads yet which a fork would lose.
"""

import json
import os
import runpy
import signal
import sys
from typing import Any

import localgrad.cli.main
import localgrad.evaluation
import localgrad.results
import localgrad.training  # noqa: F401  # all of it for the programs


def asked_for(seconds: int) -> dict[str, Any] | None:
    """In a fork the job that it is for, and in this process None, once there are no more."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            signal.alarm(seconds)
            return json.loads(line)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def become(job: dict[str, Any]) -> None:
    """Makes this process what `python -m PROGRAM WORDS` would be."""
    for number, name in enumerate((os.devnull, job["stdout"], job["stderr"])):
        opened = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.path[0] = job["cwd"]
    sys.argv = [job["program"], *job["words"]]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]


if __name__ == "__main__" and (job := asked_for(seconds=600)) is not None:
    become(job)
    runpy.run_module(job["program"], run_name="__main__", alter_sys=True)
