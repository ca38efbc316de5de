"""The benchmark of training steps runs at its smallest size, and writes what it says."""

import importlib.util
import json

import pytest

from ..common import command


@pytest.mark.full
def test_bench_step_smoke(tmp_path):
    rivals = {"jax_scan", "jax_calls", "torch", "torch_fused"}
    size = ("--smoke", "--repetitions=2", "--methods=bp,al", f"--rivals={','.join(sorted(rivals))}")
    done = command(*size, "--peak_tflops=0.1", f"--out={tmp_path}", program="experiments.benchmarks.step")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "bench_step.json").read_text())
    table = (tmp_path / "bench_step.md").read_text()
    assert set(result["rows"]) == {"mlp bp", "mlp al", "cnn bp", "cnn al"}
    for name, row in result["rows"].items():
        assert set(row["to_localgrad"]) | set(row["failed"]) == rivals
        assert set(row["failed"]) == (set() if importlib.util.find_spec("torch") else {"torch", "torch_fused"})
        assert row["share_of_peak"] == pytest.approx(row["flops_a_step"] / row["median_seconds"] / 1e11)
        assert f"| {name} |" in table
    assert result["rows"]["mlp bp"]["to_bp"]["median"] == 1
    assert {name: tick["uniform"] for name, tick in result["tick"].items()} == {
        "choice": False, "no choice": True, "sequential": True,
    }  # fmt: skip
    assert table in done.stdout
    assert (tmp_path / "bench_step.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.full
def test_bench_step_of_a_compiled_step_and_of_a_network_alone(tmp_path):
    pytest.importorskip("torch", reason="of the dev extra")
    size = ("--smoke", "--repetitions=2", "--nets=mlp,two_conv", "--methods=bp", "--rivals=torch_compiled", "--notick")
    done = command(*size, f"--out={tmp_path}", program="experiments.benchmarks.step")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "bench_step.json").read_text())["rows"]
    assert set(rows["mlp bp"]["to_localgrad"]) | set(rows["mlp bp"]["failed"]) == {"torch_compiled"}
    assert rows["two_conv bp"]["to_localgrad"] == {} and rows["two_conv bp"]["median_seconds"] > 0
    refused = command("--rivals=tensorflow", program="experiments.benchmarks.step")
    assert refused.returncode == 2
    assert "there are jax_scan, jax_calls, torch, torch_fused, torch_compiled" in refused.stderr
