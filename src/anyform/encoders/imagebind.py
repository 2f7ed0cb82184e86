"""ImageBind as an encoder of prompts: `load(path).embed(prompt)`. Opt-in: its weights are not for commercial use.

The network is in `imagebind_network.py`, the preprocessing in `imagebind_inputs.py`. A file given by its path loads
with the licence shown once; `require_licence` is what a command line asks before it takes the encoder by name.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from anyform.encoders import imagebind_inputs as inputs
from anyform.encoders.clip_pictures import normalised, picture
from anyform.encoders.clip_tokens import tokenise
from anyform.encoders.imagebind_network import ImageBind, ImageBindConfig, TrunkConfig
from anyform.errors import BadInput, LicenceNotAccepted, WeightsError
from anyform.types.prompt import Audio, Image, Sketch, Text
from anyform.weights import accepted_licences, open_tensors

if TYPE_CHECKING:
    from anyform.types.prompt import Prompt
    from anyform.weights import TensorFile

Channels = Literal["left", "mix"]
LICENCE = "CC BY-NC-SA 4.0"
LICENCE_URL = "https://github.com/facebookresearch/ImageBind/blob/main/LICENSE"
NAME = "imagebind"
CHECKPOINT = "imagebind_huge.pth"
ACCEPT_VARIABLE = "ANYFORM_ACCEPT_LICENCE"  # ids, separated by commas, for unattended use
_MASK = "modality_preprocessors.text.mask"


@dataclass(frozen=True, slots=True)
class ImageBindEncoder:
    """Loaded weights. channels: what is heard of a stereo file; "left" is parity with the public code."""

    model: ImageBind
    channels: Channels
    licence: str = LICENCE

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.model.config.dim

    @torch.inference_mode()
    def embed(self, prompt: Prompt) -> Tensor:
        """(dim,) float32, post-processed as released: of unit length for pictures alone, scaled and averaged over clips
        for sound; normalise before a cosine (XBind Eq. 2). Raises BadInput for prompts ImageBind has no input for.
        """
        modality, value = self._input(prompt)
        return self.model.embed(modality, value)[0]

    @torch.inference_mode()
    def features(self, prompt: Prompt) -> Tensor:
        """(dim,), or (3, dim) for the clips of a sound: the head's output, neither normalised nor scaled."""
        modality, value = self._input(prompt)
        return (
            self.model.features("audio", value[0]) if modality == "audio" else self.model.features(modality, value)[0]
        )

    def images(self, pictures: Tensor) -> Tensor:
        """Square renders (B, 3, H, H) in [0, 1] -> unit vectors (B, dim), differentiable in the pictures."""
        return self.model.embed("vision", normalised(pictures))

    def _input(self, prompt: Prompt) -> tuple[str, Tensor]:
        if isinstance(prompt, Text):
            return "text", torch.from_numpy(tokenise([prompt.text]))
        if isinstance(prompt, Sketch):
            import numpy as np

            paper = np.repeat(np.rint(255 * (1 - prompt.ink)).astype(np.uint8)[..., None], 3, -1)
            prompt = Image.from_rgba(paper)
        if isinstance(prompt, Image):
            return "vision", torch.from_numpy(picture(prompt))[None]
        if isinstance(prompt, Audio):
            return "audio", torch.from_numpy(inputs.sound(prompt, self.channels))[None]
        raise BadInput(
            f"ImageBind embeds Text, Image, Sketch and Audio prompts, not {type(prompt).__name__}: its depth, thermal"
            " and imu trunks take tensors, through model.embed(modality, value)"
        )


def load(path: str | Path, channels: Channels = "left") -> ImageBindEncoder:
    """`imagebind_huge.pth`, its safetensors, or a folder that holds one, on the CPU in float32.

    Sizes follow from the tensors; head counts from a `config.json` beside the file ({"heads": {"vision": 16, …}} or the
    public constructor's names, vision_num_heads) where a width is not a released one. Shows the licence unless it was
    accepted. Raises WeightsError where names, shapes or head counts do not fit, BadInput for another `channels`.
    """
    if channels not in ("left", "mix"):
        raise BadInput(f"channels is 'left' (as the public code) or 'mix', not {channels!r}")
    file = _find(Path(path))
    tensors = open_tensors(file)
    model = build(tensors, _heads(file.with_name("config.json")))
    if not is_accepted():
        warnings.warn(_notice(), UserWarning, stacklevel=2)
    return ImageBindEncoder(model, channels)


def is_accepted() -> bool:
    """Whether the licence was accepted on this machine or by the environment."""
    listed = {name.strip() for name in os.environ.get(ACCEPT_VARIABLE, "").split(",")}
    return NAME in listed or accepted_licences().get(NAME) == LICENCE


def require_licence() -> None:
    """Raise LicenceNotAccepted, with the licence, unless it was accepted."""
    if not is_accepted():
        raise LicenceNotAccepted(f"{_notice()}; repeat with --accept-licence {NAME}, or set {ACCEPT_VARIABLE}={NAME}")


def _notice() -> str:
    return f"ImageBind is under the licence {LICENCE}, no commercial use, what it guides included: read {LICENCE_URL}"


def build(tensors: TensorFile, heads: dict[str, int]) -> ImageBind:
    """The network that these tensors describe, filled. heads: modality -> heads where its width is not released."""
    config = infer(tensors, heads)
    with torch.device("meta"):
        model = ImageBind(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    missing, extra = sorted(wanted.keys() - set(tensors)), sorted(set(tensors) - wanted.keys())
    wrong = [name for name in wanted if name in set(tensors) and tensors.shape(name) != wanted[name]]
    if missing or extra or wrong:
        first = ", ".join((*missing[:2], *extra[:2], *wrong[:2]))
        raise WeightsError(
            f"{tensors.path.name!r} is no ImageBind checkpoint: {len(missing)} tensors are missing, {len(extra)}"
            f" unknown, {len(wrong)} of another shape, such as {first}"
        )
    state = {name: tensors.read(name, torch.float32) for name in wanted if name != _MASK}
    length = wanted[_MASK][0]
    state[_MASK] = torch.full((length, length), float("-inf")).triu(1)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def infer(tensors: TensorFile, heads: dict[str, int]) -> ImageBindConfig:
    """Sizes from the shapes. Raises WeightsError where a modality is missing or its head count cannot be known."""
    released = ImageBindConfig()

    def shape(name: str) -> tuple[int, ...]:
        if name not in set(tensors):
            raise WeightsError(f"{tensors.path.name!r} is no ImageBind checkpoint: it has no tensor {name}")
        return tensors.shape(name)

    trunks = {}
    for modality, known in released.trunks.items():
        stem = f"modality_preprocessors.{modality}"
        at = f"{stem}.pos_embed" if modality in ("text", "imu") else f"{stem}.pos_embedding_helper.pos_embed"
        _, tokens, width = shape(at)
        blocks = {name.split(".")[3] for name in tensors if name.startswith(f"modality_trunks.{modality}.blocks.")}
        hidden = shape(f"modality_trunks.{modality}.blocks.0.mlp.fc1.weight")[0]
        trunks[modality] = replace(
            known, width=width, tokens=tokens, layers=len(blocks), mlp_ratio=hidden // width,
            heads=_head_count(modality, width, known, heads),
        )  # fmt: skip
    dim = shape("modality_heads.vision.2.weight")[0]
    vocabulary = shape("modality_preprocessors.text.token_embedding.weight")[0]
    _, _, frames, patch, _ = shape("modality_preprocessors.vision.rgbt_stem.proj.1.weight")
    return replace(released, dim=dim, vocabulary=vocabulary, frames=frames, patch=patch, trunks=trunks)


def _head_count(modality: str, width: int, known: TrunkConfig, heads: dict[str, int]) -> int:
    count = heads.get(modality, known.heads if width == known.width else 0)
    if count < 1 or width % count:
        raise WeightsError(
            f"the {modality} trunk is {width} wide and not the released {known.width}: say in a config.json beside the"
            f' file how many heads it has, such as {{"heads": {{"{modality}": 4}}}}, a divisor of {width}'
        )
    return count


def _heads(path: Path) -> dict[str, int]:
    """Head counts of a config.json, empty where there is none."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError("the config.json beside the weights is no JSON that can be read") from error
    if not isinstance(config, dict):
        raise WeightsError("the config.json beside the weights is no table of settings")
    listed: Any = config.get("heads") or config.get("num_heads") or {}
    flat = {name.removesuffix("_num_heads"): count for name, count in config.items() if name.endswith("_num_heads")}
    found = {**flat, **(listed if isinstance(listed, dict) else {})}
    if not all(type(count) is int for count in found.values()):
        raise WeightsError("the head counts in config.json are whole numbers, one a modality")
    return found


def _find(path: Path) -> Path:
    """The checkpoint itself: the file given, or the one in a folder."""
    if path.is_file():
        return path
    found = sorted(path.glob("*.safetensors")) + sorted(path.glob("*.pth")) if path.is_dir() else []
    if len(found) != 1:
        raise WeightsError(
            f"there is no single ImageBind checkpoint at {path.name!r}: give the file, such as {CHECKPOINT}"
        )
    return found[0]
