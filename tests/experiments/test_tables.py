"""Where the studies write: made before the work, or refused before it."""

from pathlib import Path

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


PROGRAMS = [
    path
    for room in ("benchmarks", "checks", "studies")
    for path in sorted(Path(tables.__file__).with_name(room).glob("*.py"))
    if "def main(" in path.read_text() and ("FLAGS.out" in path.read_text() or "tables.write(" in path.read_text())
]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_program_looks_at_its_place_before_the_work(path):
    """At the beginning of `main`, or by `run_rows`, which does; not in `write`, which comes at the end."""
    text = path.read_text()
    main = text[text.index("def main(") :]
    assert "run_rows(" in main or "tables.place(FLAGS.out" in main
