"""Names of the tensors in original latent-diffusion checkpoints (one `.ckpt`), for networks with diffusers' names.

A table maps our name to theirs, both up to the trailing `.weight` or `.bias`; the places of blocks follow from the
configuration. Zero-1-to-3, SD-unCLIP's and MVDream's originals share this layout (Rombach et al., public code).
"""

from __future__ import annotations

import re

from torch import nn

from anyform.nn.autoencoder_kl import AutoencoderConfig
from anyform.nn.unet2d import UNet2DConfig

UNET_PREFIX, AUTOENCODER_PREFIX = "model.diffusion_model.", "first_stage_model."

_RESIDUAL = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_PIXEL_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
Places = dict[str, tuple[str, dict[str, str]]]  # our block -> (their block, {our layer: theirs})


def unet_names(unet: nn.Module, config: UNet2DConfig, labels: str = "label_emb.0") -> dict[str, str]:
    """Our name -> theirs for every tensor of a `UNet2D`. labels: what the checkpoint calls the layers of the labels."""
    places: Places = {
        "conv_in": ("input_blocks.0.0", {}),
        "time_embedding": ("time_embed", {"linear_1": "0", "linear_2": "2"}),
        "class_embedding": (labels, {"linear_1": "0", "linear_2": "2"}),
        "mid_block.resnets.0": ("middle_block.0", _RESIDUAL),
        "mid_block.attentions.0": ("middle_block.1", {}),
        "mid_block.resnets.1": ("middle_block.2", _RESIDUAL),
        "conv_norm_out": ("out.0", {}),
        "conv_out": ("out.2", {}),
    }
    levels = len(config.widths)
    for level in range(levels):
        for layer in range(config.layers):
            theirs = f"input_blocks.{1 + level * (config.layers + 1) + layer}"
            places[f"down_blocks.{level}.resnets.{layer}"] = (f"{theirs}.0", _RESIDUAL)
            places[f"down_blocks.{level}.attentions.{layer}"] = (f"{theirs}.1", {})
        theirs = f"input_blocks.{(level + 1) * (config.layers + 1)}.0"
        places[f"down_blocks.{level}.downsamplers.0"] = (theirs, {"conv": "op"})
        for layer in range(config.layers + 1):
            theirs = f"output_blocks.{level * (config.layers + 1) + layer}"
            places[f"up_blocks.{level}.resnets.{layer}"] = (f"{theirs}.0", _RESIDUAL)
            places[f"up_blocks.{level}.attentions.{layer}"] = (f"{theirs}.1", {})
        behind = 1 + config.attends[levels - 1 - level]
        theirs = f"output_blocks.{level * (config.layers + 1) + config.layers}.{behind}"
        places[f"up_blocks.{level}.upsamplers.0"] = (theirs, {})
    return _names(unet, places, UNET_PREFIX)


def autoencoder_names(autoencoder: nn.Module, config: AutoencoderConfig) -> dict[str, str]:
    """Our name -> theirs for every tensor of an `AutoencoderKL`."""
    shortcut = {"conv_shortcut": "nin_shortcut"}
    places: Places = {name: (name, {}) for name in ("quant_conv", "post_quant_conv")}
    for side, path in (("encoder", "down"), ("decoder", "up")):
        places[f"{side}.conv_in"] = (f"{side}.conv_in", {})
        places[f"{side}.conv_norm_out"] = (f"{side}.norm_out", {})
        places[f"{side}.conv_out"] = (f"{side}.conv_out", {})
        places[f"{side}.mid_block.resnets.0"] = (f"{side}.mid.block_1", shortcut)
        places[f"{side}.mid_block.resnets.1"] = (f"{side}.mid.block_2", shortcut)
        places[f"{side}.mid_block.attentions.0"] = (f"{side}.mid.attn_1", _PIXEL_ATTENTION)
        for level in range(len(config.widths)):
            theirs = f"{side}.{path}.{level if path == 'down' else len(config.widths) - 1 - level}"
            for layer in range(config.layers + 1):
                places[f"{side}.{path}_blocks.{level}.resnets.{layer}"] = (f"{theirs}.block.{layer}", shortcut)
            places[f"{side}.{path}_blocks.{level}.{path}samplers.0"] = (f"{theirs}.{path}sample", {})
    return _names(autoencoder, places, AUTOENCODER_PREFIX)


def averaged_name(name: str) -> str:
    """The exponential moving average of a U-Net's tensor, in checkpoints that keep one beside the weights."""
    return "model_ema." + name.removeprefix("model.").replace(".", "")


def _names(module: nn.Module, places: Places, prefix: str) -> dict[str, str]:
    names = {}
    for name in module.state_dict():
        block = next((ours for ours in places if name.startswith(f"{ours}.")), None)
        if block is None:
            raise KeyError(f"no latent-diffusion name is known for {name}")
        theirs, layers = places[block]
        rest = name[len(block) + 1 :]
        for ours, layer in layers.items():
            rest = re.sub(rf"^{re.escape(ours)}(?=\.)", layer, rest)
        names[name] = f"{prefix}{theirs}.{rest}"
    return names
