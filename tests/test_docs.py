"""What the pages refer to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = [
    path
    for folder in ("ssm_jax", "configs", "scripts", "benchmarks", "tests", "docs")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".md")
]


def facts(text: str) -> set[int]:
    """The numbers of OC-4, and of all from OC-1..OC-12."""
    found = {int(n) for n in re.findall(r"\bOC-(\d+)", text)}
    for first, last in re.findall(r"\bOC-(\d+) ?\.\. ?OC-(\d+)", text):
        found |= set(range(int(first), int(last) + 1))
    return found


def test_every_fact_of_the_official_code_that_is_named_is_explained():
    page = (ROOT / "docs/official-code.md").read_text()
    headings = [int(n) for n in re.findall(r"^### OC-(\d+): \S", page, re.MULTILINE)]
    assert headings == list(range(1, len(headings) + 1))
    for path in SOURCES:
        unknown = facts(path.read_text()) - set(headings)
        assert not unknown, f"{path.relative_to(ROOT)} names OC-{min(unknown)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, _ = target.partition("#")
        if path and "://" not in path and not path.startswith("mailto:"):
            assert (page.parent / path).exists(), target
