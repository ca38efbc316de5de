"""Benchmarks that have no file of their own here run at their smallest size, and write what they say."""

import json
import os
import shutil

import pytest

from ..common import command

pytestmark = pytest.mark.slow


pinned = pytest.mark.skipif(
    shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2, reason="pins two processes to two cores"
)


def test_convolution_benchmark(tmp_path):
    done = command("--smoke", "--repetitions=2", f"--out={tmp_path}", program="experiments.benchmarks.convolution")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "bench_convolution.json").read_text())["rows"]
    assert set(rows) == {"output", "images", "kernel"}
    assert all(row["ratio"] > 0 for row in rows.values())


@pytest.mark.full
def test_codes_benchmark(tmp_path):
    done = command("--smoke", "--repetitions=2", f"--out={tmp_path}", program="experiments.benchmarks.codes")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "bench_codes.json").read_text())["rows"]
    for bridge in ("bridge of the profile", "one-layer bridge"):
        learned, frozen = (rows[f"{form}, {bridge}"] for form in ("learned", "first"))
        assert frozen["flops_a_step"] < learned["flops_a_step"]
        assert len(frozen["seconds_a_step"]) == 2 and frozen["to_learned"]["median"] > 0


@pinned
@pytest.mark.parametrize(
    ("net", "more"),
    [
        ("mlp", ("--methods=al", "--notorch")),
        ("mlp", ("--methods=dkp,bp", "--torch")),
        ("bilstm", ("--methods=dkp,bp", "--torch")),
        ("transformer", ("--methods=dkp,bp", "--torch")),
    ],
)
@pytest.mark.full
def test_pipeline_benchmark(net, more, tmp_path):
    if "--torch" in more:
        pytest.importorskip("torch", reason="of the dev extra")
    size = ("--smoke", f"--nets={net}", "--batches=2", "--repetitions=2")
    done = command(*size, *more, f"--out={tmp_path}", program="experiments.benchmarks.pipeline")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "bench_pipeline.json").read_text())
    rows = result["networks"][net]["rows"]
    expected = {"al"} if "--notorch" in more else {"dkp", "bp, M = 2", "torch gpipe, M = 2", "torch 1f1b, M = 2"}
    assert set(rows) == expected
    assert all(row["speed_up"]["min"] > 0 for row in rows.values())
    assert all(1 < row["ledger"] <= 2 for row in rows.values() if "ledger" in row)
    assert all(f"| {net} | {row} |" in done.stdout for row in rows)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--nets=mlpp",), "there are mlp, long, cnn"),
        (("--methods=magic",), "there are al, scl"),
        (("--nets=heavy", "--methods=al"), "heavy has scl, dgl and bp"),
    ],
)
@pytest.mark.full
def test_pipeline_benchmark_refuses(flags, says, tmp_path):
    done = command(*flags, f"--out={tmp_path}", program="experiments.benchmarks.pipeline")
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.full
def test_trials_benchmark(tmp_path):
    size = ("--smoke", "--nets=two_conv", "--methods=al", "--trials=2", "--repetitions=2")
    done = command(*size, f"--out={tmp_path}", program="experiments.benchmarks.trials")
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "bench_trials.json").read_text())["rows"]["two_conv al"]
    assert {name: len(values) for name, values in row["seconds"].items()} == {"one": 2, "loop": 2, "vmap": 2}
    assert row["loop_to_vmap"]["min"] > 0 and "| two_conv al |" in done.stdout


@pinned
@pytest.mark.full
def test_depth_benchmark(tmp_path):
    done = command("--smoke", "--repetitions=2", f"--out={tmp_path}", program="experiments.benchmarks.depth")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "bench_depth.json").read_text())
    assert result["ticks_counted"] == {"1": 4, "2": 5, "4": 7}  # n + l - 1
    assert set(result["modelled_s"]) == {"2", "4"}
    assert (tmp_path / "bench_depth.png").read_bytes().startswith(b"\x89PNG")


def test_benchmark_of_engines(tmp_path):
    size = ("--blocks=3", "--stages=3", "--width=16", "--nets=mlp")
    done = command(*size, f"--out={tmp_path}", program="experiments.benchmarks.engines")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "bench_engines.json").read_text())
    one, many = result["rows"]["mlp, spmd"], result["rows"]["mlp, mpmd"]
    assert one["programs"] == 1 and 0 < many["instructions"] < one["instructions"]
    assert many["held_bytes"] == many["stage_bytes"] == one["stage_bytes"]
    assert "xla_dump_to" not in result.get("XLA_FLAGS", "")
