"""The source as the house tests see it: every file parsed once."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Source:
    """One Python file. name: its path from the checkout's root, with forward slashes."""

    name: str
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False)


def read_sources(root: Path, *folders: str) -> list[Source]:
    """Every Python file under these folders of the checkout, in order of its name."""
    found = []
    for path in sorted(file for folder in folders for file in (root / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append(Source(path.relative_to(root).as_posix(), text, ast.parse(text)))
    return found


@pytest.fixture(scope="session")
def package(root: Path) -> list[Source]:
    """The product: src/anyform."""
    return read_sources(root, "src")


@pytest.fixture(scope="session")
def tests(root: Path) -> list[Source]:
    """The tests, these among them."""
    return read_sources(root, "tests")


@pytest.fixture(scope="session")
def scripts(root: Path) -> list[Source]:
    """What is neither: recipes, benchmarks, examples, page generators, CI."""
    return read_sources(root, "runs", "benchmarks", "examples", "docs", ".ci")
