"""Mistakes end in a message: some of those of `experiments.checks.refusals`, drawn from a seed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.checks.mistakes import TRAIN, Case
from experiments.checks.refusals import chosen, judge

from ...quick import QUICK


@pytest.mark.parametrize("seed", [1])
def test_mistakes_on_the_command_line_are_refused(seed, tmp_path):
    flags = ["--cases=25", f"--seed={seed}", "--workers=1", f"--out={tmp_path / 'found.json'}"]
    line = [sys.executable, "-m", "experiments.checks.refusals", *flags, "--kinds", "number", "list", "name", "option"]
    done = subprocess.run(line, env={**os.environ, **QUICK}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["cases"] >= 24 and found["refused"] > 10
    assert found["refused"] + found["accepted"] == found["cases"]


@pytest.mark.full
def test_all_mistakes_are_refused(tmp_path):
    line = [sys.executable, "-m", "experiments.checks.refusals", f"--out={tmp_path / 'found.json'}"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_kind_is_drawn_and_the_same_again():
    cases = chosen(0, 500)
    assert 500 <= len(cases) < 600 and cases == chosen(0, 500) != chosen(1, 500)
    assert {case.kind for case in cases.values()} == {case.kind for case in chosen(0, 10**6).values()}


@pytest.mark.parametrize(
    ("status", "out", "err", "nonsense", "ended"),
    [
        (2, "", "error: no", False, "refused"),
        (1, "", "", False, "traceback"),
        (1, "", "Traceback (most recent call last):\n  x\nKeyError: 'y'", False, "traceback"),
        (-9, "", "", False, "traceback"),
        (0, "a plan", "", False, "accepted"),
        (0, "a plan", "", True, "nonsense"),
        (0, "speed-up nan", "", False, "nonsense"),
    ],
)
def test_what_a_case_ends_as(status, out, err, nonsense, ended):
    assert judge(Case("x", TRAIN, ("--dry_run",), nonsense=nonsense), status, out, err, Path("nowhere"))[0] == ended
