"""The wheel holds the whole package, and what it brings runs where there is no checkout."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import localgrad

from .quick import QUICK
from .wheels import ROOT, build_wheel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel alone, which stands before the checkout's own package."""
    folder = tmp_path_factory.mktemp("installed")
    line = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*line, str(wheel)], check=True, timeout=300)
    return folder


def run(installed: Path, folder: Path, *words: str) -> str:
    environment = {**os.environ, **QUICK, "PYTHONPATH": str(installed), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_file_of_the_package_is_missing(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    there = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "localgrad").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"localgrad/py.typed", "localgrad/report/page.html", "localgrad/__main__.py"} <= there
    assert {name for name in names if ".dist-info/" not in name} == there


def test_it_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as found:
        about = {Path(name).name: found.read(name).decode() for name in found.namelist() if ".dist-info/" in name}
    assert about["entry_points.txt"].split() == ["[console_scripts]", "localgrad", "=", "localgrad.cli.main:main"]
    assert f"Version: {localgrad.__version__}\n" in about["METADATA"] and "Apache" in about["LICENSE"]
    assert about["METADATA"].endswith((ROOT / "README.md").read_text())


def test_the_command_trains_and_makes_a_page_without_the_checkout(installed, tmp_path):
    python, command = sys.executable, str(installed / "bin" / "localgrad")
    where = run(installed, tmp_path, python, "-c", "import localgrad; print(localgrad.__file__)")
    assert Path(where.strip()) == installed / "localgrad" / "__init__.py"
    small = ("--method=early_exit", "--net=mlp", "--widths=8,8", "--limit=64", "--batch_size=32", "--epochs=1")
    said = run(installed, tmp_path, command, "train", *small, "--stages=2", "--workdir=run", "--report")
    assert "wrote run/report.html" in said.splitlines()
    page = re.sub(r"<[^>]*>", "", (tmp_path / "run" / "report.html").read_text())
    assert "Timeline of the pipeline" in page and "localgrad train --method=early_exit" in page
