"""`import anyform` and `anyform --help` are instant because they load nothing heavy; optional packages are optional."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

HEAVY = {"torch", "numpy", "scipy", "trimesh", "PIL", "numba", "skimage", "safetensors", "tokenizers"}
OPTIONAL = ["h5py", "soundfile", "rembg", "pxr", "accelerate", "matplotlib", "embreex", "igl", "DracoPy", "zstandard"]


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a new interpreter after running `code`."""
    tail = "import json, sys; print('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tail}"], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import anyform",
        "from anyform.cli import main; assert main(['--help']) == 0",
        "from anyform.cli import main; assert main(['generate', '--help']) == 0",
        "from anyform.cli import main; assert main(['--version']) == 0",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert loaded_after(code) & HEAVY == set()


def test_the_measure_sees_numpy() -> None:
    assert "numpy" in loaded_after("import numpy")


def test_every_module_imports_without_optional_packages(package: Any) -> None:
    """All modules of the package, in one interpreter where every optional package is missing."""
    from_files = (s.name.removeprefix("src/").removesuffix(".py").replace("/", ".") for s in package)
    names = [name.removesuffix(".__init__") for name in from_files if not name.endswith("__main__")]
    code = (
        f"import importlib, sys\nsys.modules.update(dict.fromkeys({OPTIONAL!r}))\nsys.argv = ['x']\n"
        f"for name in {names!r}:\n"
        "    if name != 'anyform.weights.pickle_child':\n        importlib.import_module(name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
