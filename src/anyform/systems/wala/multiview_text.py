"""Text for released WaLa: a sentence -> pictures from fixed views -> the multi-view model (supplement E).

Released WaLa has no network that reads text: its text model is a multi-view diffusion front end (MVDream fine-tuned on
renders) before the 6-depth or the 4-view model, and the pictures go straight from one to the other. Embedded WaLa reads
text itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from anyform.errors import WeightsError
from anyform.geometry.asset import Provenance, Source, WeightsRecord
from anyform.systems.wala.conditions_released import ReleasedConditions
from anyform.systems.wala.system import Wala
from anyform.types.progress import Report, silent
from anyform.types.prompt import Prompt, Text

CITATION = "Shi et al., MVDream: Multi-view Diffusion for 3D Generation, 2023"
Draw = Callable[[Text, int, Report], NDArray[np.uint8]]


class TextWala(Wala):
    """A multi-view checkpoint behind a front end: text in, asset out; views as before.

    draw: (text, seed, report) -> (V, S, S, 3) uint8 pictures in the training order of the model's cameras.
    """

    draw: Draw
    conditions: ReleasedConditions

    @classmethod
    def behind(cls, wala: Wala, draw: Draw, record: WeightsRecord) -> TextWala:
        """The same networks, with a front end that draws their views. Raises WeightsError for a single-view model."""
        if not isinstance(wala.conditions, ReleasedConditions) or wala.conditions.config.num_views < 2:
            raise WeightsError("a text front end draws several views, but this WaLa checkpoint does not read such")
        made = cls(
            wala.codec, wala.denoiser, wala.conditions, wala.settings, (*wala.weights, record), (Text, *wala.accepts)
        )
        made.recommended, made.draw = wala.recommended, draw
        return made

    def generate_sdf(self, prompt: Prompt, *, seed: int, report: Report = silent) -> NDArray[np.float32]:
        """Text by way of its pictures, drawn with the same seed; anything else as without the front end."""
        if not isinstance(prompt, Text):
            return super().generate_sdf(prompt, seed=seed, report=report)
        condition = self.conditions.condition_of(list(self.draw(prompt, seed, report)))
        return self.sdf_of(condition, seed=seed, report=report)

    def provenance(
        self, prompt: Prompt, seed: int, sources: tuple[Source, ...] = (), notes: tuple[str, ...] = ()
    ) -> Provenance:
        """Both networks, both papers."""
        made = super().provenance(prompt, seed, sources, notes)
        return replace(made, citations=(*made.citations, CITATION))
