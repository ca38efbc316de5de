"""A long run stays as it is: what the check reads after each epoch, and what it says of growth."""

import json
import os
import subprocess
import sys

import pytest

from experiments.checks.endurance import COUNTS, SHARES, compared

from ...quick import QUICK


def rows(**last):
    """Fifty epochs alike, but for what the last ten of them say."""
    same = dict.fromkeys((*SHARES, *COUNTS), 100.0)
    return [same] * 40 + [{**same, **last}] * 10


def test_what_stays_as_it_was_is_flat():
    assert all(row["flat"] for row in compared(rows(seconds=119.0)).values())


@pytest.mark.parametrize(
    ("name", "late"),
    [("threads", 102.0), ("files", 102.0), ("open files", 102.0), ("resident MiB", 106.0), ("seconds", 121.0)],
)
def test_what_grows_is_named(name, late):
    assert [name for name, row in compared(rows(**{name: late})).items() if not row["flat"]] == [name]


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_short_run_keeps_its_threads_and_open_files(tmp_path):
    out = tmp_path / "found.json"
    line = ["-m", "experiments.checks.endurance", "--epochs=40", "--manifests=2", f"--out={out}"]
    subprocess.run([sys.executable, *line], check=False, env={**os.environ, **QUICK})  # a busy machine's epochs vary
    found = json.loads(out.read_text())
    assert found["epochs"] == 40  # of fewer, a pool that fills by one thread is above the bound
    assert found["windows"]["threads"]["flat"] and found["windows"]["open files"]["flat"]
    assert 0 < found["manifest"]["seconds"] < 10
