"""`localgrad report`: what it refuses, in one line each."""

import pytest

from localgrad.cli.report import checked_out

from .test_main import command


def test_what_is_no_run_gets_one_line(tmp_path):
    done = command("report", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: nowhere is not the workdir of a run: it has no config.json.\n"
    assert not list(tmp_path.iterdir())


def test_where_no_file_can_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no folder .*absent; make it, or give another file"):
        checked_out(f"{tmp_path}/absent/report.html")
    with pytest.raises(ValueError, match="is a folder; give a file, such as"):
        checked_out(str(tmp_path))
    assert checked_out(f"{tmp_path}/report.html") == tmp_path / "report.html"
