"""Imports run one way, from the command line down to the vocabulary."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import localgrad

LIBRARY = Path(localgrad.__file__).parent

# The parts of the library, from the lowest up: each imports parts of lower layers only, and none of its own layer.  So
# the pipeline never names a method, nor a method the pipeline, and nothing can go in a circle.
LAYERS = (
    {"xla", "base", "keys", "registry", "plugins", "target"},
    {"blocks", "losses", "report", "processes", "descent"},
    {"tasks"},
    {"data"},
    {"methods", "pipeline"},
    {"evaluation", "machines", "prediction"},
    {"training"},
    {"results"},
    {"cli", "testing"},
    {"__main__"},
)
READ_FLAGS = {"cli", "__main__"}  # and the programs in experiments/
# None of these may come with `import localgrad`; those that jax, flax, optax or chex bring by themselves are theirs.
HEAVY = {"absl", "tensorflow", "tensorflow_datasets", "orbax", "matplotlib", "sklearn", "jinja2"}


def imported(source: str, package: str) -> set[str]:
    """Full names of the modules that source code imports, at any depth; `package` is where relative ones start."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            # `from localgrad import data` names a part, as `import localgrad.data` does
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "localgrad" else {base}
    return found


def parts(modules: set[str]) -> set[str]:
    """The parts of the library among modules: `localgrad.methods.al` is of `methods`."""
    return {name.split(".")[1] if "." in name else "localgrad" for name in modules if name.split(".")[0] == "localgrad"}


def files() -> list[Path]:
    return sorted(path for path in LIBRARY.rglob("*.py") if path != LIBRARY / "__init__.py")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import localgrad.methods.al", {"methods"}),
        ("from localgrad.methods import al", {"methods"}),
        ("from localgrad import pipeline, methods", {"pipeline", "methods"}),
        ("from ..methods.al import al", {"methods"}),
        ("from . import step", {"pipeline"}),
        ("from .. import data", {"data"}),
        ("def f():\n    import localgrad.data as d", {"data"}),
        ("import localgrad", {"localgrad"}),
        ("import jax\nfrom localgradient import x", set()),
    ],
)
def test_the_reader_of_imports_sees_every_form(source: str, expected: set[str]) -> None:
    assert parts(imported(source, "localgrad.pipeline")) == expected


def test_all_files_are_found() -> None:
    assert {LIBRARY / "base.py", LIBRARY / "methods" / "al.py", LIBRARY / "pipeline" / "spmd.py"} <= set(files())


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_imports_run_one_way(path: Path) -> None:
    inside = path.relative_to(LIBRARY).with_suffix("").parts
    own = next((i for i, layer in enumerate(LAYERS) if inside[0] in layer), None)
    assert own is not None, f"localgrad/{inside[0]} is new: add it to LAYERS"
    lower = set[str]().union(*LAYERS[:own])
    modules = imported(path.read_text(), ".".join(["localgrad", *inside[:-1]]))
    wrong = parts(modules) - lower - {inside[0]}
    assert not wrong, f"{path} imports {sorted(wrong)}; {inside[0]} may import {sorted(lower)}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_only_the_command_line_reads_flags_and_nothing_knows_a_program(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path.read_text(), "localgrad")}
    assert not roots & {"experiments", "launch", "tests"}
    if path.relative_to(LIBRARY).with_suffix("").parts[0] not in READ_FLAGS:
        assert not roots & {"absl", "argparse"}, f"{path} reads flags: take arguments, and read them in localgrad/cli"


def test_importing_the_library_pulls_in_nothing_heavy() -> None:
    def loaded(statement: str) -> set[str]:
        program = f"import json, sys\n{statement}\nprint(json.dumps([name.split('.')[0] for name in sys.modules]))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return set(json.loads(done.stdout)) & HEAVY

    below = loaded("import jax, flax.linen, flax.nnx, optax, chex")
    library = "import localgrad, localgrad.base, localgrad.blocks, localgrad.losses, localgrad.methods"
    assert loaded(f"{library}, localgrad.pipeline") <= below
    assert below <= {"absl"}, "those below bring more by themselves: the line above no longer proves anything for it"
    assert "sklearn" in loaded("import sklearn"), "the look-out itself works"
