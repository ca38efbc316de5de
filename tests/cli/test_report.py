"""`localgrad report`: what it refuses, in one line each."""

from ..commands import command


def test_what_is_no_run_gets_one_line(tmp_path):
    done = command("report", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: nowhere is not the workdir of a run: it has no config.json.\n"
    assert not list(tmp_path.iterdir())
