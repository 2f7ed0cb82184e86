"""What the documents say exists: links, commands, generated pages."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


def pages(root: Path) -> list[Path]:
    """Every document of ours."""
    return [*root.glob("*.md"), *(root / "docs").rglob("*.md"), *(root / "fixtures").rglob("*.md")]


def test_links_lead_somewhere(root: Path) -> None:
    dead = [
        f"{page.relative_to(root)}: {target}"
        for page in pages(root)
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert dead == []


def test_every_page_is_reachable_from_the_index(root: Path) -> None:
    index = (root / "docs" / "index.md").read_text(encoding="utf-8")
    assert [p.name for p in (root / "docs").glob("*.md") if p.name != "index.md" and f"({p.name})" not in index] == []


def test_the_readme_starts_with_the_two_commands(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    assert 0 < text.index("make demo") < text.index("make test") < 2500


def test_make_targets_that_documents_name_exist(root: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {m for page in pages(root) for m in re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))}
    assert named - targets == set()


@pytest.mark.slow
def test_the_command_line_page_is_current(root: Path) -> None:
    made = runpy.run_path(str(root / "docs" / "make_cli.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), "run `make docs`"
