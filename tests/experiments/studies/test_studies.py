"""The other programs run at their smallest size, and write what they say."""

import json
import os
import shutil

import pytest

from ..data.files import write_snippets
from .test_train import command

pytestmark = pytest.mark.slow


STUDIES = {
    "accuracy": ("--rows=al,predsim",),
    "al_depth": (),
    "al_profiles": (),
    "al_targets": ("--epochs=1", "--profiles=neco"),
    "convergence": ("--nets=mlp",),
    "distances": (),
    "dkp_figure2": (),
    "dkp_table1": ("--trials=2", "--trials_by=vmap"),
    "feedback_fan": (),
    "gradient_flow": (),
    "label_noise": (),
    "scl_settings": ("--nets=mlp",),
    "epoch_seconds": ("--methods=bp,al", "--repetitions=2"),
    "staleness": ("--methods=dfa",),
    "text_ablation": (),
    "text_accuracy": (),
    "text_convergence": (),
}


LONGER = set(STUDIES) - {"accuracy"}


@pytest.mark.parametrize(
    "study", [pytest.param(name, marks=pytest.mark.full if name in LONGER else ()) for name in STUDIES]
)
def test_studies(study, tmp_path):
    out = tmp_path / "results"
    places = (f"--workdir={tmp_path / 'runs'}", f"--out={out}")
    if study.startswith("text"):
        write_snippets(tmp_path)
        places += (f"--data_dir={tmp_path}",)
    done = command("--smoke", "--trials=1", *STUDIES[study], *places, program=f"experiments.studies.{study}")
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.json")
    result = json.loads(path.read_text())
    assert result["command"].startswith(f"python -m experiments.studies.{study} --smoke")
    table = path.with_suffix(".md").read_text()
    rows = result.get("rows", result.get("traces"))
    assert rows and all(f"| {row} |" in table for row in rows)
    assert table in done.stdout


@pytest.mark.full
def test_the_table_of_pairs_is_made_in_parts(tmp_path):
    check = lambda net: command(
        f"--nets={net}", "--methods=al,bp_fc", f"--out={tmp_path}", program="experiments.checks.pairs"
    )
    for net in ("cnn", "mlp"):
        done = check(net)
        assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "check_pairs.json").read_text())
    assert list(result["rows"]) == ["mlp", "cnn"] and set(result["by"]) == {"mlp", "cnn"}
    assert result["rows"]["cnn"]["al"] <= 1e-12 and "freezes convolutions" in result["rows"]["mlp"]["bp_fc"]
    assert "| mlp |" in done.stdout and "| cnn |" in done.stdout


def test_convolution_benchmark(tmp_path):
    done = command("--smoke", "--repetitions=2", f"--out={tmp_path}", program="experiments.benchmarks.convolution")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "bench_convolution.json").read_text())["rows"]
    assert set(rows) == {"output", "images", "kernel"}
    assert all(row["ratio"] > 0 for row in rows.values())


@pytest.mark.full
def test_a_study_that_was_stopped_goes_on(tmp_path):
    """Rows that are done are not run again; a row that cannot be is named."""
    places = ("--smoke", "--trials=1", f"--workdir={tmp_path / 'runs'}", f"--out={tmp_path}")
    run = lambda *flags: command(*places, *flags, program="experiments.studies.accuracy")
    assert run("--rows=bp").returncode == 0
    again = run("--rows=bp,early_exit")
    assert again.stdout.count("is a finished run") == 1
    assert set(json.loads((tmp_path / "accuracy_fashion_mlp.json").read_text())["rows"]) == {"bp", "early_exit"}
    refused = run("--rows=bpp")
    assert refused.returncode == 2
    assert "--rows=bpp: no row has these words in its name; the rows are bp, al, scl" in refused.stderr


def test_a_network_is_trained_grown_and_evaluated(tmp_path):
    short, long = tmp_path / "short", tmp_path / "long"
    base = ("--method=early_exit", "--net=mlp", "--epochs=2", "--batch_size=32", "--learning_rate=0.01")
    assert command(*base, "--widths=24,16", f"--workdir={short}").returncode == 0
    grown = command(*base, "--widths=24,16,12", f"--grow_from={short}", "--frozen=2", f"--workdir={long}")
    assert grown.returncode == 0, grown.stderr
    before, after = (json.loads((folder / "summary.json").read_text()) for folder in (short, long))
    assert after["exit_accuracy"][0] == before["exit_accuracy"][0] > 80  # frozen, its classifier too
    assert len(after["exit_accuracy"]) == 3
    done = command("--alignment", "--anytime", f"--workdir={long}", program="experiments.evaluate")
    assert done.returncode == 0, done.stderr
    (evaluated,) = json.loads((long / "evaluation.json").read_text())["runs"]
    exits, curve = evaluated["exits"], evaluated["anytime"]
    assert [round(row["accuracy"], 6) for row in exits] == [round(value, 6) for value in after["exit_accuracy"]]
    assert exits[0]["flops"] < exits[1]["flops"] < exits[2]["flops"]
    assert all(-1 <= value <= 1 for value in evaluated["cosine"])
    assert [row["flops"] for row in curve] == sorted(row["flops"] for row in curve)
    assert curve[-1]["accuracy"] == exits[-1]["accuracy"]
    assert (long / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    refused = command(f"--workdir={tmp_path}", program="experiments.evaluate")
    assert refused.returncode == 2
    assert "is not the workdir of a run" in refused.stderr


pinned = pytest.mark.skipif(
    shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2, reason="pins two processes to two cores"
)


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
