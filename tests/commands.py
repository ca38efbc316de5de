"""Programs as a user starts them, but for the two seconds in which each imports jax."""

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from .quick import QUICK

ROOT = Path(__file__).parents[1]


def command(
    *words: str, program: str = "localgrad", cwd: str | os.PathLike | None = None
) -> subprocess.CompletedProcess:
    """What `python -m PROGRAM WORDS` gives: status, output and errors.

    Args:
      words: its arguments.
      program: its module.
      cwd: the folder that it runs in, by default this one.
    """
    env = {**os.environ, **QUICK, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        job = {"program": program, "words": words, "env": env, "cwd": str(Path(cwd or ".").resolve())}
        server = _server(tuple(sorted(item for item in env.items() if item[0].startswith(("JAX_", "XLA_")))))
        assert server.stdin is not None and server.stdout is not None
        print(json.dumps({**job, "stdout": str(stdout), "stderr": str(stderr)}), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, status, stdout.read_text(), stderr.read_text())


@cache
def _server(of_jax: tuple[tuple[str, str], ...]) -> subprocess.Popen:
    """A `command_server` whose jax was imported under these variables; it ends with this process."""
    env = {**os.environ, **dict(of_jax), "PYTHONPATH": str(ROOT)}
    line = [sys.executable, str(ROOT / "tests" / "command_server.py")]
    return subprocess.Popen(line, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
