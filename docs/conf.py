"""How Sphinx builds the documentation; its source folder is the checkout, so that links of files are links of pages."""

import re
from typing import Any

project = "localgrad"
author = "The localgrad developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "README.md", "BUILD.md", "CHANGELOG.md", "docs/*.md", "launch/colab.ipynb", "experiments/results/**.md",
]  # fmt: skip
html_theme = "alabaster"
html_theme_options = {"description": "Blocks that learn from their own losses", "page_width": "1100px"}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}

myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_excludepatterns = ["launch/*"]  # which installs; tests run it
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True

autodoc_typehints = "none"  # shapes stand in the docstrings; a signature of types alone would be twice as long
autodoc_member_order = "bysource"
napoleon_use_ivar = True


def _plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with code in single backquotes, as they are read in a terminal."""
    for i, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        pieces = re.split(r"(`[^`]+`)", line)
        code = lambda piece: f"``{piece[1:-1].strip()}``"
        words = lambda piece: re.sub(r"([*|_\\])", r"\\\1", piece)
        lines[i] = "".join(code(piece) if piece.startswith("`") else words(piece) for piece in pieces)


def _titled(app: Any, name: str, source: list[str]) -> None:
    """Tables that programs wrote have no heading, and stand in no list of pages."""
    if name.startswith("experiments/results/"):
        source[0] = f"---\norphan: true\n---\n\n# {name.removeprefix('experiments/results/')}\n\n{source[0]}"


def setup(app: Any) -> None:
    """Registers both, `_plain` before napoleon reads the sections."""
    app.connect("source-read", _titled)
    app.connect("autodoc-process-docstring", _plain, priority=100)
