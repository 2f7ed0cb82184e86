"""Reading files from strangers: the parent's side of `reading_child`, a few at a time, each with a time limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from anyform.errors import AnyformError

SECONDS = 120.0  # by the wall clock; the child's own limits are on memory and processor time
AT_ONCE = 2
_PASSED = ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG")  # no token, no home
_turns = threading.BoundedSemaphore(AT_ONCE)


class Unreadable(AnyformError):
    """A file cannot be used. code: bad_input, too_large, unsupported_media or missing_dependency."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_files(files: Mapping[str, Path], folder: Path) -> list[str]:
    """Read the files of a submission into arrays in `folder`; returns notes on what was converted.

    files: field -> path, names of our own. Raises Unreadable, one sentence, whatever the file does to its reader.
    """
    order = json.dumps({"files": {field: str(path) for field, path in files.items()}, "folder": str(folder)})
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "anyform.server.reading_child"]
    with _turns:
        try:
            done = subprocess.run(
                command, input=f"{order}\n".encode(), capture_output=True, env=environment, cwd=folder,
                timeout=SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Unreadable("bad_input", f"the file took over {SECONDS:.0f} s to read: send a simpler one") from error
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode != 0 or not lines:
        raise Unreadable("bad_input", "the file broke its reader or needed more than a file may: send another one")
    answer = json.loads(lines[-1])
    if "code" in answer:
        raise Unreadable(answer["code"], answer["message"])
    return answer["notes"]
