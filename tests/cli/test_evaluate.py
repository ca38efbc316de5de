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
    given = {"anytime": True, "workdir": [str(tmp_path)], "thresholds": ["0.5"], "out": None}
    monkeypatch.setattr(evaluate, "FLAGS", SimpleNamespace(**given))
    monkeypatch.setattr(evaluate.shell, "own_devices", lambda count, x64: None)
    config = Config(method="early_exit", net="mlp", widths=(8,), dataset=dataset, workdir=str(tmp_path))
    write_json(tmp_path / "config.json", config.to_json())
    assert evaluate.main(["evaluate"]) == 2
    assert says in capsys.readouterr().err
