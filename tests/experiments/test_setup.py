"""What programs share."""

import dataclasses
import inspect

import pytest

from experiments import setup
from localgrad.training import Config


@pytest.mark.parametrize("clean", [str, inspect.cleandoc], ids=["as written", "as Python 3.13 keeps it"])
def test_every_flag_is_explained_whatever_python_does_to_docstrings(clean):
    says = setup.attribute_docs(type("Documented", (), {"__doc__": clean(Config.__doc__)}))
    assert {field.name for field in dataclasses.fields(Config)} <= set(says)
    assert says["epochs"] == "passes over the training set."
    assert says["engine"].endswith("`auto` takes the pipeline where there is more than one device.")


def test_after_a_launcher_the_command_is_its_own(monkeypatch):
    monkeypatch.setattr("sys.argv", ["program.py", "--seed=1"])
    monkeypatch.delenv("LOCALGRAD_COMMAND", raising=False)
    assert setup.command_line().endswith(" --seed=1")
    monkeypatch.setenv("LOCALGRAD_COMMAND", "bash launch/processes.sh 2 -m experiments.train --seed=1")
    assert setup.command_line() == "bash launch/processes.sh 2 -m experiments.train --seed=1"
