"""The command `localgrad`."""

import pytest

from localgrad.cli import main

from ..commands import command


def test_help_lists_the_commands(capsys):
    assert main.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in main.COMMANDS)


@pytest.mark.parametrize(
    ("words", "says"), [([], "no command"), (["learn"], "unknown command 'learn'; there are train")]
)
def test_other_words_are_refused(words, says, capsys):
    assert main.main(words) == 2
    assert says in capsys.readouterr().err


def test_a_plan_from_the_command_line(tmp_path):
    done = command("train", "--method=early_exit", "--widths=8,8", "--dry_run", f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "affiliated" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["train", "--methud=al"],
            "error: Unknown command line flag 'methud'. Did you mean: method",
        ),
        (["evaluate"], "--workdir"),
        (["predict", "--workdir=nowhere", "picture.png"], "error: nowhere is not the workdir of a run"),
        (["compare", "--methods=al,bp", "--coordinator=auto"], "error: --coordinator: this command is one process."),
        (["train", "--report", "--coordinator=auto"], "error: --report is of one process: leave it out"),
        (["data", "prepare", "magic/a/b/c"], "error: dataset 'magic/a/b/c': expected `name`"),
    ],
)
def test_what_is_refused_gets_one_line_and_a_status(words, says):
    done = command(*words)
    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr
