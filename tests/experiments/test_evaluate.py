"""A network is trained, grown and evaluated."""

import json

import pytest

from .common import command


@pytest.mark.slow
def test_a_network_is_trained_grown_and_evaluated(tmp_path):
    short, long = tmp_path / "short", tmp_path / "long"
    base = ("--method=early_exit", "--net=mlp", "--epochs=2", "--batch_size=32", "--learning_rate=0.01")
    assert command(*base, "--widths=24,16", f"--workdir={short}").returncode == 0
    grown = command(*base, "--widths=24,16,12", f"--grow_from={short}", "--frozen=2", f"--workdir={long}")
    assert grown.returncode == 0, grown.stderr
    before, after = (json.loads((folder / "summary.json").read_text()) for folder in (short, long))
    assert after["exit_accuracy"][0] == before["exit_accuracy"][0] > 80  # frozen, its classifier too
    assert len(after["exit_accuracy"]) == 3
    done = command("--alignment", "--anytime", "--probes", f"--workdir={long}", program="experiments.evaluate")
    assert done.returncode == 0, done.stderr
    (evaluated,) = json.loads((long / "evaluation.json").read_text())["runs"]
    exits, curve = evaluated["exits"], evaluated["anytime"]
    assert [round(row["accuracy"], 6) for row in exits] == [round(value, 6) for value in after["exit_accuracy"]]
    assert exits[0]["flops"] < exits[1]["flops"] < exits[2]["flops"]
    assert all(-1 <= value <= 1 for value in evaluated["cosine"])
    assert list(evaluated["probes"]) == ["f 1", "f 2", "f 3", "scores"] and min(evaluated["probes"].values()) > 50
    assert [row["flops"] for row in curve] == sorted(row["flops"] for row in curve)
    assert curve[-1]["accuracy"] == exits[-1]["accuracy"]
    assert (long / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    refused = command(f"--workdir={tmp_path}", program="experiments.evaluate")
    assert refused.returncode == 2
    assert "is not the workdir of a run" in refused.stderr
