"""The commands of the documents: every one parses, and those that need neither the network nor hours run as written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .quick import QUICK
from .test_documents import PAGES, ROOT

# What a command has that is not run here, and why.
NOT_RUN = {
    "bash launch/": "makes an environment",
    "pytest ": "is what runs this",
    "pip install": "the network",
    "data prepare": "the network",
    "fashion_mnist": "data from the network",
    "runs/movies": "data from the network",
    "--plugin=mine": "wants the modules of docs/own.md, whose test runs them",
    "--compile_for": "wants the compiler for TPUs",
    "--net=resnet20": "hours",
    "--trials=3": "a quarter of an hour; the tests of comparisons run smaller ones",
}
PARSE = """
import importlib, json, sys
from absl import flags
command = importlib.import_module("localgrad.cli." + sys.argv[1])
command.define_flags()
for words in json.load(sys.stdin):
    flags.FLAGS.unparse_flags()
    flags.FLAGS([sys.argv[1], *words])
    if sys.argv[1] == "train":
        command.config_from_flags()
    if sys.argv[1] == "compare":
        base = command.Config(**command.config_flags.values())
        command.rows_of(base, flags.FLAGS.methods, flags.FLAGS.sweep)
print("parsed")
"""


def commands(page: Path) -> list[str]:
    """The commands of a page's blocks, each on a line, without comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(re.sub(r"\s#.*", "", line).split()) for line in lines if line.strip()]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **QUICK, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **more}


def words_of(command: str) -> list[str]:
    """What follows `localgrad`, or the same with `python -m`; [] of another command."""
    found = re.match(r"(?:python -m )?localgrad (.*)", command)
    return [] if found is None else found[1].split()


def test_the_pages_have_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) >= 25
    assert words_of("python -m localgrad train --seed=1") == words_of("localgrad train --seed=1") != []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "compare", "evaluate", "predict", "report"])
def test_every_command_parses(kind: str, tmp_path: Path) -> None:
    found = [words_of(command) for page in PAGES for command in commands(page) if "--plugin=mine" not in command]
    mine = [words[1:] for words in found if words[:1] == [kind]]
    assert mine
    line = [sys.executable, "-c", PARSE, kind]
    done = subprocess.run(
        line, input=json.dumps(mine), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and done.stdout == "parsed\n", done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands run: with the command `localgrad`, and with the files and runs that some of them name."""
    home = tmp_path_factory.mktemp("commands")
    programs = home / "bin"
    programs.mkdir()
    for name, line in (("localgrad", "-m localgrad "), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {line}"$@"\n')
        (programs / name).chmod(0o755)
    for name in ("boot.png", "bag.jpg"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(home / name)
    small = "--net=mlp --widths=8,8 --limit=64 --batch_size=32 --epochs=1"
    for method in ("al", "scl", "bp"):
        run(f"localgrad train --method={method} {small} --workdir=runs/{method}", home)
    run(f"localgrad train --method=al {small} --workdir=runs/fashion", home)  # in place of data from the network
    return home


def run(command: str, home: Path) -> None:
    path = os.pathsep.join([str(home / "bin"), os.environ["PATH"]])
    line = ["bash", "-c", command]
    done = subprocess.run(line, cwd=home, env=environment(PATH=path), capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, f"{command}\n{done.stdout[-500:]}\n{done.stderr[-2000:]}"


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_run_as_written(page: Path, folder: Path) -> None:
    found = [command for command in commands(page) if not any(part in command for part in NOT_RUN)]
    if any("runs/digits" in command for command in found) and not (folder / "runs" / "digits").exists():
        first, *_ = (command for command in commands(ROOT / "docs" / "command_line.md") if "runs/digits" in command)
        run(first, folder)
    for command in found:
        run(command, folder)
