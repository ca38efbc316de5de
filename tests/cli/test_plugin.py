"""A method, a network, a schedule and a data set with a task of its own, all a stranger's, from the command line."""

import json
import shutil

import numpy as np
import pytest

import localgrad as lg
from localgrad import registry
from localgrad.blocks import NETWORKS
from localgrad.data import DATASETS
from localgrad.methods import METHODS

from ..commands import command

PLUGIN = """
import jax.numpy as jnp
import numpy as np

import localgrad as lg

# Two signs at once, which are right together or not at all.
both = lg.tasks.Score(lambda scores, y: jnp.all((scores > 0) == (y > 0), axis=-1), percent=True)
signs = lg.tasks.multilabel(2)._replace(name="signs", scores={"both": both})


def classifiers(network, x_spec, classes, *, tx, pool: int | None = None):
    return lg.early_exit(network, x_spec, classes, tx=tx, pool=pool)


def funnel(widths=(12, 8)):
    return lg.mlp(widths)


def corners(name, split, data_dir):
    rng = np.random.default_rng(["train", "validation", "test"].index(split))
    inputs = rng.normal(size=(320 if split == "train" else 60, 2)).astype(np.float32)
    return lg.data.Dataset(name, inputs, (inputs > 0).astype(np.int32), task=signs)


def half(signal, stages):
    known = {"top": lg.pipeline.schedules.broadcast, "next": lg.pipeline.schedules.relay}[signal](stages)
    return known._replace(period=2)  # a batch enters on every other tick


lg.register_method("classifiers", classifiers)
lg.register_schedule("half", half)
lg.register_network("funnel", funnel)
lg.register_dataset("corners", corners)
"""


@pytest.mark.slow
def test_a_plugin_trains_goes_on_and_is_evaluated(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    flags = ("--method=classifiers", "--net=funnel", "--dataset=corners", "--batch_size=32", "--learning_rate=0.02")
    done = command("train", "--plugin=mine", *flags, "--epochs=3", "--workdir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["method"], summary["net"], summary["dataset"]) == ("classifiers", "funnel", "corners")
    assert summary["test_both"] > 70 and summary["exit_both"][-1] == summary["test_both"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["plugin"] == ["mine"]
    # the run brings its plugin: neither the same command without it nor `evaluate` needs to name it
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "30")
    again = command("train", *flags, "--epochs=3", "--workdir=run", cwd=tmp_path)
    assert again.returncode == 0 and "resuming run at batch 20 of 30" in again.stdout, again.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["params_sha256"] == summary["params_sha256"]
    seen = command("evaluate", "--workdir=run", cwd=tmp_path)
    assert seen.returncode == 0, seen.stderr
    (row,) = json.loads((tmp_path / "run" / "evaluation.json").read_text())["runs"]
    assert row["method"] == "classifiers" and row["exits"][-1]["both"] == summary["test_both"]
    # under a schedule of its own the pipeline learns what the sequential engine does with its delays
    late = ("--method=dfa", "--staleness=half", "--stages=3", "--batch_size=32", "--epochs=2")
    found = {}
    for engine in ("spmd", "sequential"):
        words = ("--plugin=mine", "--net=funnel", "--dataset=corners", *late, f"--engine={engine}")
        done = command("train", *words, f"--workdir={engine}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found[engine] = json.loads((tmp_path / engine / "summary.json").read_text())
    np.testing.assert_allclose(found["spmd"]["block_loss"], found["sequential"]["block_loss"], rtol=1e-4)
    # elsewhere nobody knows the names
    refused = command("train", *flags, "--workdir=other", cwd=tmp_path)
    assert refused.returncode == 2 and "unknown method 'classifiers'; there are al," in refused.stderr


def test_a_plugin_that_does_not_import_is_refused(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    for name, says in (("absent", "No module named 'absent'"), ("broken", "No module named 'nothing_of_this_name'")):
        done = command("train", f"--plugin={name}", "--dry_run", cwd=tmp_path)
        assert done.returncode == 2 and f"--plugin={name} cannot be imported" in done.stderr, done.stderr
        assert says in done.stderr and "Traceback" not in done.stderr


def test_entry_points_are_loaded(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    package = tmp_path / "mine-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[localgrad]\nmine = mine\n")
    done = command("train", "--net=funnel", "--method=classifiers", "--dataset=corners", "--dry_run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "affiliated" in done.stdout


def test_names_are_taken_once(monkeypatch):
    for table in (METHODS, NETWORKS, DATASETS):
        monkeypatch.delitem(table, "mine", raising=False)
    with pytest.raises(ValueError, match="there is a method 'al' already"):
        registry.add("method", METHODS, "al", METHODS["bp"])
    registry.add("method", METHODS, "al", METHODS["al"])  # the same function, as when its module is imported again
    with pytest.raises(ValueError, match="is called by a word of letters, digits and _; got 'my method'"):
        registry.add("method", METHODS, "my method", METHODS["bp"])
    with pytest.raises(ValueError, match="give one of arrays= and texts="):
        lg.data.register_dataset("mine")
    assert np.array_equal(
        lg.data.get("digits", "test").labels, DATASETS["digits"].arrays("digits", "test", None).labels
    )
