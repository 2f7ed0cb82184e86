"""The configuration of a released WaLa checkpoint, read from the shapes of its tensors (specs/wala.md §9).

`args.json` is asked only for what no tensor shows: SDF size, padding, schedule, view ids. Tensors keep their old names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyform.diffusion.samplers import Variance
from anyform.encoders.dinov2 import Dinov2Config
from anyform.encoders.pointnet import PointNetConfig
from anyform.encoders.voxels import VoxelEncoderConfig
from anyform.errors import WeightsError
from anyform.systems.wala.conditions_released import ReleasedConditionConfig
from anyform.systems.wala.uvit import UVitConfig
from anyform.systems.wala.vqvae import VQVAEConfig
from anyform.systems.wala.wavelet_tree import Padding, level_sizes
from anyform.weights import Tensors

_MAX_ARGS_BYTES = 2**20
_DINO_HEAD_WIDTH = 64  # of every published DINOv2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedConfig:
    """Everything about a released model but its weights. `condition` is None for an unconditional one."""

    vqvae: VQVAEConfig
    uvit: UVitConfig
    condition: ReleasedConditionConfig | None
    sdf_size: int = 256
    padding: Padding = "constant"
    num_timesteps: int = 1000  # of the cosine schedule
    variance: Variance = "fixed_small"


class _Shapes:
    """Shapes by released name; asking for one that is not there says that this is another model."""

    def __init__(self, tensors: Tensors) -> None:
        self._shapes = {name: tensors.shape(name) for name in tensors}

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def of(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of one tensor. Raises WeightsError where it is missing, empty or has other dimensions."""
        shape = self._shapes.get(name)
        if shape is None or len(shape) != dimensions or 0 in shape:
            found = "is missing" if shape is None else f"has the shape {shape}, expected {dimensions} dimensions"
            raise WeightsError(f"this is no released WaLa checkpoint: the tensor {name} {found}; nothing was loaded")
        return shape

    def count(self, prefix: str) -> int:
        """1 + the highest N of `prefix.N.…`, 0 where there is none."""
        pattern = re.compile(re.escape(prefix) + r"\.(\d{1,6})\.")
        return max((int(m[1]) + 1 for m in map(pattern.match, self._shapes) if m is not None), default=0)


def infer(tensors: Tensors, args: Mapping[str, Any]) -> ReleasedConfig:
    """tensors: released names without checkpoint prefixes; only their shapes are asked for.

    Raises WeightsError for another architecture.
    """
    _require(args, "wavelet", "bior6.8")
    _require(args, "max_depth", 3)
    _require(args, "max_training_level", 2)
    _require(args, "diffusion_beta_schedule", "cosine")
    mean_type = str(args.get("diffusion_model_mean_type") or "START_X")
    if "START_X" not in mean_type.upper():
        raise WeightsError(f"args.json predicts {mean_type}, released WaLa predicts START_X: this is another model")
    shapes = _Shapes(tensors)
    uvit = _uvit(shapes, args)
    sdf_size = _natural(args, "resolution", 256)
    vqvae = _vqvae(shapes, args, level_sizes(sdf_size)[-1])
    if vqvae.latent_size != uvit.grid:
        raise WeightsError(
            f"an SDF of {sdf_size}³ (args.json: resolution) gives a latent of {vqvae.latent_size}³, "
            f"the denoiser works on {uvit.grid}³: the two files do not belong together"
        )
    padding = args.get("padding_mode") or "constant"
    if padding not in ("constant", "zero"):
        raise WeightsError(f"args.json has padding_mode {padding!r}, known are 'constant' and 'zero'")
    return ReleasedConfig(
        vqvae=vqvae,
        uvit=uvit,
        condition=_condition(shapes, args) if "network.cond_pos_emb" in shapes else None,
        sdf_size=sdf_size,
        padding=padding,
        num_timesteps=_natural(args, "diffusion_step", 1000),
        variance="fixed_large" if "LARGE" in str(args.get("diffusion_model_var_type")).upper() else "fixed_small",
    )


def _uvit(shapes: _Shapes, args: Mapping[str, Any]) -> UVitConfig:
    _, tokens, width = shapes.of("network.unet.pos_emb", 3)
    channels = shapes.of("network.unet.conv_in.weight", 5)[0]
    patch = _root(shapes.of("network.unet.to_patch_att_embedding_input.1.weight", 1)[0] // channels, "patch")
    skip = "network.unet.output_blocks.0.skip_learn_f.0.weight"
    condition_width = 0
    for reader in ("context_mlp.0", "global_proj.proj_layer.0", "res_cond_proj_layer.proj_layer.0"):
        if f"network.unet.{reader}.weight" in shapes:
            condition_width = shapes.of(f"network.unet.{reader}.weight", 2)[1]
            break
    factor = "network.unet.res_cond_proj_layer.mlp.2.weight"
    registers = "network.unet.register_emb"
    return UVitConfig(
        latent_channels=shapes.of("network.unet.out.2.weight", 5)[0],
        grid=_root(tokens, "position embedding") * patch,
        width=width,
        depth=shapes.count("network.unet.blocks"),
        heads=width // shapes.of("network.unet.blocks.0.attn.q_norm.weight", 1)[0],
        channels=channels,
        num_res_blocks=shapes.count("network.unet.input_blocks"),
        patch=patch,
        condition_width=condition_width,
        condition_channels=shapes.of(factor, 2)[0] if factor in shapes else None,
        pooled_modulation="network.unet.global_proj.mlp.2.weight" in shapes,
        registers=shapes.of(registers, 2)[0] if registers in shapes else 0,
        learnable_skip=channels // shapes.of(skip, 2)[0] if skip in shapes else 0,
        fixed_positions=bool(args.get("with_fix_pos")),
        block="cross" if "network.unet.blocks.0.cross_attn.q.weight" in shapes else "dit",
        mlp_ratio=shapes.of("network.unet.blocks.0.mlp.fc1.weight", 2)[0] // width,
    )


def _vqvae(shapes: _Shapes, args: Mapping[str, Any], packed_size: int) -> VQVAEConfig:
    hidden, packed = shapes.of("autoencoder.encoder.in_conv.weight", 5)[:2]
    codes, code_width = shapes.of("autoencoder.quantize.embedding.weight", 2)
    return VQVAEConfig(
        packed_channels=packed,
        packed_size=packed_size,
        widths=(hidden, hidden, hidden),
        latent_channels=shapes.of("autoencoder.encoder.out_conv.2.weight", 5)[0],
        codebook_size=codes,
        code_width=code_width,
        commitment=float(args.get("beta") or 0.25),
        normalised_codes=args.get("normalize_latent") == "l2_norm",
        transformer_blocks=(
            shapes.count("autoencoder.encoder.t_blocks"),
            shapes.count("autoencoder.decoder.t_blocks"),
        ),
    )


def _condition(shapes: _Shapes, args: Mapping[str, Any]) -> ReleasedConditionConfig:
    _, num_tokens, width = shapes.of("network.cond_pos_emb", 3)
    cameras = "network.camera_emb.weight"
    views = args.get("training_views")
    if views is not None and (not isinstance(views, list) or not all(type(view) is int for view in views)):
        raise WeightsError(f"args.json has training_views {views!r}, expected a list of view ids")
    num_cameras = shapes.of(cameras, 2)[0] if cameras in shapes else 0
    if views and num_cameras and len(views) > num_cameras:
        raise WeightsError(f"args.json names {len(views)} training_views, the checkpoint has {num_cameras} cameras")
    return ReleasedConditionConfig(
        encoder=_encoder(shapes, num_tokens, width),
        width=width,
        num_tokens=num_tokens,
        is_depth=bool(args.get("use_depth_conditions")),
        num_cameras=num_cameras,
        training_views=tuple(views) if views and num_cameras else None,
        mapping_layers=shapes.count("network.cond_mapping_network"),
    )


def _encoder(shapes: _Shapes, num_tokens: int, width: int) -> Dinov2Config | PointNetConfig | VoxelEncoderConfig:
    if "clip_model.dinov2.cls_token" in shapes:
        vit = shapes.of("clip_model.dinov2.cls_token", 3)[2]
        return Dinov2Config(
            width=vit,
            depth=shapes.count("clip_model.dinov2.blocks"),
            heads=max(vit // _DINO_HEAD_WIDTH, 1),
            patch=shapes.of("clip_model.dinov2.patch_embed.proj.weight", 4)[2],
            trained_cells=_root(shapes.of("clip_model.dinov2.pos_embed", 3)[1] - 1, "DINOv2 positions", 2),
            registers=shapes.of("clip_model.dinov2.register_tokens", 3)[1],
            mlp_ratio=shapes.of("clip_model.dinov2.blocks.0.mlp.fc1.weight", 2)[0] // vit,
        )
    if "encoder.pooling.I" in shapes:
        _, queries, points = shapes.of("encoder.pooling.I", 3)
        hidden = tuple(shapes.of(f"encoder.ln{n}.weight", 1)[0] for n in (1, 2, 3))
        return PointNetConfig(
            point_widths=(hidden[0], hidden[1], hidden[2]),
            width=points,
            num_tokens=queries,
            context_width=width,
            heads=points // shapes.of("encoder.pooling.mab0.q_norm.weight", 1)[0],
            depth=shapes.count("encoder.t_blocks"),
            simple="encoder.linear_f1.weight" in shapes,
        )
    if "encoder.res_6.in_norm.weight" in shapes:
        return VoxelEncoderConfig(
            resolution=2 * _root(num_tokens, "voxel tokens"),
            stem=shapes.of("encoder.in_conv.weight", 5)[0],
            hidden=shapes.of("encoder.res_6.in_norm.weight", 1)[0],
            context_width=width,
        )
    raise WeightsError(
        "this is no released WaLa checkpoint: it has no image, point or voxel encoder; nothing was loaded"
    )


def _root(count: int, what: str, power: int = 3) -> int:
    root = round(max(count, 0) ** (1 / power))
    if root < 1 or root**power != count:
        raise WeightsError(
            f"this is no released WaLa checkpoint: its {what} has {count} entries, no whole power {power}"
        )
    return root


def _require(args: Mapping[str, Any], name: str, expected: object) -> None:
    """A field of args.json that decides the architecture may be absent, but not different."""
    if args.get(name) not in (None, expected):
        raise WeightsError(f"args.json has {name} = {args[name]!r}, anyform reads WaLa with {expected!r}")


def _natural(args: Mapping[str, Any], name: str, default: int) -> int:
    value = args.get(name) if args.get(name) is not None else default
    if type(value) is not int or not 2 <= value <= 4096:
        raise WeightsError(f"args.json has {name} = {value!r}, expected a whole number from 2 to 4096")
    return value


def read_args(path: Path) -> dict[str, Any]:
    """The fields of `args.json`. Raises WeightsError where it is absent, larger than 1 MB, or no JSON object."""
    try:
        if path.stat().st_size > _MAX_ARGS_BYTES:
            raise WeightsError(f"{path.name} has {path.stat().st_size} bytes, at most {_MAX_ARGS_BYTES} are read")
        args = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path.name} cannot be read beside the checkpoint: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path.name} is no JSON: fetch it again") from error
    if not isinstance(args, dict):
        raise WeightsError(f"{path.name} is no JSON object: fetch it again")
    return args
