"""Zero-1-to-3: an object's picture and a relative camera to its picture from there (Liu et al., 2023).

Reads the original `.ckpt` (latent-diffusion names, `cc_projection`) with the model section of `<stem>.yaml` beside it,
and diffusers folders. Facts that decide the numbers (specs/xbind.md §0.7, §0.8, §8): the reference's latent is the mode
and is not scaled; the null is a zero token after the projection and a zero latent; the schedule is scaled-linear from
0.00085 to 0.012 whatever a converted folder says; moving averages are used where the file has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from anyform.diffusion.prior import Condition, Prior
from anyform.diffusion.schedule import NoiseSchedule, scaled_linear
from anyform.encoders.clip_towers import VisionTower, clip_pixels, config_of_openai, openai_name
from anyform.errors import WeightsError
from anyform.nn.autoencoder_kl import AutoencoderKL
from anyform.nn.unet2d import UNet2D
from anyform.priors import ldm_keys
from anyform.priors.denoiser import UNetDenoiser
from anyform.priors.folders import component_file, fill, load_autoencoder, load_tower, load_unet, read_json
from anyform.priors.latent_codec import LatentCodec
from anyform.weights import TensorFile, open_tensors

LICENCE = "Zero-1-to-3: MIT code, weights CreativeML OpenRAIL-M"
CAMERA = 4  # numbers of `relative_camera`
_SECTIONS = ("model.diffusion_model.", "first_stage_model.", "cc_projection.", "cond_stage_model.model.visual.")
_UNUSED = ("first_stage_model.loss.",)
_PROJECTIONS = ("cc_projection.", "projection.", "proj.", "")
# the released configuration (configs/sd-objaverse-finetune-c_concat-256.yaml of the authors), for a file without one
RELEASED: dict[str, Any] = {
    "linear_start": 0.00085,
    "linear_end": 0.012,
    "timesteps": 1000,
    "image_size": 32,
    "scale_factor": 0.18215,
    "unet_config": {
        "params": {
            "in_channels": 8, "out_channels": 4, "model_channels": 320, "attention_resolutions": [4, 2, 1],
            "num_res_blocks": 2, "channel_mult": [1, 2, 4, 4], "num_heads": 8, "use_spatial_transformer": True,
            "transformer_depth": 1, "context_dim": 768,
        }
    },
    "first_stage_config": {
        "params": {
            "embed_dim": 4,
            "ddconfig": {"z_channels": 4, "in_channels": 3, "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2},
        }
    },
}  # fmt: skip


def load(path: str | Path, ema: bool | None = None, *, device: str = "cpu") -> Prior:
    """A `.ckpt`, its safetensors copy, or a diffusers folder -> the prior. `condition(image, camera)`.

    image: (1, 3, H, W) in [0, 1], the object on white; camera: (B, 4) of `relative_camera`. ema: the checkpoint's
    moving averages; None = where present, True = required, False = the raw weights. Raises WeightsError.
    """
    path = Path(path)
    return _from_folder(path, device) if path.is_dir() else _from_checkpoint(path, ema, device)


def _from_folder(folder: Path, device: str) -> Prior:
    unet, vae = load_unet(folder, device), load_autoencoder(folder, device)
    clip = load_tower(folder / "image_encoder", device, vision=True)
    assert isinstance(clip, VisionTower)
    place = next(
        (folder / name for name in ("cc_projection", "clip_camera_projection") if (folder / name).is_dir()), None
    )
    if place is None:
        raise WeightsError(f"{folder.name} has neither cc_projection nor clip_camera_projection: it is no Zero-1-to-3")
    projection = _projection(open_tensors(component_file(place)), device)
    size = read_json(folder / "unet" / "config.json").get("sample_size", 32)
    return _assemble(unet, vae, clip, projection, scaled_linear(0.00085, 0.012, 1000), int(size))


def _from_checkpoint(path: Path, ema: bool | None, device: str) -> Prior:
    section = model_section(path)
    tensors = _without_prefix(open_tensors(path))
    with torch.device("meta"):
        unet = UNet2D(ldm_keys.unet_config(section["unet_config"]["params"]))
        vae = AutoencoderKL(
            ldm_keys.autoencoder_config(section["first_stage_config"]["params"], section["scale_factor"])
        )
        visual = {
            name.removeprefix(_SECTIONS[3]): tensors.shape(name) for name in tensors if name.startswith(_SECTIONS[3])
        }
        if "conv1.weight" not in visual:
            raise WeightsError(f"{path.name!r} has no CLIP vision tower: it is no Zero-1-to-3 checkpoint")
        clip = VisionTower(config_of_openai(visual))
    raw = {name: f"diffusion_model.{ldm_keys.unet_name(name, unet.config)}" for name in unet.state_dict()}
    averaged = {name: ldm_keys.ema_name(theirs) for name, theirs in raw.items()}
    has_ema = next(iter(averaged.values())) in tensors
    if ema and not has_ema:
        raise WeightsError(f"{path.name!r} carries no moving averages: load it with ema=False")
    plain = {name: f"model.{theirs}" for name, theirs in raw.items()}
    maps: list[tuple[nn.Module, dict[str, str]]] = [
        (unet, averaged if has_ema and ema is not False else plain),
        (vae, {n: f"{_SECTIONS[1]}{ldm_keys.autoencoder_name(n, vae.config)}" for n in vae.state_dict()}),
        (clip, {n: f"{_SECTIONS[3]}{openai_name(n)[0]}" for n in clip.state_dict()}),
    ]
    for module, theirs in maps:
        fill(module, tensors, theirs, device, _pick)
    projection = _projection(tensors.renamed({n: n for n in tensors if n.startswith(_SECTIONS[2])}), device)
    read = [*plain.values(), *maps[1][1].values(), *maps[2][1].values(), "cc_projection.weight", "cc_projection.bias"]
    extra = [one for one in ldm_keys.unused(tensors, read, _SECTIONS) if not one.startswith(_UNUSED)]
    if extra:
        raise WeightsError(f"{path.name!r} holds {len(extra)} tensors its configuration has no place for: {extra[0]!r}")
    schedule = scaled_linear(section["linear_start"], section["linear_end"], section["timesteps"])
    return _assemble(unet, vae, clip, projection, schedule, int(section["image_size"]))


def model_section(path: Path) -> dict[str, Any]:
    """`model.params` of the `<stem>.yaml` beside a checkpoint (JSON is YAML), over the released values.

    Raises WeightsError for a file that is no such configuration.
    """
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        return dict(RELEASED)
    import yaml

    try:
        table = yaml.safe_load(beside.read_text(encoding="utf-8"))
        params = table["model"]["params"]
        section = {**RELEASED, **{key: params[key] for key in RELEASED if key in params}}
        _ = section["unet_config"]["params"], section["first_stage_config"]["params"]["ddconfig"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise WeightsError(f"{beside.name!r} has no model.params of a latent-diffusion model: {error!r}") from error
    return section


def _without_prefix(file: TensorFile) -> TensorFile:
    """Names of the state dict itself, whether it was nested in a Lightning file or not."""
    nested = {name.removeprefix("state_dict."): name for name in file if name.startswith("state_dict.")}
    return file.renamed(nested) if nested else file


def _pick(value: Tensor, name: str) -> Tensor:
    """What our parameter takes of a tensor in another layout: a third of joined projections, a transposed matrix, a
    1×1 convolution as a matrix."""
    if name.startswith(("vision_model.", "visual_projection.")):
        _, third, transposed = openai_name(name)
        value = value if third is None else value.chunk(3)[third]
        return value.mT if transposed else value
    return value[:, :, 0, 0] if ".attentions.0.to_" in name and value.ndim == 4 else value


def _projection(tensors: TensorFile, device: str) -> nn.Linear:
    """The one Linear of a file, under any of the names it is published with."""
    prefix = next((one for one in _PROJECTIONS if f"{one}weight" in tensors), None)
    if prefix is None:
        raise WeightsError(f"there is no cc_projection among {_first(tensors)}")
    width, width_in = tensors.shape(f"{prefix}weight")
    with torch.device("meta"):
        linear = nn.Linear(width_in, width)
    fill(linear, tensors, {"weight": f"{prefix}weight", "bias": f"{prefix}bias"}, device)
    return linear


def _first(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:3]) or "no tensors"


def _assemble(
    unet: UNet2D, vae: AutoencoderKL, clip: VisionTower, projection: nn.Linear, schedule: NoiseSchedule, size: int
) -> Prior:
    """The prior of networks that fit together; size: edge of the latents."""
    if projection.in_features != clip.config.projected + CAMERA or projection.out_features != unet.config.token_width:
        raise WeightsError(
            f"cc_projection is {projection.in_features} to {projection.out_features}, but CLIP gives "
            f"{clip.config.projected} and {CAMERA} and the U-Net reads {unet.config.token_width}"
        )
    codec = LatentCodec(vae)
    factor = 2 ** (len(vae.config.widths) - 1)

    def condition(image: Tensor, camera: Tensor) -> Condition:
        pixels = image.to(projection.weight)
        if pixels.shape[-2:] != (size * factor, size * factor):
            edge = (size * factor, size * factor)
            pixels = functional.interpolate(pixels, edge, mode="bicubic", antialias=True).clamp(0, 1)
        seen = clip(clip_pixels(pixels, clip.size)).expand(len(camera), -1)
        tokens = projection(torch.cat([seen, camera.to(seen)], -1))[:, None]
        return Condition(tokens=tokens, image_latent=codec.mode(pixels).expand(len(camera), -1, -1, -1))

    def null(condition: Condition) -> Condition:
        assert condition.tokens is not None and condition.image_latent is not None
        blank = torch.zeros_like(condition.image_latent)
        return Condition(tokens=torch.zeros_like(condition.tokens), image_latent=blank)

    return Prior(
        denoiser=UNetDenoiser(unet, schedule, "eps"),
        codec=codec,
        schedule=schedule,
        condition=condition,
        null=null,
        licence=LICENCE,
        image_size=size * factor,
        latent_shape=(unet.config.channels_out, size, size),
    )
