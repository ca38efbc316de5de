"""What programs share with the shell that started them."""

import sys
from types import SimpleNamespace

import pytest

from localgrad.cli import shell


@pytest.mark.parametrize(
    ("module", "argv", "expected"),
    [
        (None, ["program.py", "--seed=1"], "python program.py --seed=1"),
        ("experiments.train", ["/a/train.py", "--seed=1"], "python -m experiments.train --seed=1"),
        ("localgrad.__main__", ["/a/__main__.py", "train", "--seed=1"], "python -m localgrad train --seed=1"),
        (None, ["/usr/bin/localgrad", "train", "--workdir=a b"], "localgrad train '--workdir=a b'"),
    ],
)
def test_the_command_that_started_a_program(module, argv, expected, monkeypatch):
    spec = None if module is None else SimpleNamespace(name=module)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.delenv("LOCALGRAD_COMMAND", raising=False)
    assert shell.command_line() == expected


def test_after_a_launcher_the_command_is_its_own(monkeypatch):
    monkeypatch.setenv("LOCALGRAD_COMMAND", "bash launch/processes.sh 2 -m experiments.train --seed=1")
    assert shell.command_line() == "bash launch/processes.sh 2 -m experiments.train --seed=1"
