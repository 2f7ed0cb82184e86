"""pyproject.toml, constraints.txt and what is shipped agree with the source and with each other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import anyform

# distribution -> import name, where they differ
IMPORT_NAMES = {
    "fast-simplification": "fast_simplification", "huggingface-hub": "huggingface_hub", "pillow": "PIL",
    "scikit-image": "skimage", "libigl": "igl", "point-cloud-utils": "point_cloud_utils", "usd-core": "pxr",
    "python-multipart": "python_multipart", "sse-starlette": "sse_starlette", "dracopy": "DracoPy",
    "pyyaml": "yaml",
}  # fmt: skip
# needed by trimesh for 3MF, imported by nobody here
INDIRECT = {"lxml", "networkx"}
# in no package index: whoever wants it builds it, and its adapter says so
BUILT_BY_HAND = {"nvdiffrast"}
EXTRAS = {"audio", "cuda", "data", "dev", "foundations", "matting", "ray", "serve", "train", "usd", "wala-formats"}
MAX_SHIPPED = 95_000_000


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def named(requirement: str) -> str:
    """The distribution a requirement asks for, in the canonical spelling."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group().rstrip("-.")).lower()  # type: ignore[union-attr]


def everything(project: dict[str, Any]) -> list[str]:
    """All requirements, the base ones and those of the extras."""
    return [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]


def test_ranges_are_honest(project: dict[str, Any]) -> None:
    for requirement in everything(project):
        if not requirement.startswith("anyform["):
            assert re.fullmatch(r"[\w.-]+>=[\w.]+(; .+)?", requirement), requirement
    assert project["requires-python"] == ">=3.11"
    assert set(project["optional-dependencies"]) == EXTRAS


def test_constraints_pin_what_ci_installs(root: Path, project: dict[str, Any]) -> None:
    lines = [line for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    installed = {"audio", "data", "foundations", "serve", "train", "wala-formats", "dev"}
    extras = [one for extra in installed for one in project["optional-dependencies"][extra]]
    needed = {named(one) for one in [*project["dependencies"], *extras] if not one.startswith("anyform[")}
    assert needed - {named(line) for line in lines} == set()


def test_what_is_imported_is_required(package: Any, project: dict[str, Any]) -> None:
    base = {IMPORT_NAMES.get(name, name) for name in map(named, project["dependencies"])}
    extras = {IMPORT_NAMES.get(name, name) for name in map(named, everything(project))} - base
    imported: set[str] = set()
    for source in package:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {"anyform", "__future__"}
    assert foreign - base - extras == BUILT_BY_HAND
    assert base - foreign - INDIRECT == set()


def test_the_extra_that_an_error_names_brings_the_package(package: Any, project: dict[str, Any]) -> None:
    call = re.compile(r"MissingDependency\(\"([\w-]+)\", extra=\"([\w-]+)\"\)")
    promised = [found for source in package for found in call.findall(source.text)]
    assert len(promised) >= 5
    for missing, extra in promised:
        assert named(missing) in map(named, project["optional-dependencies"][extra]), (missing, extra)


def test_shipped_data_is_there_and_small(root: Path) -> None:
    assert (root / "src/anyform/py.typed").is_file()
    shipped = {path: path.stat().st_size for path in (root / "src/anyform").rglob("*") if path.suffix != ".pyc"}
    assert sum(shipped.values()) <= MAX_SHIPPED, sorted(shipped.items(), key=lambda item: -item[1])[:5]


def test_one_version(root: Path) -> None:
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None and newest.group(1) == anyform.__version__


def test_no_registry_is_named(root: Path) -> None:
    """Whoever builds this chooses the index; no file of ours points at one."""
    hosts = ["py" + "pi.org", "python" + "hosted.org", "download.py" + "torch.org", "registry.npm" + "js.org"]
    command = ["git", "grep", "-IlE", "|".join(re.escape(host) for host in hosts)]
    if not (root / ".git").exists():
        pytest.skip("a source archive without its history: git lists the files that belong to the project")
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("", 1)
