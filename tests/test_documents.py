"""The documents: how long the README is, where links lead, and that what they name is there and what they show runs."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import localgrad

from .quick import QUICK

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "BUILD.md", "CHANGELOG.md")] + sorted((ROOT / "docs").glob("*.md"))


def anchors(text: str) -> set[str]:
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_site_leads_to_every_page() -> None:
    assert "docs/index.md" in re.findall(r"\]\((docs/[\w.]+)", (ROOT / "README.md").read_text())
    index = (ROOT / "docs" / "index.md").read_text()
    (listed,) = re.findall(r"```{toctree}(.*?)```", index, re.DOTALL)
    names = {re.sub(r".*<(.*)>", r"\1", line) for line in listed.split("\n")}
    assert names >= {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert names >= {"../README", "../BUILD", "../CHANGELOG", "../launch/colab"}


def test_the_site_has_every_function() -> None:
    listed = re.findall(r"^\.\. auto\w+:: localgrad\.(\w+)", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert set(listed) == set(localgrad.__all__) - {"__version__"}
    assert len(set(listed)) == len(listed)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["own.md", "testing.md", "tutorial.md"])
def test_what_a_page_shows_runs(page: str, tmp_path: Path) -> None:
    """The blocks of a page are one program, run in an empty folder."""
    text = (ROOT / "docs" / page).read_text()
    blocks = re.findall(r"^```(?:python|{code-cell} ipython3)\n(?::.*\n)*(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "page.py").write_text("\n".join(blocks))
    environment = {**os.environ, **QUICK, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    if page == "tutorial.md":
        first, second = re.findall(r"\b[0-9a-f]{64}\b", done.stdout)
        assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("run", ["off", pytest.param("force", marks=pytest.mark.full)])
def test_the_site_builds_without_a_warning(run: str, tmp_path: Path) -> None:
    """Without running its pages, as far as it takes seconds; and as `launch/docs.sh` does."""
    pytest.importorskip("sphinx", reason="of the docs extra")
    pytest.importorskip("myst_nb", reason="of the docs extra")
    line = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-D", f"nb_execution_mode={run}"]
    if run == "off":
        line += ["-D", "suppress_warnings=myst-nb.lexer"]  # no kernel says what language a cell is in
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    line += ["-c", "docs", ".", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    site = (tmp_path / "docs" / "schedules.html").read_text()
    assert site.count('<div class="schedule">') == (5 if run == "force" else 0)
    assert "localgrad.fit" in (tmp_path / "docs" / "api.html").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text().replace("\n", " ")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name} links to {link}, and there is no such file"
        assert not anchor or anchor in anchors(target.read_text()), f"{page.name}: no heading {anchor} in {target.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_that_are_named_are_there(page: Path) -> None:
    text = re.sub(r"\s+", " ", page.read_text())
    for name in set(re.findall(r"python -m ((?:experiments|localgrad)[\w.]*)", text)):
        assert find_spec(name) is not None, f"{page.name} names `python -m {name}`, and there is no such program"
