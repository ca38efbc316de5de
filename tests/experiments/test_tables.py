"""Where the studies write: made before the work, or refused before it."""

import pytest

from experiments import tables


@pytest.mark.parametrize("folder", [True, False])
def test_a_place_that_is_not_there_is_made(tmp_path, folder):
    path = tables.place(str(tmp_path / "new" / "results"), folder=folder)
    assert path.parent.is_dir() and path.is_dir() == folder


@pytest.mark.parametrize(
    ("name", "folder"), [("file", True), ("file/inner", True), ("file/inner", False), (".", False)]
)
def test_a_place_that_cannot_be_is_refused_in_one_line(tmp_path, capsys, name, folder):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SystemExit) as stop:
        tables.place(str(tmp_path / name), folder=folder)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith(f"error: --out={tmp_path / name}: ") and said.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"
