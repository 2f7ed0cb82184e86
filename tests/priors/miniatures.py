"""Tiny Zero-1-to-3 checkpoints with random weights, in exactly the layouts that the released ones have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyform.encoders.clip_towers import TowerConfig, VisionTower, openai_name
from anyform.nn.autoencoder_kl import AutoencoderKL
from anyform.nn.unet2d import UNet2D
from anyform.priors import ldm_keys

SECTION: dict[str, Any] = {
    "linear_start": 0.00085,
    "linear_end": 0.012,
    "timesteps": 1000,
    "image_size": 8,
    "scale_factor": 0.2,
    "unet_config": {
        "params": {
            "in_channels": 8, "out_channels": 4, "model_channels": 32, "attention_resolutions": [2],
            "num_res_blocks": 1, "channel_mult": [1, 2], "num_heads": 2, "use_spatial_transformer": True,
            "transformer_depth": 1, "context_dim": 16, "legacy": False,
        }
    },
    "first_stage_config": {
        "params": {
            "embed_dim": 4,
            "ddconfig": {
                "z_channels": 4, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1,
            },
        }
    },
}  # fmt: skip
TOWER = TowerConfig(width=64, layers=2, heads=1, hidden=96, patch=4, length=4, projected=16)


def ldm_state(seed: int = 0) -> dict[str, Tensor]:
    """The state dict of a checkpoint, moving averages included, with tensors that training leaves lying about."""
    torch.manual_seed(seed)
    unet = UNet2D(ldm_keys.unet_config(SECTION["unet_config"]["params"]))
    vae = AutoencoderKL(ldm_keys.autoencoder_config(SECTION["first_stage_config"]["params"], 0.2))
    state: dict[str, Tensor] = {"betas": torch.zeros(1000), "model_ema.decay": torch.tensor(0.9999)}
    for name, value in unet.state_dict().items():
        theirs = f"diffusion_model.{ldm_keys.unet_name(name, unet.config)}"
        raw = torch.randn(value.shape) * 0.08 + (1 if "norm" in name and name.endswith("weight") else 0)
        state[f"model.{theirs}"] = raw
        state[ldm_keys.ema_name(theirs)] = raw * 1.05
    for name, value in vae.state_dict().items():
        convolution = ".attentions.0.to_" in name and name.endswith("weight")
        given = torch.randn(value.shape) * 0.08 + (1 if "norm" in name and name.endswith("weight") else 0)
        theirs = ldm_keys.autoencoder_name(name, vae.config)
        state[f"first_stage_model.{theirs}"] = given[:, :, None, None] if convolution else given
    state["first_stage_model.loss.logvar"] = torch.zeros(())
    state["cc_projection.weight"], state["cc_projection.bias"] = torch.randn(16, 20) * 0.2, torch.randn(16)
    return state | {f"cond_stage_model.model.visual.{name}": value for name, value in openai_tower().items()}


def openai_tower() -> dict[str, Tensor]:
    """A vision tower in OpenAI's layout: q, k and v in one matrix, the projection as (width, projected)."""
    thirds: dict[str, list[Tensor]] = {}
    state: dict[str, Tensor] = {}
    for name, value in VisionTower(TOWER).state_dict().items():
        theirs, third, transposed = openai_name(name)
        given = torch.randn(value.shape) * 0.15
        if third is None:
            state[theirs] = given.mT.contiguous() if transposed else given
        else:
            thirds.setdefault(theirs, [torch.empty(0)] * 3)[third] = given
    return state | {name: torch.cat(parts) for name, parts in thirds.items()}


def write_checkpoint(folder: Path, state: dict[str, Tensor], section: dict[str, Any] | None = None) -> Path:
    """`mini.ckpt` as Lightning writes it, `mini.yaml` beside it."""
    path = folder / "mini.ckpt"
    torch.save({"state_dict": state, "global_step": 7, "epoch": 0}, path)
    table = {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": section or SECTION}}
    path.with_suffix(".yaml").write_text(json.dumps(table), encoding="utf-8")
    return path
