"""The folder of a training run: `run.json` says what is trained, so that a run is only ever continued as itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anyform.configuration import flatten
from anyform.errors import BadInput

# Settings that may differ when a run is continued; all others make it another run.
FREE = frozenset({"steps", "bf16", "log_every", "checkpoint_every", "evaluate_every"})


def begin(folder: Path, preset: str, plan: Any, *, resume: bool) -> None:
    """Write what is trained (plan: a dataclass), or check that the run in `folder` trains the same.

    Raises BadInput for a folder with other content, for a run without `resume`, and for another run than this.
    """
    path = folder / "run.json"
    wanted = {"preset": preset, "plan": json.loads(json.dumps(asdict(plan)))}
    if not path.is_file():
        if folder.exists() and any(folder.iterdir()):
            raise BadInput(f"{folder.name} is not empty and holds no run: choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)
        return
    if not resume:
        raise BadInput(f"{folder.name} holds a run already: add --resume to go on with it, or choose another --out")
    before = json.loads(path.read_text(encoding="utf-8"))
    if before["preset"] != preset:
        raise BadInput(f"{folder.name} was begun with preset {before['preset']}, not {preset}")
    old, new = flatten(before["plan"]), flatten(wanted["plan"])
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and key.rpartition(".")[2] not in FREE:
            raise BadInput(f"{folder.name} was begun with {key}={old.get(key)}, not {new.get(key)}: use another --out")


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
