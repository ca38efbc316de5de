"""The notebook runs from top to bottom."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs():
    nbformat = pytest.importorskip("nbformat", reason="of the dev extra")
    nbclient = pytest.importorskip("nbclient", reason="of the dev extra")
    notebook = nbformat.read(ROOT / "launch" / "colab.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "launch")}}).execute()
    printed = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("params_sha256" in text for text in printed)
    assert any(text.startswith("accuracy 0.9") for text in printed)


def first_cell(folder):
    cells = json.loads((ROOT / "launch" / "colab.ipynb").read_text())["cells"]
    source = "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])
    look = source[: source.index("subprocess.run([sys.executable")]  # without the installation
    program = look + "\nprint(os.getcwd())"
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=60)


def test_the_first_cell_ends_where_there_is_no_checkout(tmp_path):
    (tmp_path / "pyproject.toml").write_text("")  # of another project
    done = first_cell(tmp_path)
    assert "is in no checkout of localgrad: give REPOSITORY an address" in done.stderr
    for folder in (ROOT, ROOT / "launch"):
        assert first_cell(folder).stdout == f"{ROOT}\n"
    (tmp_path / "localgrad").symlink_to(ROOT)  # as a clone leaves it
    assert first_cell(tmp_path).stdout.startswith(str(ROOT))


def test_the_notebook_shows_the_example_of_the_readme():
    cells = json.loads((ROOT / "launch" / "colab.ipynb").read_text())["cells"]
    code = "".join(line for cell in cells if cell["cell_type"] == "code" for line in cell["source"])
    example = [line[4:] for line in (ROOT / "README.md").read_text().splitlines() if line.startswith((">>> ", "... "))]
    missing = [line for line in example[:-1] if line not in code and "stages=2" not in line]
    assert not missing
