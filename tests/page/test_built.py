"""The built page belongs to its sources, is small, and holds no code or address of elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

MAX_GZIP = 400_000


@pytest.fixture(scope="module")
def static(root: Path) -> Path:
    return root / "src" / "anyform" / "server" / "static"


@pytest.fixture(scope="module")
def manifest(static: Path) -> dict[str, Any]:
    return json.loads((static / "build.json").read_text(encoding="utf-8"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_built_is_what_the_manifest_says(static: Path, manifest: dict[str, Any]) -> None:
    assert {path.name: digest(path) for path in static.iterdir() if path.name != "build.json"} == manifest["built"]


def test_the_sources_have_not_changed_since(root: Path, manifest: dict[str, Any]) -> None:
    web = root / "web"
    if not web.is_dir():
        pytest.skip("a package without its web sources")
    sources = [web / "build.mjs", web / "package.json", web / "package-lock.json"]
    sources += [path for folder in ("src", "public") for path in (web / folder).rglob("*") if path.is_file()]
    found = {path.relative_to(web).as_posix(): digest(path) for path in sources}
    assert found == manifest["sources"], "a source of the page changed: run `npm ci && npm run build` in web/"


def test_everything_together_is_small(static: Path) -> None:
    assert sum(len(gzip.compress(path.read_bytes(), 9, mtime=0)) for path in static.iterdir()) <= MAX_GZIP


def test_the_page_fits_a_strict_policy(static: Path) -> None:
    page = (static / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)", page)
    assert not re.findall(r'(?:src|href)="(?:https?:|/)', page)
    for name in ("app.js", "viewer.js"):
        code = (static / name).read_text(encoding="utf-8")
        assert not re.search(r"\beval\(|new Function\(|\.innerHTML\s*=|document\.write", code), name
    for name in ("app.css", "viewer.css"):
        assert not re.search(r"url\((?!data:)|@import", (static / name).read_text(encoding="utf-8")), name
