"""`localgrad evaluate`: what it refuses before it reads a network."""

from types import SimpleNamespace

import pytest

from localgrad.cli import evaluate
from localgrad.training import Config
from localgrad.training.workdir import write_json


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ("diabetes", "error: --anytime leaves at the first exit that is sure of a class, and diabetes is for "),
        ("digits", "has no checkpoint yet"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_predicted(dataset, says, tmp_path, monkeypatch, capsys):
    given = {"anytime": True, "workdir": [str(tmp_path)], "thresholds": ["0.5"], "out": None, "trial": None}
    monkeypatch.setattr(evaluate, "FLAGS", SimpleNamespace(**given))
    monkeypatch.setattr(evaluate.shell, "own_devices", lambda count, x64: None)
    config = Config(method="early_exit", net="mlp", widths=(8,), dataset=dataset, workdir=str(tmp_path))
    write_json(tmp_path / "config.json", config.to_json())
    assert evaluate.main(["evaluate"]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "trial", "says"),
    [
        ({"trials": 2}, None, "holds 2 trials: choose one, --trial=0 to --trial=1"),
        ({"trials": 2}, 2, "holds 2 trials: choose one, --trial=0 to --trial=1"),
        ({"trials": 2, "trials_by": "loop"}, 0, "give the workdir of one of them, such as runs/latest/trial0"),
        ({}, 0, "holds one network and no trials: leave out --trial=0"),
    ],
)
def test_one_of_several_trials_is_chosen(fields, trial, says):
    with pytest.raises(ValueError, match=says):
        evaluate.check_trial(Config(**fields), trial)
    evaluate.check_trial(Config(trials=2), 1)
    evaluate.check_trial(Config(), None)


def test_files_are_called_as_they_were_asked_for(tmp_path, monkeypatch):
    assert [str(evaluate.place_of(str(tmp_path / name), "run")) for name in ("a.al", "a.bp", "a.json")] == [
        str(tmp_path / name) for name in ("a.al", "a.bp", "a")
    ]
    assert str(evaluate.place_of(None, "run")) == "run/evaluation"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(evaluate.place_of("~/exits", "run")) == str(tmp_path / "exits")
    with pytest.raises(ValueError, match=r"cannot write .*: there is no folder .*nowhere; make it"):
        evaluate.place_of(str(tmp_path / "nowhere" / "exits"), "run")


def test_what_leaving_early_saves_is_of_the_last_exit():
    """Whatever thresholds are looked at."""
    rows = {"exits": [{"flops": 50.0}, {"flops": 100.0}]}
    for thresholds in ((82.0,), (82.0, 100.0)):
        assert evaluate.most_saved({**rows, "anytime": [{"flops": flops} for flops in thresholds]}) == pytest.approx(
            0.18
        )
