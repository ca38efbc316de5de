"""What a page says of a run is what the run wrote, and what cannot be read is told of in a sentence."""

import shutil

import numpy as np
import pytest

import localgrad as lg
from localgrad.report.page import render
from localgrad.results import gather, names_of
from localgrad.results.gather import epochs_of
from localgrad.training import Config, prepare_all
from localgrad.training import run as train
from localgrad.training.own_config import OwnConfig
from localgrad.training.workdir import write_json, write_records

from ..training import own

TRIALS = 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of two trials, its summary, and the folder of the first trial."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    config = Config(
        method="early_exit", net="mlp", widths=(8, 8), limit=128, batch_size=32, epochs=2, learning_rate=0.01,
        trials=TRIALS, trials_by="loop", workdir=str(folder),
    )  # fmt: skip
    summary = train(config, prepare_all(config), lambda line: None)
    return folder, summary


@pytest.fixture(scope="module")
def found(trained):
    return gather(str(trained[0]), "two", alignment=True)


def test_trials_are_the_last_axis(trained, found):
    _, summary = trained
    assert found.epochs.epoch.tolist() == [1, 2]
    assert found.epochs.loss.shape == found.epochs.scores["test"].shape == (2, 2, TRIALS)
    for i, accuracy in enumerate(summary["exit_accuracy"]):
        assert found.epochs.scores["test"][-1, i].tolist() == accuracy["values"]
    for i, loss in enumerate(summary["block_loss"]):
        assert found.epochs.loss[-1, i].tolist() == loss["values"]
    assert found.summary == summary and found.versions == summary["versions"]


def test_the_network_is_that_of_the_checkpoint(trained, found):
    first = [accuracy["values"][0] for accuracy in trained[1]["exit_accuracy"]]
    np.testing.assert_allclose([row["accuracy"] for row in found.measured["exits"]], first)
    confusion = found.seen.confusion
    np.testing.assert_allclose(100 * np.trace(confusion) / confusion.sum(), first[-1])
    assert all(example.label != example.predicted and example.picture for example in found.seen.worst)
    confidences = [example.confidence for example in found.seen.worst]
    assert confidences == sorted(confidences, reverse=True) and len(confidences) == 12
    assert len(found.measured["cosine"]) == 2 and len(found.measured["anytime"]) == 10
    assert (found.ledger.effective, found.ledger.affiliated) == tuple(trained[1]["params"].values())
    assert found.notes == ("What is evaluated on the test split is the network of the first trial.",)


def test_one_trial_on_stages_that_this_machine_need_not_have(trained):
    found = gather(f"{trained[0]}/trial1", "one", evaluate=False)
    assert found.epochs.loss.shape == (2, 2, 1) and found.measured == {} and found.seen is None
    assert found.plan.schedule.name == "local" and found.plan.cuts == (0, 2)


def test_what_is_damaged_is_told_of(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained[0] / "trial0", folder)
    (folder / "summary.json").write_text("{")
    (folder / "config.json").write_text("{")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join([lines[0], "torn", *lines[1:], lines[3][:30]]))
    found = gather(str(folder), "run", evaluate=False)  # a checkpoint has the configuration as well
    assert found.epochs.epoch.tolist() == [1, 2] and "not finished" in found.notes[0]
    (folder / "metrics.jsonl").unlink()
    again = gather(str(folder), "run", evaluate=False)
    np.testing.assert_array_equal(again.epochs.loss, found.epochs.loss)
    for path in (folder / "checkpoints").glob("*/blocks"):
        shutil.rmtree(path)
    said = []
    with pytest.raises(ValueError, match="has no records of an epoch"):
        gather(str(folder), "run")
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    found = gather(str(folder), "run", log=said.append)
    assert found.ledger is not None and found.seen is None
    assert "has no checkpoint that can be used" in found.notes[1] and "cannot be used" in said[0]
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(ValueError, match="is damaged, and no checkpoint says"):
        gather(str(folder), "run")


def test_data_that_are_gone_leave_the_curves(trained, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    text = (trained[0] / "trial0" / "config.json").read_text()
    (folder / "config.json").write_text(
        text.replace('"dataset": "digits"', '"dataset": "mnist"').replace('"data_dir": null', '"data_dir": "/nowhere"')
    )
    shutil.copy(trained[0] / "trial0" / "metrics.jsonl", folder)
    found = gather(str(folder), "run")
    assert found.epochs.loss.shape == (2, 2, 1) and found.ledger is None
    assert "nothing is predicted, without ledger and timeline" in found.notes[1]
    shutil.copy(trained[0] / "trial0" / "plan.json", folder)
    found = gather(str(folder), "run")
    assert found.ledger is not None and found.plan.cuts == (0, 2) and found.measured == {}


def test_records_that_do_not_fit_are_left_out():
    train = lambda epoch, loss: {"split": "train", "step": epoch, "epoch": epoch, "block_loss": loss}
    assert epochs_of([[{"split": "test", "step": 1, "epoch": 1, "exit_accuracy": [1.0]}]]) is None
    found = epochs_of([[train(1, [1.0, 2.0]), train(2, [1.0]), train(3, "none"), train(4, [[1.0], [2.0, 3.0]])]])
    assert found.loss.tolist() == [[[1.0], [2.0]]]
    batched = epochs_of([[train(1, [[1.0, 2.0], [3.0, 4.0]]) | {"more": [None, [5.0, 6.0]]}]])
    assert batched.loss.tolist() == [[[1.0, 2.0], [3.0, 4.0]]]
    np.testing.assert_array_equal(batched.more["more"], [[[np.nan, np.nan], [5.0, 6.0]]])


def test_names_tell_runs_apart():
    assert names_of(["a/x", "b/x", "c/y"]) == ["a/x", "b/x", "c/y"]
    with pytest.raises(ValueError, match="a run is shown once"):
        names_of(["a/x", "a/x/"])


def test_a_run_of_a_given_model_has_its_ledger_and_its_timeline(tmp_path):
    workdir, model, said = tmp_path / "run", own.model(), []
    go_on = lambda **more: lg.fit(model, own.pictures(48), 0.25, epochs=1, workdir=workdir, log=said.append, **more)
    done = go_on(stages=2)
    plan = lg.spmd(model, stages=2).plan
    found = gather(str(workdir), "own")
    assert found.plan == plan and found.exits == (1, 2)
    assert found.ledger == lg.ledger(model, done.states, plan, batches=2)
    page = render([found], defaults={})
    assert "Timeline of the pipeline" in page and "Parameters by block" in page and "Top" in page
    (workdir / "plan.json").write_text("{")
    found = gather(str(workdir), "own")
    assert found.ledger is None and "without ledger and timeline" in found.notes[-1]
    said.clear()
    go_on(stages=2)
    assert "plan.json is not as the run left it and is made anew" in said[0]
    assert gather(str(workdir), "own").plan == plan
    go_on()  # on one stage
    assert len(said) == 3 and "is a finished run" in said[2]


def test_a_run_of_a_given_model_has_its_records(tmp_path):
    config = OwnConfig(model="0123", method="al", net="conv-dense", dataset="arrays", epochs=1, workdir=str(tmp_path))
    write_json(tmp_path / "config.json", config.to_json())
    train = {"split": "train", "step": 9, "epoch": 1, "block_loss": [0.5, 0.25], "examples_per_sec": 100.0}
    validation = {"split": "validation", "step": 9, "epoch": 1, "mean_squared_error": 3.0, "best": "min"}
    write_records(tmp_path / "metrics.jsonl", [train, {**validation, "exit_mean_squared_error": [4.0, 3.0]}])
    found = gather(str(tmp_path), "own")
    assert found.epochs.split == "validation" and found.epochs.shown.tolist() == [[[4.0], [3.0]]]
    assert found.epochs.words == "mean squared error" and found.ledger is None
    assert "was given to localgrad.fit" in found.notes[-1] and found.command.startswith("localgrad.fit(model, train")
    page = render([found], defaults={})
    assert "Validation mean squared error by exit, last epoch" in page and "conv-dense" in page
    assert "<dt>validation mean squared error, last epoch</dt><dd>3</dd>" in page
