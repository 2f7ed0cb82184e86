"""Every equation of the papers that the code implements lives in one place, is named by a test, and is in the index."""

from __future__ import annotations

import re
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

# how many numbered equations each paper has: no tag may name another
NUMBERED = {"XBind": 14, "TuneMV3D": 4, "TuneMV3D-supp": 3}
# what the package promises; XBind Eq. 1 and 14 are no part of it
PROMISED = {f"XBind Eq. {number}" for number in range(2, 14)} | {
    "WaLa-supp B sampled loss", "WaLa-supp B quantiser", "TuneMV3D Eq. 2", "TuneMV3D Eq. 3", "TuneMV3D Eq. 4",
    "TuneMV3D-supp Eq. 1", "TuneMV3D-supp Eq. 2", "TuneMV3D-supp Eq. 3",
}  # fmt: skip


@pytest.fixture(scope="module")
def generator(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "docs" / "make_equations.py"))


@pytest.fixture(scope="module")
def index(generator: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return list(generator["index"]())


def test_one_equation_one_place(index: list[tuple[str, str, str, str]]) -> None:
    places = Counter(tag for tag, *_ in index)
    assert {tag for tag, count in places.items() if count > 1} == set()
    assert set(places) >= PROMISED


def test_every_tag_names_something_that_exists(
    generator: dict[str, Any], index: list[tuple[str, str, str, str]]
) -> None:
    tags = [tag for tag, *_ in index]
    assert [tag for tag in tags if not generator["TAG"].fullmatch(tag)] == []
    for paper, number in (match.groups() for tag in tags if (match := re.fullmatch(r"(.+) Eq\. (\d+)", tag))):
        assert 1 <= int(number) <= NUMBERED[paper]


def test_a_test_names_every_tagged_function(index: list[tuple[str, str, str, str]], tests: Any) -> None:
    words = {word for source in tests for word in re.findall(r"\w+", source.text)}
    assert [f"{path}: {name} ({tag})" for tag, path, name, _ in index if name not in words] == []


def test_the_index_is_current(generator: dict[str, Any]) -> None:
    assert generator["PAGE"].read_text(encoding="utf-8") == generator["page"](), "run `make docs`"
