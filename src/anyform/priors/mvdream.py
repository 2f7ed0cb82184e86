"""MVDream: one sentence -> consistent pictures from several cameras, by Stable Diffusion 2.1 that looks at all at once.

Two changes to the U-Net (Shi et al., "MVDream: Multi-view Diffusion for 3D Generation", §3.1): self attention runs over
the tokens of all views of an object together, and a perceptron of each view's camera is added to the time embedding.
Released WaLa reads text through it: fine-tuned, it draws six depth maps or four renders (WaLa supplement E). Files are
the original one-file layout: `model.diffusion_model.*`, `first_stage_model.*`, `cond_stage_model.model.*`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from anyform.diffusion.guidance import classifier_free
from anyform.diffusion.prediction import Prediction
from anyform.diffusion.samplers import ddim_step
from anyform.diffusion.schedule import NoiseSchedule, scaled_linear
from anyform.encoders.open_clip_text import OpenClipText, OpenClipTextConfig
from anyform.errors import BadInput, WeightsError
from anyform.nn.autoencoder_kl import AutoencoderConfig, AutoencoderKL
from anyform.nn.ldm_keys import AUTOENCODER_PREFIX, UNET_PREFIX, autoencoder_names, averaged_name, unet_names
from anyform.nn.unet2d import Attention, UNet2D, UNet2DConfig
from anyform.types.camera import Cameras
from anyform.types.progress import Progress, Report, silent
from anyform.weights import TensorFile, Tensors, memory, open_tensors
from anyform.weights.filling import check_complete, fill

# Cameras of the WaLa renders that its front ends draw: view id -> azimuth, elevation in degrees (specs/wala.md §8).
VIEWS = {
    0: (57.37415476, 13.47771793), 3: (57.26659092, 25.34236163), 6: (140.94213862, 12.91862734),
    10: (230.76201332, 13.27249801), 26: (319.80819418, 16.43987141), 49: (360.0, 60.0), 50: (0.0, -60.0),
}  # fmt: skip
DEPTH_VIEWS, COLOUR_VIEWS = (3, 6, 10, 26, 49, 50), (0, 6, 10, 26)
GUIDANCE, STEPS = 10.0, 50
_TO_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
_HALVING = re.compile(r"model\.diffusion_model\.input_blocks\.(\d{1,3})\.0\.op\.weight")
_HEAD = 64  # channels
_WORKING_BYTES = 3_000_000_000  # features of 12 frames at 32² and the decoder at 256²; estimated, not measured
# Constants of the schedule, averaged weights, and what the penultimate layer does not use.
_IGNORED = re.compile(
    r"betas|(sqrt_|log_)?(recip(m1)?_)?(one_minus_)?alphas_cumprod(_prev)?|sqrt_recip(m1)?_alphas_cumprod|posterior_\w+"
    r"|lvlb_weights|scale_factor|logvar|model_ema\..*|cond_stage_model\.model\.(logit_scale|text_projection|attn_mask)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MVDreamConfig:
    """Sizes. Defaults: the released networks; image: edge of a picture in pixels."""

    unet: UNet2DConfig = field(
        default_factory=lambda: UNet2DConfig(
            attends=(True, True, True, False), heads=(5, 10, 20, 20), token_width=1024, labels=16, linear=True
        )
    )
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text: OpenClipTextConfig = field(default_factory=OpenClipTextConfig)
    image: int = 256


class JointAttention(Attention):
    """Self attention over the tokens of all `frames` views of an object at once: (B·F, N, W) -> the same."""

    frames = 1

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Each run of `frames` samples is one sequence."""
        joined = x.reshape(len(x) // self.frames, self.frames * x.shape[1], x.shape[2])
        return super().forward(joined, context).reshape(x.shape)


class MVDream(nn.Module):
    """Text tower, U-Net and autoencoder; `draw` is the whole way from a sentence to pictures."""

    def __init__(self, config: MVDreamConfig) -> None:
        super().__init__()
        self.config = config
        self.unet, self.autoencoder = UNet2D(config.unet), AutoencoderKL(config.autoencoder)
        self.text = OpenClipText(config.text)
        for name, module in list(self.unet.named_modules()):
            if name.endswith(".attn1"):
                width = module.to_q.in_features  # type: ignore[union-attr]
                block = self.unet.get_submodule(name.removesuffix(".attn1"))
                block.attn1 = JointAttention(width, width, module.heads)  # type: ignore[arg-type]

    def predict(
        self,
        x_t: Float[Tensor, "f c h w"],
        t: Tensor,
        tokens: Float[Tensor, "f l d"],
        cameras: Float[Tensor, "f p"],
        frames: int,
    ) -> Tensor:
        """The noise in the frames of one or more objects, `frames` of each after the other."""
        for module in self.unet.modules():
            if isinstance(module, JointAttention):
                module.frames = frames
        weight = self.unet.conv_in.weight
        return self.unet(x_t.to(weight), t, tokens.to(weight), cameras.to(weight)).to(x_t)

    @torch.inference_mode()
    def draw(
        self,
        text: str,
        cameras: Float[Tensor, "v p"],
        *,
        seed: int,
        num_inference_steps: int = STEPS,
        guidance_scale: float = GUIDANCE,
        report: Report = silent,
    ) -> np.ndarray:
        """(V, S, S, 3) uint8 pictures of one object from `cameras` (`camera_vectors`), noise drawn on the CPU."""
        if not text.strip():
            raise BadInput("MVDream needs words: the text is empty")
        device, views = self.unet.conv_in.weight.device, len(cameras)
        tokens = self.text.read(["", as_asset(text)]).repeat_interleave(views, 0)
        both = torch.cat([cameras, cameras]).to(device)
        generator = torch.Generator().manual_seed(seed)
        edge = self.config.image // 2 ** (len(self.config.autoencoder.widths) - 1)
        noise = torch.randn(views, self.config.autoencoder.latent, edge, edge, generator=generator)

        def denoise(x: Tensor, t: int) -> Tensor:
            times = torch.full((2 * views,), t, device=device)
            without, with_text = self.predict(torch.cat([x, x]), times, tokens, both, views).chunk(2)
            return classifier_free(with_text, without, guidance_scale)

        latent = sample(denoise, noise.to(device), num_inference_steps, report)
        return self.pictures(latent)

    def pictures(self, latent: Float[Tensor, "v c h w"]) -> np.ndarray:
        """Scaled latents -> (V, S, S, 3) uint8, one at a time, truncated as the public code does."""
        unscaled = latent.to(self.autoencoder.post_quant_conv.weight) / self.config.autoencoder.scaling
        images = [self.autoencoder.decode(one[None])[0].float().cpu() for one in unscaled]
        values = ((torch.stack(images) + 1) / 2).clamp(0, 1) * 255
        return values.to(torch.uint8).permute(0, 2, 3, 1).numpy()


def schedule() -> NoiseSchedule:
    """√β linear from √0.00085 to √0.02: not Stable Diffusion's 0.012."""
    return scaled_linear(0.00085, 0.02, 1000)


def trailing(num_steps: int, num_timesteps: int = 1000) -> list[int]:
    """Timesteps of the sampler, cleanest first, the last of them included: 50 steps are 19, 39, …, 999."""
    if not 2 <= num_steps <= num_timesteps or num_timesteps % num_steps:
        raise BadInput(f"MVDream samples with 2 to {num_timesteps} steps that divide {num_timesteps}, not {num_steps}")
    stride = num_timesteps // num_steps
    return list(range(stride - 1, num_timesteps, stride))


def sample(denoise: Callable[[Tensor, int], Tensor], noise: Tensor, num_steps: int, report: Report) -> Tensor:
    """Deterministic DDIM on the noise predictions of `denoise(x, t)`; the last step goes to ᾱ_0, not to 1."""
    chain, x = schedule(), noise
    alphas, steps = chain.alphas_cumprod, trailing(num_steps)
    for done, index in enumerate(reversed(range(num_steps)), 1):
        t = steps[index]
        prediction = Prediction.from_eps(denoise(x, t), x, *chain.alpha_sigma(t))
        x = ddim_step(prediction, float(alphas[steps[index - 1]] if index else alphas[0]))
        report(Progress("draw views", done, num_steps))
    return x


def as_asset(text: str) -> str:
    """The sentence as the network knows it: ", 3d asset" at its end, unless it speaks of 3d itself."""
    return text if "3d" in text.lower() else f"{text}, 3d asset"


def camera_vectors(views: Sequence[int]) -> Float[Tensor, "v 16"]:
    """Camera-to-world matrices on the unit sphere, z up, row by row, of WaLa's view ids."""
    angles = np.radians([VIEWS[view] for view in views])
    cameras = Cameras.orbit(angles[:, 0], angles[:, 1], 1.0, 1.0, 1)
    return torch.from_numpy((_TO_Z_UP @ cameras.camera_to_world).reshape(len(views), 16)).float()


def load(path: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32, ema: bool | None = None) -> MVDream:
    """The file `checkpoint.ckpt` of a folder, or a file: Lightning's, a bare state dict, or safetensors of either.

    ema: take the averaged U-Net that some files hold beside the weights; None = where there is one. Raises WeightsError
    for anything but exactly these tensors, OutOfMemory before reading what does not fit.
    """
    tensors = _unwrapped(open_tensors(path / "checkpoint.ckpt" if path.is_dir() else path))
    config = infer(tensors)
    with torch.device("meta"):
        model = MVDream(config).to(dtype)
    count = sum(value.numel() for value in model.state_dict().values())
    memory.require(count * dtype.itemsize + _WORKING_BYTES, device, "MVDream")
    names = {
        "unet": unet_names(model.unet, model.config.unet, "camera_embed"),
        "autoencoder": autoencoder_names(model.autoencoder, model.config.autoencoder),
        "text": {name: f"cond_stage_model.model.{name}" for name in model.text.state_dict()},
    }
    what = "MVDream"
    wanted = [name for part in names.values() for name in part.values()]
    check_complete(wanted, tensors, ignored=_IGNORED, what=what)
    averaged = {ours: averaged_name(theirs) for ours, theirs in names["unet"].items()}
    is_averaged = set(averaged.values()) <= set(tensors)
    if ema and not is_averaged:
        raise WeightsError("this MVDream checkpoint holds no averaged weights: load it with ema=False")
    if is_averaged and ema is not False:
        names["unet"] = averaged
    for part, table in names.items():
        fill(model.get_submodule(part), tensors, table, device, what=what)
    return model.eval().requires_grad_(False)


def infer(tensors: Tensors) -> MVDreamConfig:
    """Sizes from the shapes; heads are 64 channels wide. Raises WeightsError for another layout."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in present:
            raise WeightsError(f"this is no MVDream checkpoint: the tensor {name} is missing; nothing was loaded")
        return tensors.shape(name)

    present, unet = set(tensors), UNET_PREFIX
    halving = [int(found[1]) for found in map(_HALVING.fullmatch, present) if found]
    layers = min(halving, default=1) - 1
    if layers < 1:
        raise WeightsError("this is no MVDream checkpoint: its U-Net never halves the size; nothing was loaded")
    first = [f"{unet}input_blocks.{1 + level * (layers + 1)}" for level in range(len(halving) + 1)]
    widths = tuple(shape(f"{block}.0.in_layers.2.weight")[0] for block in first)
    attends = tuple(f"{block}.1.norm.weight" in present for block in first)
    middle = f"{unet}middle_block.1"
    autoencoder, down = AUTOENCODER_PREFIX, f"{AUTOENCODER_PREFIX}encoder.down"
    levels = sum(f"{down}.{level}.block.0.conv1.weight" in present for level in range(9))
    text = "cond_stage_model.model."
    width = shape(f"{text}positional_embedding")[1]
    return MVDreamConfig(
        unet=UNet2DConfig(
            channels_in=shape(f"{unet}input_blocks.0.0.weight")[1],
            channels_out=shape(f"{unet}out.2.weight")[0],
            widths=widths,
            attends=attends,
            layers=layers,
            heads=tuple(one // _HEAD for one in widths),
            token_width=shape(f"{middle}.transformer_blocks.0.attn2.to_k.weight")[1],
            labels=shape(f"{unet}camera_embed.0.weight")[1],
            linear=len(shape(f"{middle}.proj_in.weight")) == 2,
        ),
        autoencoder=AutoencoderConfig(
            widths=tuple(shape(f"{down}.{level}.block.0.conv1.weight")[0] for level in range(levels)),
            layers=sum(f"{down}.0.block.{layer}.conv1.weight" in present for layer in range(9)),
            latent=shape(f"{autoencoder}post_quant_conv.weight")[0],
        ),
        text=OpenClipTextConfig(
            vocabulary=shape(f"{text}token_embedding.weight")[0],
            width=width,
            layers=sum(f"{text}transformer.resblocks.{n}.ln_1.weight" in present for n in range(99)),
            heads=width // _HEAD,
        ),
    )


def _unwrapped(file: TensorFile) -> Tensors:
    """Names without "state_dict." and, where a Lightning module holds the model, its "model."."""
    names = {name.removeprefix("state_dict."): name for name in file}
    if any(name.startswith("model.model.diffusion_model.") for name in names):
        names = {name.removeprefix("model."): old for name, old in names.items() if name.startswith("model.")}
    return file.renamed(names)
