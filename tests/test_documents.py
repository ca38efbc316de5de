"""The documents: how long the README is, where links lead, and that every program they name is there."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "BUILD.md", "CHANGELOG.md")] + sorted((ROOT / "docs").glob("*.md"))


def anchors(text: str) -> set[str]:
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_readme_leads_to_every_page() -> None:
    linked = re.findall(r"\]\((docs/[\w.]+)", (ROOT / "README.md").read_text())
    through = re.findall(r"\]\(([\w]+\.md)", (ROOT / "docs" / "performance.md").read_text())
    assert {*linked, *(f"docs/{name}" for name in through)} >= {
        f"docs/{page.name}" for page in (ROOT / "docs").iterdir()
    }


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
