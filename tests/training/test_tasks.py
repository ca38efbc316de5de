"""Runs of every kind of task from a configuration: records, summary, best epoch, resuming."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from localgrad.training import Config, format_summary, prepare_all, restore, run

TEXT = ("width=8", "heads=2", "feed_forward=8", "layers=1", "causal=True")
SETS = {
    "sine": Config(dataset="sine", widths=(16, 8), limit=640),
    "diabetes": Config(dataset="diabetes", widths=(8, 8)),
    "topics": Config(dataset="topics", widths=(16, 8), limit=640),
    "bytes": Config(dataset="bytes/8", net="transformer", net_options=TEXT, limit=640),
}
METHODS = ("al", "early_exit", "dgl", "pred", "dfa", "dkp", "bp")
QUICK = [("early_exit", "topics")]


def config_of(method, name, tmp_path, **more):
    own = {"target_width": 8} if method == "al" else {"method_options": ("aux=hidden",)} if method == "dgl" else {}
    return dataclasses.replace(
        SETS[name], method=method, epochs=2, batch_size=32, batches_per_call=5, workdir=str(tmp_path), **own, **more
    )


@pytest.fixture
def corpus(tmp_path):
    """A folder of a text, for `bytes`."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("the cat sat on the mat, and the dog sat on the cat. " * 150)
    return folder


@pytest.mark.parametrize(
    ("method", "name"),
    [pytest.param(m, n, marks=[] if (m, n) in QUICK else pytest.mark.full) for n in SETS for m in METHODS],
)
def test_both_engines_train_every_task(method, name, tmp_path, corpus):
    found = []
    for stages in (1, 2):
        late = {"staleness": "locked"} if method in ("dfa", "dkp") and stages > 1 else {}
        more = {"data_dir": str(corpus)} if name == "bytes" else {}
        config = config_of(method, name, tmp_path / str(stages), stages=stages, micro_batches=1, **late, **more)
        jobs = prepare_all(config)
        found.append(run(config, jobs, log=lambda line: None))
    task = jobs[0].model.task
    (score, about), *_ = task.scores.items()
    key = f"test_{score}"
    assert np.isclose(found[0][key], found[1][key], rtol=1e-3)
    assert all(value is not None and np.isfinite(value) for value in found[0][f"exit_{score}"])
    records = [json.loads(line) for line in (tmp_path / "1" / "metrics.jsonl").read_text().splitlines()]
    validation = [record[score] for record in records if record["split"] == "validation"]
    best = (min if about.best == "min" else max)(validation)
    assert found[0][f"best_validation_{score}"] == best
    assert f"test {score.replace('_', ' ')}" in format_summary(found[0], str(tmp_path), task)


def test_the_best_of_an_error_is_the_least_and_a_run_goes_on(tmp_path):
    config = dataclasses.replace(config_of("early_exit", "sine", tmp_path / "run"), widths=(16,))
    jobs = prepare_all(config)
    summary = run(config, jobs, log=lambda line: None)
    assert restore(jobs[0].specs, config.workdir, best=True).step == 20 * summary["best_epoch"]
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "40")
    again = run(config, prepare_all(config), log=lambda line: None)
    assert again["params_sha256"] == summary["params_sha256"]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["split"]: json.loads(line).get("best") for line in lines} == {
        "train": None, "validation": "min", "test": "min"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "scl"}, "method 'scl' is for classification, not for regression"),
        ({"label_noise": 0.1}, "sine is for regression: noise is put on the labels of classes alone"),
        (
            {"dataset": "bytes/8", "net": "bilstm", "widths": (4,), "net_options": ("embed_width=3",)},
            "block 'bilstm4' of net 'bilstm' looks ahead at it",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(change, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        prepare_all(dataclasses.replace(Config(dataset="sine", batch_size=32, workdir=str(tmp_path)), **change))
