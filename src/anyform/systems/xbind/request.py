"""What a prompt asks for: words, a vector of the joint space, the user's own picture, a shape to begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyform.errors import BadInput
from anyform.geometry.asset import Asset, Start
from anyform.render.shading import picture
from anyform.systems.xbind.models import JointSpace
from anyform.systems.xbind.views import reference_view
from anyform.types.prompt import Image, Text, describe


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """parts: prompts with their weights. asset: the shape to begin with, or None. text: the words, "" without any."""

    parts: tuple[tuple[Any, float], ...]
    asset: Asset | None

    @property
    def text(self) -> str:
        """The words of all text parts."""
        return ", ".join(part.text for part, _ in self.parts if isinstance(part, Text))

    @property
    def image(self) -> Image | None:
        """The user's picture, where there is one."""
        return next((part for part, _ in self.parts if isinstance(part, Image)), None)

    def vector(self, space: JointSpace) -> Tensor:
        """The weighted mean of the parts in the joint space, (D,), of unit length."""
        total = torch.stack([weight * space.embed(part).detach().reshape(-1).float() for part, weight in self.parts])
        return torch.nn.functional.normalize(total.sum(0), dim=0)

    def described(self) -> dict[str, Any]:
        """JSON for the provenance."""
        rows = [describe(part) for part, _ in self.parts]
        told = rows[0] if len(rows) == 1 else {"kind": "mix", "parts": rows}
        if self.asset is None:
            return told
        return {**told, "start": {"system": self.asset.provenance.system, "seed": self.asset.provenance.seed}}


def understand(prompt: Any) -> Request:
    """A prompt, a mix, an asset or a `Start` -> what it asks for.

    An asset alone asks for what it was made from where that was text, else for what it looks like. Raises BadInput.
    """
    if isinstance(prompt, Start):
        inner = understand(prompt.prompt)
        if inner.asset is not None:
            raise BadInput("a start holds one asset and one prompt, not an asset twice")
        return Request(inner.parts, prompt.asset)
    if isinstance(prompt, Asset):
        text = prompt.provenance.prompt.get("text")
        part = Text(text) if isinstance(text, str) and text.strip() else front(prompt)
        return Request(((part, 1.0),), prompt)
    if isinstance(prompt, list):
        return Request(tuple(prompt), None)
    return Request(((prompt, 1.0),), None)


def front(asset: Asset, size: int = 256) -> Image:
    """The asset's own front, at the reference camera, with its mask."""
    pixels = picture(asset.mesh, reference_view(size).cameras, "transparent")[0]
    if not (pixels[..., 3] > 127).any():
        raise BadInput("the asset cannot be seen from its front: it lies outside [-1, 1]³ or is empty")
    return Image(np.ascontiguousarray(pixels))
