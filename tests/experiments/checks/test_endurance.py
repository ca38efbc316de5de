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
    assert all(row["flat"] for row in compared(rows(seconds=119.0, threads=104.0)).values())


def test_one_more_each_epoch_is_told_of_in_twenty_epochs():
    same = dict.fromkeys((*SHARES, *COUNTS), 100.0)
    assert not compared([{**same, "threads": 100.0 + epoch} for epoch in range(20)])["threads"]["flat"]


@pytest.mark.parametrize(
    ("name", "late"),
    [("threads", 105.0), ("files", 105.0), ("open files", 105.0), ("resident MiB", 106.0), ("seconds", 121.0)],
)
def test_what_grows_is_named(name, late):
    assert [name for name, row in compared(rows(**{name: late})).items() if not row["flat"]] == [name]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_short_run_keeps_its_threads_and_open_files(tmp_path):
    out = tmp_path / "found.json"
    line = ["-m", "experiments.checks.endurance", "--epochs=20", "--manifests=2", f"--out={out}"]
    subprocess.run([sys.executable, *line], check=False, env={**os.environ, **QUICK})  # a busy machine's epochs vary
    found = json.loads(out.read_text())
    assert found["epochs"] == 20
    assert found["windows"]["threads"]["flat"] and found["windows"]["open files"]["flat"]
    assert 0 < found["manifest"]["seconds"] < 10
