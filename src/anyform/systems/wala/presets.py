"""The models of WaLa's supplement as configurations: its own, and every ablation of tables 1 and 2.

A preset says what to train; `published` is what the supplement reports for it, for a run of ours to stand beside.
Table 1 (VQ-VAE): IoU and MSE over all items, D- with every data set weighted equally. Table 2 (diffusion, 400 k
iterations): light-field distance, IoU, Chamfer distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from torch import Tensor

from anyform.systems.wala.codec import CodecConfig
from anyform.systems.wala.training_codec import Rebalance
from anyform.systems.wala.uvit import UVitConfig
from anyform.systems.wala.vqvae import VQVAE

_ITERATIONS_TABLE_2 = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One row of the supplement's tables."""

    codec: CodecConfig = field(default_factory=CodecConfig)
    uvit: UVitConfig = field(default_factory=UVitConfig)
    loss: Rebalance = "rebalanced"  # "dense" = without the adaptive sampled loss
    balanced_per_dataset: int = 10_000  # shapes of each data set in the fine-tuning of the VQ-VAE; 0 = none
    latent: Literal["pre", "post"] = "pre"  # diffusion on the latent before or after quantisation
    iterations: int | None = None  # where the supplement says
    published: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def diffusion_target(self, vqvae: VQVAE, packed: Tensor) -> Tensor:
        """Packed coefficients (B, 64, c, c, c) -> the clean latent that the denoiser learns (supplement C.4)."""
        latent = vqvae.encode(packed)
        return latent if self.latent == "pre" else vqvae.quantise(latent)[0]


def _vqvae(iou: float, mse: float, d_iou: float, d_mse: float) -> Mapping[str, float]:
    return MappingProxyType({"iou": iou, "mse": mse, "d_iou": d_iou, "d_mse": d_mse})


def _diffusion(lfd: float, iou: float, chamfer: float) -> Mapping[str, float]:
    return MappingProxyType({"lfd": lfd, "iou": iou, "chamfer": chamfer})


def paper() -> Preset:
    """The released model: both tables' chosen rows."""
    return Preset(iterations=_ITERATIONS_TABLE_2, published=_diffusion(1507.43, 0.8199, 0.001482))


def vqvae_dense_loss() -> Preset:
    """Table 1, row 1: no adaptive sampled loss, no balanced fine-tuning, 200 k iterations."""
    published = _vqvae(0.91597, 0.00270, 0.91597, 0.00270)
    return Preset(loss="dense", balanced_per_dataset=0, iterations=200_000, published=published)


def vqvae_sampled_loss(converged: bool = True) -> Preset:
    """Table 1, rows 2 (200 k iterations) and 3 (converged): the sampled loss, no balanced fine-tuning."""
    if converged:
        return Preset(balanced_per_dataset=0, published=_vqvae(0.95479, 0.00090, 0.94093, 0.00169))
    published = _vqvae(0.92619, 0.00136, 0.91754, 0.00229)
    return Preset(balanced_per_dataset=0, iterations=200_000, published=published)


def vqvae_balanced(per_dataset: Literal[2500, 5000, 10_000, 20_000] = 10_000) -> Preset:
    """Table 1, rows 4 to 7: fine-tuned on as many shapes of each data set; 10,000 were chosen."""
    published = {
        2_500: _vqvae(0.95966, 0.00078, 0.94808, 0.00149),
        5_000: _vqvae(0.95873, 0.00078, 0.94793, 0.00149),
        10_000: _vqvae(0.95979, 0.00078, 0.94820, 0.00148),
        20_000: _vqvae(0.95707, 0.00079, 0.94659, 0.00150),
    }
    return Preset(balanced_per_dataset=per_dataset, published=published[per_dataset])


def uvit_width(width: Literal[384, 768, 1152]) -> Preset:
    """Table 2: U-ViT of other widths with 32 blocks. The widest is `paper`; 384 beats 768 in the published numbers."""
    published = {384: _diffusion(1523.74, 0.8211, 0.001544), 768: _diffusion(1618.73, 0.7966, 0.001540)}
    return replace(paper(), uvit=UVitConfig(width=width), published=published.get(width, paper().published))


def uvit_depth(depth: Literal[8, 16, 32]) -> Preset:
    """Table 2: U-ViT with fewer blocks at width 1152. The deepest is `paper`."""
    published = {8: _diffusion(1596.88, 0.8020, 0.001561), 16: _diffusion(1521.81, 0.8237, 0.001573)}
    return replace(paper(), uvit=UVitConfig(depth=depth), published=published.get(depth, paper().published))


def dit() -> Preset:
    """Table 2: a diffusion transformer in place of the U-ViT.

    The supplement does not print its layers; read as the same transformer without the residual convolutions around it.
    """
    uvit = UVitConfig(num_res_blocks=0, condition_channels=None)
    return replace(paper(), uvit=uvit, published=_diffusion(1527.16, 0.8145, 0.001602))


def post_quantisation() -> Preset:
    """Table 2: diffusion on the quantised latent."""
    return replace(paper(), latent="post", published=_diffusion(1576.07, 0.8176, 0.001695))
