"""The other programs run at their smallest size, and write what they say."""

import json
import os
import shutil

import pytest

from .test_train import command

pytestmark = pytest.mark.slow


def test_profiles_side_by_side(tmp_path):
    out = tmp_path / "profiles.json"
    done = command("--smoke", "--seeds=1", f"--out={out}", program="experiments.al_profiles")
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert [row["profile"] for row in result["rows"]] == ["neco", "neco, one-layer bridge", "iclr", "iclr_head"]
    assert result["best_on_validation"] in done.stdout


@pytest.mark.skipif(
    shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2, reason="pins two processes to two cores"
)
def test_pipeline_benchmark(tmp_path):
    out = tmp_path / "bench.json"
    size = ("--depth=2", "--width=16", "--batch_size=8", "--batches=2", "--repetitions=2")
    done = command(*size, f"--out={out}", program="experiments.bench_pipeline")
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert len(result["repetitions"]) == 2
    assert 1 < result["predicted_speed_up"] <= 2
