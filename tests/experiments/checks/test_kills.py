"""A kill, and two runs at once, as `experiments.checks.kills` makes them."""

import json

import pytest

from ..common import command


@pytest.mark.slow
def test_a_kill_in_a_checkpoint_write(tmp_path):
    out = tmp_path / "kills.json"
    done = command("--only=al", "--trials=1", "--first=1", f"--out={out}", program="experiments.checks.kills")
    assert done.returncode == 0, done.stdout + done.stderr
    (trial,) = json.loads(out.read_text())["trials"]
    assert trial["meant_for"] == "write" and trial["was_running"]
    assert trial["same_digest"] and trial["same_records"] and trial["same_summary"]


@pytest.mark.slow
@pytest.mark.full  # tests/training/test_lock.py has what it rests on
def test_of_two_runs_started_at_once_one_is_refused(tmp_path):
    out = tmp_path / "kills.json"
    done = command("--only=at once", "--trials=1", f"--out={out}", program="experiments.checks.kills")
    assert done.returncode == 0, done.stdout + done.stderr
    (trial,) = json.loads(out.read_text())["trials"]
    assert sorted(trial["statuses"]) == [0, 2] and trial["refused_by_name"] and trial["records_whole"]
