"""The other programs run at their smallest size, and write what they say."""

import json
import os
import shutil

import pytest

from .test_train import command

pytestmark = pytest.mark.slow


STUDIES = {
    "accuracy": ("--only=al,predsim",),
    "al_depth": (),
    "al_profiles": (),
    "convergence": ("--nets=mlp",),
    "distances": (),
    "gradient_flow": (),
    "label_noise": (),
    "scl_settings": ("--nets=mlp",),
    "seconds": ("--methods=bp,al", "--repetitions=2"),
}


@pytest.mark.parametrize("study", STUDIES)
def test_studies(study, tmp_path):
    out = tmp_path / "results"
    places = (f"--workdir={tmp_path / 'runs'}", f"--out={out}")
    done = command("--smoke", "--trials=1", *STUDIES[study], *places, program=f"experiments.{study}")
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.json")
    result = json.loads(path.read_text())
    assert result["command"].startswith(f"python -m experiments.{study} --smoke")
    table = path.with_suffix(".md").read_text()
    assert result["rows"] and all(f"| {row} |" in table for row in result["rows"])
    assert table in done.stdout


def test_a_study_that_was_stopped_goes_on(tmp_path):
    """Rows that are done are not run again; a row that cannot be is named."""
    places = ("--smoke", "--trials=1", f"--workdir={tmp_path / 'runs'}", f"--out={tmp_path}")
    run = lambda *flags: command(*places, *flags, program="experiments.accuracy")
    assert run("--only=bp").returncode == 0
    again = run("--only=bp,early_exit")
    assert again.stdout.count("is a finished run") == 1
    assert set(json.loads((tmp_path / "accuracy_fashion_mlp.json").read_text())["rows"]) == {"bp", "early_exit"}
    refused = run("--only=bpp")
    assert refused.returncode == 2
    assert "the rows are bp, al, scl" in refused.stderr


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
