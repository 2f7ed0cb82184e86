"""Text encoders and latent codecs of diffusers folders, through transformers and diffusers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyform.diffusion.prior import Codec
from anyform.errors import MissingDependency, WeightsError
from anyform.systems.tunemv3d.foundation import Caption

TOKENS = 77  # of CLIP, and of the T5 states that DeepFloyd-IF was trained with


def text_reader(folder: Path, pipeline: str, device: str) -> tuple[int, Callable[[Sequence[str]], Caption]]:
    """(width of the tokens, texts -> Caption) of a pipeline's own text encoder: T5 for IFPipeline, else CLIP.

    States of all `TOKENS` places, padding included, as the pipelines feed them.
    """
    if find_spec("transformers") is None:
        raise MissingDependency("transformers", extra="foundations")
    from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

    model_type: Any = T5EncoderModel if pipeline == "IFPipeline" else CLIPTextModel
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        model = model_type.from_pretrained(folder / "text_encoder", local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsError(f"the text encoder of {folder.name} cannot be read: {reason}") from error
    model = model.eval().requires_grad_(False).to(device)
    is_masked = pipeline == "IFPipeline"

    @torch.no_grad()
    def captions(texts: Sequence[str]) -> Caption:
        read = tokenizer(list(texts), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").to(
            device
        )
        mask = {"attention_mask": read.attention_mask} if is_masked else {}
        return Caption(model(read.input_ids, **mask).last_hidden_state.float())

    width = model.config.d_model if is_masked else model.config.hidden_size
    return int(width), captions


class AutoencoderCodec:
    """A diffusers AutoencoderKL: pictures in [0, 1] <-> scaled latents, by the mode and never a draw."""

    def __init__(self, network: Any) -> None:
        self.network = network.eval().requires_grad_(False)
        self.scale = float(network.config.scaling_factor)

    @property
    def factor(self) -> int:
        """Pixels a latent sample."""
        return 2 ** (len(self.network.config.block_out_channels) - 1)

    def encode(self, sample: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, S / factor, S / factor)."""
        return self.network.encode(sample * 2 - 1).latent_dist.mode() * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """Inverse of `encode`, as far as the network goes, cut to [0, 1]."""
        return ((self.network.decode(latent / self.scale).sample + 1) / 2).clamp(0, 1)


def latent_codec(folder: Path, device: str) -> tuple[Codec, tuple[float, ...], int]:
    """The autoencoder of a folder, white in its latents, and its pixels a sample."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    kind: Any = AutoencoderKL
    try:
        network = kind.from_pretrained(folder / "vae", local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsError(f"the autoencoder of {folder.name} cannot be read: {reason}") from error
    codec = AutoencoderCodec(network.to(device))
    edge = 8 * codec.factor
    with torch.no_grad():
        white = codec.encode(torch.ones(1, 3, edge, edge, device=device))
    return codec, tuple(white.mean((0, 2, 3)).tolist()), codec.factor
