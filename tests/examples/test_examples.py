"""Every example runs as its first line says and leaves files that pass the gate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anyform.geometry.formats import read_mesh
from anyform.geometry.gate import gate

EXAMPLES = {"01_sentence_to_glb": "a.glb", "02_points_from_numpy": "b.glb", "03_variations": "c", "04_print": "d.3mf"}


def test_every_example_is_tested(root: Path) -> None:
    assert {path.stem for path in (root / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize(("script", "target"), EXAMPLES.items())
def test_example(root: Path, tmp_path: Path, script: str, target: str) -> None:
    command = [sys.executable, str(root / "examples" / f"{script}.py"), target]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = [path for path in tmp_path.rglob("*") if path.suffix in {".glb", ".3mf"}]
    assert len(files) == (3 if script == "03_variations" else 1)
    for file in files:
        report = gate(read_mesh(file), allow_parts=file.suffix == ".glb")
        assert report.ok, (file.name, report.failures)
