"""Random foundations of every family, small enough for a test: our U-Net, four diffusers U-Nets, a transformer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyform.diffusion.schedule import cosine
from anyform.nn.unet2d import UNet2D, UNet2DConfig
from anyform.systems.tunemv3d.foundation import Backbone, Caption, Foundation, FoundationSpec, PixelCodec
from anyform.systems.tunemv3d.foundation_diffusers import DiffusersBackbone, TransformerBackbone
from anyform.systems.tunemv3d.foundation_unet import UNetBackbone
from anyform.types.camera import Cameras

SIZE = 16


def shaken(network: torch.nn.Module) -> Any:
    """No weight is zero, so that every path of the network shows in its output."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return network


def captions_of(width: int, vectors: dict[str, int] | None = None) -> Callable[[Sequence[str]], Caption]:
    """Text -> random numbers that depend on the text alone."""

    def draw(text: str, *shape: int) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    def captions(texts: Sequence[str]) -> Caption:
        tokens = torch.stack([draw(text, 5, width) for text in texts])
        named = {
            name: torch.stack([draw(text + name, size) for text in texts]) for name, size in (vectors or {}).items()
        }
        return Caption(tokens, named)

    return captions


def assembled(
    backbone: Backbone, *, channels: int = 3, packing: int = 1, width: int = 16, vectors: dict[str, int] | None = None,
    **spec: Any,
) -> Foundation:  # fmt: skip
    """A pixel foundation around a backbone."""
    facts: dict[str, Any] = {"id": "test/tiny", "revision": "0", "reading": "eps", "licence": "CC0-1.0", **spec}
    return Foundation(
        spec=FoundationSpec(
            kind="pixel", channels=channels, size=SIZE, picture_size=SIZE, packing=packing, token_width=width,
            background=(1.0,) * channels, guidance_scale=3.0, **facts,
        ),
        backbone=backbone,
        schedule=cosine(1000),
        codec=PixelCodec(),
        captions=captions_of(width, vectors),
    )  # fmt: skip


def ours(seed: int = 0, **spec: Any) -> Foundation:
    """The embedded foundation's structure: pictures folded by 2, class labels, v-prediction."""
    torch.manual_seed(seed)
    config = UNet2DConfig(
        channels_in=12, channels_out=12, widths=(16, 16), attends=(False, True), layers=1, heads=(2, 2), groups=8,
        token_width=16, labels=8,
    )  # fmt: skip
    facts = {"reading": "v", **spec}
    return assembled(UNetBackbone(shaken(UNet2D(config))), packing=2, vectors={"labels": 8}, **facts)


_SD: dict[str, Any] = {
    "sample_size": SIZE, "in_channels": 4, "out_channels": 4, "block_out_channels": (16, 32), "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 16, "attention_head_dim": 4, "norm_num_groups": 8,
}  # fmt: skip
_IF: dict[str, Any] = {
    "sample_size": SIZE, "layers_per_block": 1, "block_out_channels": [32, 64], "in_channels": 3, "out_channels": 6,
    "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
    "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "cross_attention_dim": 32, "attention_head_dim": 8,
    "resnet_time_scale_shift": "scale_shift",
}  # fmt: skip
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "stable-diffusion": (_SD, {"channels": 4}),
    "sdxl": (
        {
            **_SD, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": (1, 2),
            "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 80,
        },
        {"channels": 4, "vectors": {"text_embeds": 32, "time_ids": 6}},
    ),
    "deepfloyd-if": (
        {
            **_IF, "encoder_hid_dim": 32, "addition_embed_type": "text", "addition_embed_type_num_heads": 2,
            "cross_attention_norm": "group_norm", "act_fn": "gelu",
        },
        {"width": 32},
    ),
    "karlo": (
        {**_IF, "attention_head_dim": 4, "class_embed_type": "identity"},
        {"width": 32, "vectors": {"class_labels": 128}},
    ),
}  # fmt: skip


def diffusers_unet(family: str) -> Foundation:
    """One of FAMILIES."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.manual_seed(0)
    config, spec = FAMILIES[family]
    return assembled(DiffusersBackbone(shaken(UNet2DConditionModel(**config))), **spec)


def transformer() -> Foundation:
    """PixArt's structure, four blocks of which two are copied."""
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    torch.manual_seed(0)
    network = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=4, norm_num_groups=8,
        cross_attention_dim=16, sample_size=SIZE, patch_size=2, caption_channels=16, use_additional_conditions=False,
    )  # fmt: skip
    return assembled(TransformerBackbone(shaken(network), depth=2), channels=4)


ALL: dict[str, Callable[[], Foundation]] = {
    "ours": ours,
    **{family: (lambda family=family: diffusers_unet(family)) for family in FAMILIES},
    "transformer": transformer,
}


def orbit(views: int = 4, size: int = SIZE) -> Cameras:
    """Even azimuths, alternating elevations."""
    azimuth = np.arange(views) * 2 * np.pi / views
    elevation = np.radians(np.where(np.arange(views) % 2, -5.0, 20.0))
    return Cameras.orbit(azimuth, elevation, 3.0, np.radians(40.0), size)


def embedded_file(path: Path, seed: int = 0) -> Path:
    """A tiny random foundation in the file format of runs/embedded_foundation.py, reading the shipped text encoder."""
    from safetensors.torch import save_file

    from anyform.nn.int8 import quantise
    from anyform.priors.embedded import PriorConfig, PriorNetwork

    torch.manual_seed(seed)
    config = PriorConfig(
        image_size=SIZE, widths=(16, 16), attends=(False, True), heads=(2, 2), groups=8, token_width=16, joint=8
    )
    network = shaken(PriorNetwork(config))
    save_file(quantise(network.state_dict()), path, {"config": config.to_json(), "licence": "CC0-1.0"})
    return path
