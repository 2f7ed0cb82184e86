"""Pickled checkpoints -> safetensors, in a child process that loads with `weights_only=True`.

A pickle is a program. `weights_only` refuses everything but tensors and plain containers; the child keeps even a hole
in that refusal away from this process's memory, its environment and its network settings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from anyform.errors import BadInput, WeightsError

_TIMEOUT_S = 1800
_ENVIRONMENT = ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS")


def convert_pickle(path: str | Path, out: str | Path, *, force: bool = False) -> Path:
    """Write every tensor of a `.ckpt`, `.pt` or `.bin` to the safetensors file `out`; nested names join by dots.

    Numbers and strings found beside the tensors become metadata. Raises WeightsError where the pickle is damaged, needs
    code, or holds no tensor; BadInput where `out` exists and `force` is not set. `out` appears whole or not at all.
    """
    path, out = Path(path), Path(out)
    if not path.is_file():
        raise WeightsError(f"there is no checkpoint file {path.name!r}")
    if out.exists() and not force:
        raise BadInput(f"{out.name!r} exists: choose another name or give --force")
    if not out.parent.is_dir():
        raise BadInput(f"the folder of {out.name!r} does not exist")
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    command = [sys.executable, "-m", "anyform.weights.pickle_child", str(path.resolve()), str(partial.resolve())]
    try:
        done = subprocess.run(
            command, env=environment, cwd=out.parent, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
        answer = _answer(done.stdout)
        if done.returncode != 0 or "error" in answer:
            why = answer.get("error", f"the converter ended with code {done.returncode}")
            raise WeightsError(f"{path.name!r} was not converted: {why}")
        partial.replace(out)
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"{path.name!r} was not converted: it took over {_TIMEOUT_S} s") from error
    except OSError as error:
        raise BadInput(f"{out.name!r} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return out


def _answer(stdout: bytes) -> dict[str, str]:
    lines = stdout.decode("utf-8", "replace").splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
