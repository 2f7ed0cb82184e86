"""OpenCLIP through transformers: pictures and sentences -> one space. ViT-H/14 (1,024) is what SD-2.1-unCLIP reads.

A folder of a CLIPModel holds both towers; the `image_encoder` of a diffusers folder holds the picture's alone. Tokens
and pictures are prepared here (`clip_tokens.py`, `clip_pictures.py`), so that no processor's rounding comes between.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from anyform.encoders.clip_pictures import normalised, picture
from anyform.encoders.clip_tokens import tokenise
from anyform.encoders.transformers_folder import library
from anyform.errors import BadInput, WeightsError
from anyform.types.prompt import Image, Text

if TYPE_CHECKING:
    from anyform.types.prompt import Prompt

LICENCE = "MIT"


@dataclass(frozen=True, slots=True)
class ClipEncoder:
    """The towers that the folder held, projections included; `text` is None where it held the picture's alone."""

    vision: Callable[[Tensor], Tensor]  # normalised pictures (B, 3, size, size) -> (B, dim)
    text: Callable[[Tensor], Tensor] | None  # ids (B, 77) -> (B, dim)
    size: int  # pixels
    dim: int

    @torch.inference_mode()
    def embed(self, prompt: Prompt) -> Tensor:
        """(dim,) of unit length. Raises BadInput for anything but Image and Text."""
        return functional.normalize(self.features(prompt), dim=-1)

    @torch.inference_mode()
    def features(self, prompt: Prompt) -> Tensor:
        """(dim,) projected and not normalised: the scale in which SD-2.1-unCLIP takes it."""
        if isinstance(prompt, Image):
            return self.vision(torch.from_numpy(picture(prompt, self.size))[None])[0]
        if isinstance(prompt, Text):
            if self.text is None:
                raise BadInput("these CLIP weights hold the picture tower alone: load a CLIPModel folder for sentences")
            return self.text(torch.from_numpy(tokenise([prompt.text])))[0]
        raise BadInput(f"CLIP embeds Image and Text prompts, not {type(prompt).__name__}")

    def images(self, pictures: Tensor) -> Tensor:
        """Square renders (B, 3, H, H) in [0, 1] -> unit vectors (B, dim), differentiable in the pictures."""
        return functional.normalize(self.vision(normalised(pictures, self.size)), dim=-1)


def load(path: str | Path) -> ClipEncoder:
    """A transformers folder (`config.json` and safetensors), on the CPU in float32. No network is touched.

    Raises WeightsError where the folder is not one, lacks a tensor, or holds pickles only; MissingDependency.
    """
    folder = Path(path)
    if (folder / "image_encoder").is_dir():
        folder = folder / "image_encoder"
    kind = _model_type(folder)
    transformers = library()
    if kind == "clip_vision_model":
        tower = _read(transformers.CLIPVisionModelWithProjection, folder)
        config = tower.config
        return ClipEncoder(lambda pixels: tower(pixels).image_embeds, None, config.image_size, config.projection_dim)
    both = _read(transformers.CLIPModel, folder)

    def vision(pixels: Tensor) -> Tensor:
        return both.visual_projection(both.vision_model(pixels).pooler_output)

    def text(ids: Tensor) -> Tensor:
        return both.text_projection(both.text_model(ids).pooler_output)

    return ClipEncoder(vision, text, both.config.vision_config.image_size, both.config.projection_dim)


def _model_type(folder: Path) -> str:
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder.name!r} is no CLIP folder: it has no config.json of transformers") from error
    if kind not in ("clip", "clip_vision_model"):
        raise WeightsError(f"{folder.name!r} holds a model of type {kind!r}, not CLIP or its picture tower")
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(f"{folder.name!r} holds no safetensors: make some with `anyform weights convert`")
    return str(kind)


def _read(kind: Any, folder: Path) -> Any:
    """The model of the folder, every tensor of its own shape there and none left over but saved position numbers."""
    try:
        model, found = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{folder.name!r} does not load as {kind.__name__}: {str(error)[:120]}") from error
    extra = sorted(name for name in found["unexpected_keys"] if not name.endswith("position_ids"))
    wrong = sorted({*found["missing_keys"], *extra, *(str(row[0]) for row in found["mismatched_keys"])})
    if wrong:
        raise WeightsError(f"{folder.name!r} disagrees with {kind.__name__} in {len(wrong)} tensors, first {wrong[0]}")
    return model.eval().requires_grad_(False)
