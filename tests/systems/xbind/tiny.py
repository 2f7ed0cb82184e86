"""Tiny random networks in the real format: foundation, view and joint, as files or as `Models`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from anyform.encoders.joint import Joint, JointConfig
from anyform.errors import BadInput
from anyform.priors.embedded import PriorConfig, PriorNetwork, foundation_of, view_of
from anyform.systems.xbind.models import Models
from anyform.types.prompt import Audio, Image, Points, Sketch, Text

DIM = 16
JOINT = JointConfig(
    dim=DIM, picture_widths=(8, 16), sketch_widths=(8, 16), point_widths=(8, 8), speech_width=16, speech_layers=1,
    speech_heads=2, words=("chair", "red"),
)  # fmt: skip


def prior(*, view: bool, text_width: int = 12) -> PriorNetwork:
    torch.manual_seed(2 + view)
    config = PriorConfig(
        view=view, image_size=16, fold=2, widths=(8, 16), attends=(False, True), heads=(1, 2), groups=4, token_width=8,
        text_width=text_width, joint=DIM,
    )  # fmt: skip
    network = PriorNetwork(config)
    with torch.no_grad():  # an untrained network's last layer is zero: let it say something
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


class Space:
    """The joint network behind `JointSpace`, without MiniLM: a sentence's vector follows from its letters."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.joint = Joint(JOINT).eval().requires_grad_(False)

    def embed(self, prompt: Any) -> Tensor:
        if isinstance(prompt, Text):
            generator = torch.Generator().manual_seed(sum(map(ord, prompt.text)))
            return self.joint.text(torch.randn(1, JOINT.text_width, generator=generator))[0]
        if isinstance(prompt, Image):
            rgb = torch.from_numpy(prompt.rgba[..., :3].copy()).float().permute(2, 0, 1)[None] / 255
            return self.images(rgb)[0]
        if isinstance(prompt, Audio | Sketch | Points):
            return torch.nn.functional.normalize(torch.ones(DIM), dim=0)
        raise BadInput(f"no vector for a {type(prompt).__name__}")

    def images(self, pictures: Tensor) -> Tensor:
        return self.joint.image(torch.nn.functional.interpolate(pictures, (64, 64), mode="bilinear"))


def read_text(text: str) -> Tensor:
    return torch.randn(3, 12, generator=torch.Generator().manual_seed(len(text)))


def models() -> Models:
    """Everything a run is guided by, random."""
    space = Space()
    planar = prior(view=False)
    return Models(
        planar=foundation_of(planar, read_text),
        stereo=view_of(prior(view=True), space.images, read_text),
        space=space,
        network=planar.unet,
    )


def write(folder: Path) -> Path:
    """The three files as the recipes write them, for the real sentence encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, is_view in (("foundation", False), ("view", True)):
        network = prior(view=is_view, text_width=384)
        save_file(network.state_dict(), folder / f"{name}.safetensors", {"config": network.config.to_json()})
    save_file(Space().joint.state_dict(), folder / "joint.safetensors", {"config": JOINT.to_json()})
    return folder
