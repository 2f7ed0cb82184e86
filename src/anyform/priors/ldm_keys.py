"""Names of the latent-diffusion code (`.ckpt`) for the parameters of our networks, which carry diffusers' names.

Walking our own parameters and asking for each one's foreign name makes a map complete by construction; a strict load
then shows what the file lacks, and `unused` what nobody asked for. Source: specs/xbind.md §8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from anyform.errors import WeightsError
from anyform.nn.autoencoder_kl import AutoencoderConfig
from anyform.nn.unet2d import UNet2DConfig

_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}


def unet_name(name: str, config: UNet2DConfig) -> str:
    """A parameter of `UNet2D` -> its name below `model.diffusion_model.`."""
    body, _, kind = name.rpartition(".")
    if body in _TOP:
        return f"{_TOP[body]}.{kind}"
    parts = name.split(".")
    if parts[0] == "mid_block":
        role, index, rest = parts[1], int(parts[2]), ".".join(parts[3:])
        return f"middle_block.{1 if role == 'attentions' else 2 * index}.{_inner(rest, role)}"
    level, role, index, rest = int(parts[1]), parts[2], int(parts[3]), ".".join(parts[4:])
    per_level = config.layers + 1
    if parts[0] == "down_blocks":
        if role == "downsamplers":
            return f"input_blocks.{(level + 1) * per_level}.0.op.{kind}"
        return f"input_blocks.{1 + level * per_level + index}.{int(role == 'attentions')}.{_inner(rest, role)}"
    if role == "upsamplers":
        attends = config.attends[len(config.widths) - 1 - level]
        return f"output_blocks.{(level + 1) * per_level - 1}.{1 + attends}.conv.{kind}"
    return f"output_blocks.{level * per_level + index}.{int(role == 'attentions')}.{_inner(rest, role)}"


def _inner(rest: str, role: str) -> str:
    """Inside a residual block names differ, inside a transformer they do not."""
    if role != "resnets":
        return rest
    part, _, kind = rest.partition(".")
    return f"{_RESIDUAL[part]}.{kind}"


def autoencoder_name(name: str, config: AutoencoderConfig) -> str:
    """A parameter of `AutoencoderKL` -> its name below `first_stage_model.`."""
    parts = name.split(".")
    if parts[0] in {"quant_conv", "post_quant_conv"} or parts[1] in {"conv_in", "conv_out"}:
        return name
    half, kind = parts[0], parts[-1]
    if parts[1] == "conv_norm_out":
        return f"{half}.norm_out.{kind}"
    if parts[1] == "mid_block" and parts[2] == "attentions":
        return f"{half}.mid.attn_1.{_ATTENTION[parts[4]]}.{kind}"
    if parts[1] == "mid_block":
        return f"{half}.mid.block_{int(parts[3]) + 1}.{_shortcut(parts[4])}.{kind}"
    level = int(parts[2])
    where = f"down.{level}" if half == "encoder" else f"up.{len(config.widths) - 1 - level}"
    if parts[3] in {"downsamplers", "upsamplers"}:
        return f"{half}.{where}.{parts[3].removesuffix('rs')}.conv.{kind}"
    return f"{half}.{where}.block.{parts[4]}.{_shortcut(parts[5])}.{kind}"


def _shortcut(part: str) -> str:
    return "nin_shortcut" if part == "conv_shortcut" else part


def ema_name(name: str) -> str:
    """A name below `model.` -> the one of its moving average: dots are left out (`LitEma`)."""
    return "model_ema." + name.replace(".", "")


def unet_config(table: Mapping[str, Any]) -> UNet2DConfig:
    """`unet_config.params` of a latent-diffusion configuration -> ours. Raises WeightsError for another structure."""
    if not table.get("use_spatial_transformer") or table.get("transformer_depth", 1) != 1:
        raise WeightsError("this checkpoint's U-Net has no spatial transformer of depth 1, as Stable Diffusion's has")
    multipliers, base = tuple(table["channel_mult"]), table["model_channels"]
    widths = tuple(base * one for one in multipliers)
    resolutions, head_width = set(table["attention_resolutions"]), table.get("num_head_channels", -1)
    heads = tuple(width // head_width if head_width > 0 else table["num_heads"] for width in widths)
    return UNet2DConfig(
        channels_in=table["in_channels"],
        channels_out=table["out_channels"],
        widths=widths,
        attends=tuple(2**level in resolutions for level in range(len(widths))),
        layers=table["num_res_blocks"],
        heads=heads,
        groups=32,
        token_width=table["context_dim"],
        labels=table.get("adm_in_channels") or 0,
        linear=bool(table.get("use_linear_in_transformer", False)),
    )


def autoencoder_config(table: Mapping[str, Any], scaling: float) -> AutoencoderConfig:
    """`first_stage_config.params` -> ours."""
    inner = table["ddconfig"]
    return AutoencoderConfig(
        widths=tuple(inner["ch"] * one for one in inner["ch_mult"]),
        layers=inner["num_res_blocks"],
        latent=table.get("embed_dim", inner["z_channels"]),
        channels=inner["in_channels"],
        scaling=scaling,
    )


def unused(names: Iterable[str], used: Iterable[str], prefixes: tuple[str, ...]) -> list[str]:
    """The names under the prefixes that nobody read, in order."""
    asked = set(used)
    return sorted(name for name in names if name.startswith(prefixes) and name not in asked)
