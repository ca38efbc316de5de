"""The names that `import localgrad` gives."""

import json
import re
import subprocess
import sys
from pathlib import Path

import localgrad as lg

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there_once_and_has_a_docstring() -> None:
    assert len(set(lg.__all__)) == len(lg.__all__)
    for name in lg.__all__:
        assert hasattr(lg, name), name
        assert name == "__version__" or (getattr(lg, name).__doc__ or "").strip(), f"{name} has no docstring"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*|0\+unknown", lg.__version__)


def test_names_stand_under_comments_in_order() -> None:
    text = (ROOT / "localgrad" / "__init__.py").read_text()
    block = text[text.index("__all__ = [") : text.index("\n]\n")]
    groups = [re.findall(r'"(\w+)"', group) for group in re.split(r"\n    # .*", block)[1:]]
    assert len(groups) >= 8
    for group in groups[:-1]:
        assert group == sorted(group), group


def test_documents_name_public_names_only() -> None:
    pages = [ROOT / "README.md", ROOT / "BUILD.md", *(ROOT / "docs").glob("*.md")]
    named = {name for page in pages for name in re.findall(r"\blg\.(\w+)", page.read_text())}
    assert named and named <= set(lg.__all__), sorted(named - set(lg.__all__))


def test_training_is_reachable_and_imported_late() -> None:
    program = (
        "import json, sys, localgrad as lg; before = set(sys.modules); lg.training.fit, lg.evaluation.aligner; "
        "print(json.dumps([sorted(before), sorted(set(sys.modules) - before)]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, late = json.loads(done.stdout)
    assert "localgrad.training" not in before and {"localgrad.training", "orbax.checkpoint"} <= set(late)
    done = subprocess.run([sys.executable, "-c", "import localgrad; localgrad.magic"], capture_output=True, text=True)
    assert "has no attribute 'magic'" in done.stderr
