"""Text for released WaLa: a sentence -> depth maps from six fixed views -> the 6-depth model (supplement E).

Released WaLa has no network that reads text: its text model is a multi-view diffusion front end (MVDream fine-tuned on
depth) in front of the depth model. This file states what such a front end is; embedded WaLa reads text itself.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from anyform.errors import WeightsError
from anyform.types.progress import Report
from anyform.types.prompt import Text, Views

FRONT_END_VIEWS = (3, 6, 10, 26, 49, 50)  # view ids, in the order that the 6-depth model was trained with


@runtime_checkable
class DepthFrontEnd(Protocol):
    """Text -> depth views with `view_ids` equal to `FRONT_END_VIEWS`, one object seen from all of them."""

    def __call__(self, prompt: Text, *, seed: int, report: Report) -> Views: ...


def depth_views(prompt: Text, front_end: DepthFrontEnd | None, *, seed: int, report: Report) -> Views:
    """The depth maps that the front end draws. Raises WeightsError where there is none."""
    if front_end is None:
        raise WeightsError(
            "released WaLa weights cannot read text without their multi-view front end (WaLa-MVDream-DM6), which is "
            "not loaded: use the embedded weights for text, or give depth views"
        )
    return front_end(prompt, seed=seed, report=report)
