"""Programs as a user starts them."""

import os
import subprocess
import sys

from ..quick import QUICK


def command(*flags, program="experiments.train"):
    line = [sys.executable, "-m", program, *flags]
    return subprocess.run(line, env={**os.environ, **QUICK}, capture_output=True, text=True, timeout=600)
