"""A test hook: `ANYFORM_FAULT` makes a run fail on purpose, so that tests can see what a user would see.

`nan:step=3` puts NaN into the sampler's state after step 3; `oom:stage=decode` raises MemoryError when that stage
starts. Several faults are separated by commas; a fault without a place applies everywhere. Unset, it costs one lookup.
"""

from __future__ import annotations

import os

from anyform.errors import BadSetting


def fault_point(stage: str, step: int = 0) -> bool:
    """Called where a run can fail: True means "spoil the value here with NaN".

    stage: the name the progress bar shows; step: counted from 0. Raises MemoryError where `oom` names this place, and
    BadSetting for a value that no fault has.
    """
    spoil = False
    for fault in filter(None, os.environ.get("ANYFORM_FAULT", "").split(",")):
        kind, _, place = fault.partition(":")
        name, _, value = place.partition("=")
        if kind not in {"nan", "oom"} or name not in {"", "stage", "step"}:
            raise BadSetting(f"ANYFORM_FAULT={fault!r} is no fault: use nan:step=N, nan:stage=NAME or oom:stage=NAME")
        here = not name or value == (stage if name == "stage" else str(step))
        if here and kind == "oom":
            raise MemoryError(f"injected by ANYFORM_FAULT in {stage}, step {step}")
        spoil = spoil or here
    return spoil
