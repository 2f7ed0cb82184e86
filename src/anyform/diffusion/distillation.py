"""Distillation: the gradient that a frozen prior gives to a picture, as pure functions.

Each returns a gradient **per sample** (B, ...), which an optimiser subtracts from the latent (or picture): no mean over
the batch, no graph. `denoise(x_t, t) -> Prediction` is guided already; x_t is the variance-preserving noisy latent
α z + σ ε. Weightings, with ᾱ of the timestep: `one_minus_abar` 1 − ᾱ, `one_minus_sqrt_abar` 1 − √ᾱ, `uniform` 1,
`sqrt_abar` √ᾱ (1 − ᾱ).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from anyform.diffusion.prediction import Prediction
from anyform.diffusion.prior import Codec
from anyform.diffusion.schedule import NoiseSchedule, broadcast
from anyform.errors import BadSetting

Weighting = Literal["one_minus_abar", "one_minus_sqrt_abar", "uniform", "sqrt_abar"]
Denoise = Callable[[Tensor, int | Tensor], Prediction]


def weight(schedule: NoiseSchedule, timestep: int | Tensor, weighting: str) -> Tensor:
    """w(t) in float64, of the shape of `timestep`. Raises BadSetting for a weighting that has no name above."""
    alpha, sigma = schedule.alpha_sigma(timestep)
    if weighting == "one_minus_abar":
        return sigma**2
    if weighting == "one_minus_sqrt_abar":
        return 1 - alpha
    if weighting == "uniform":
        return torch.ones_like(alpha)
    if weighting == "sqrt_abar":
        return alpha * sigma**2
    raise BadSetting(
        f"there is no weighting {str(weighting)[:40]!r}; there are one_minus_abar, one_minus_sqrt_abar, uniform, "
        "sqrt_abar"
    )


def sds(
    denoise: Denoise,
    latent: Tensor,
    timestep: int | Tensor,
    noise: Tensor,
    schedule: NoiseSchedule,
    weighting: str = "one_minus_sqrt_abar",
) -> Tensor:
    """Score distillation: g = w(t) (ε̂(z_t) − ε) for latents z (B, ...), noise like them, t one timestep or (B,).

    With ε̂ − ε = (α/σ)(z − ẑ) it is also the residual to the prior's own clean latent ẑ.
    Implements: XBind Eq. 4
    """
    latent = latent.detach()
    with torch.no_grad():
        said = denoise(schedule.add_noise(latent, noise, timestep), timestep)
        return broadcast(weight(schedule, timestep, weighting), latent) * (said.eps - noise)


def sds_image(
    denoise: Denoise,
    image: Tensor,
    codec: Codec,
    timestep: int | Tensor,
    noise: Tensor,
    schedule: NoiseSchedule,
    weighting: str = "one_minus_sqrt_abar",
) -> tuple[Tensor, Tensor]:
    """Score distillation with its second half in picture space: (g_latent, g_image), from one call of the denoiser.

    g_latent is `sds` of z = encode(image); g_image = w(t) (α/σ) (image − x̂), x̂ = decode(ẑ) clamped to [0, 1]. image
    (B, 3, H, W) in [0, 1]; noise like the latent; x̂ of another size is resized to the image's.
    Implements: XBind Eq. 5
    """
    image = image.detach()
    with torch.no_grad():
        latent = codec.encode(image)
        return sds_pair(denoise, latent, image, codec, timestep, noise, schedule, weighting)


@torch.no_grad()
def sds_pair(
    denoise: Denoise,
    latent: Tensor,
    image: Tensor,
    codec: Codec,
    timestep: int | Tensor,
    noise: Tensor,
    schedule: NoiseSchedule,
    weighting: str = "one_minus_sqrt_abar",
) -> tuple[Tensor, Tensor]:
    """`sds_image` for a picture whose latent is known already, so that it is encoded once where gradients are kept."""
    latent, image = latent.detach(), image.detach()
    said = denoise(schedule.add_noise(latent, noise, timestep), timestep)
    scale = weight(schedule, timestep, weighting)
    seen = codec.decode(said.x0).clamp(0, 1)
    if seen.shape[-2:] != image.shape[-2:]:
        seen = torch.nn.functional.interpolate(seen, image.shape[-2:], mode="bilinear", antialias=True)
    alpha, sigma = schedule.alpha_sigma(timestep)
    of_image = broadcast(scale * alpha / sigma, image) * (image - seen)
    return broadcast(scale, latent) * (said.eps - noise), of_image


def cds(
    denoise: Denoise,
    latent: Tensor,
    t1: int | Tensor,
    t2: int | Tensor,
    noise: Tensor,
    schedule: NoiseSchedule,
    clamp: float | None = None,
) -> Tensor:
    """Consistency distillation: g = w (ε̂₁ − ε̂₂) between two points of one deterministic trajectory, w = 1 − ᾱ_{t1}.

    With s = σ/α and the fixed noise ε*: z₁ = z + s₁ ε*, ε̂₁ = ε̂(z₁/√(1+s₁²), t1); z₂ = z₁ + (s₂ − s₁) ε̂₁ is the Euler
    step towards the cleaner t2; ε̂₂ = ε̂(z₂/√(1+s₂²), t2). t1 > t2, one timestep or (B,). NaN becomes 0, and the
    gradient is clamped to ±clamp where it is given.
    Implements: XBind Eq. 3
    Differs: minimised as printed, ‖D(z₁) − sg D(z₂)‖² moves the latent the other way and diverges (a test shows it on
    a Gaussian); this is the step of the public Consistent3D code that the equation cites, specs/xbind.md §0.3.
    """
    latent = latent.detach()
    (alpha1, sigma1), (alpha2, sigma2) = schedule.alpha_sigma(t1), schedule.alpha_sigma(t2)
    s1, s2 = broadcast(sigma1 / alpha1, latent), broadcast(sigma2 / alpha2, latent)
    with torch.no_grad():
        first = latent + s1 * noise
        eps1 = denoise(broadcast(alpha1, latent) * first, t1).eps
        second = first + (s2 - s1) * eps1
        eps2 = denoise(broadcast(alpha2, latent) * second, t2).eps
        gradient = torch.nan_to_num(broadcast(sigma1**2, latent) * (eps1 - eps2))
        return gradient if clamp is None else gradient.clamp(-clamp, clamp)


def vsd(
    denoise: Denoise,
    learned: Denoise,
    latent: Tensor,
    timestep: int | Tensor,
    noise: Tensor,
    schedule: NoiseSchedule,
    weighting: str = "one_minus_abar",
) -> Tensor:
    """Variational score distillation: g = w(t) (ε̂(z_t) − ε̂_φ(z_t)) (Wang et al., ProlificDreamer, Eq. 9).

    `learned` is the prior's copy that is trained on the renders themselves (`vsd_loss`); where it knows their true
    score the gradient vanishes at the prior's own distribution, not at its mode.
    """
    latent = latent.detach()
    with torch.no_grad():
        x_t = schedule.add_noise(latent, noise, timestep)
        difference = denoise(x_t, timestep).eps - learned(x_t, timestep).eps
        return broadcast(weight(schedule, timestep, weighting), latent) * difference


def vsd_loss(
    learned: Denoise, latent: Tensor, timestep: int | Tensor, noise: Tensor, schedule: NoiseSchedule
) -> Tensor:
    """How badly `learned` denoises the renders' latents (B, ...): mean (ε̂_φ − ε)², differentiable in φ alone."""
    said = learned(schedule.add_noise(latent.detach(), noise, timestep), timestep)
    return (said.eps - noise).square().mean()


def surrogate(value: Tensor, gradient: Tensor) -> Tensor:
    """½ ‖value − sg(value − gradient)‖² summed, over B: a scalar whose gradient in `value` (B, ...) is gradient / B.

    Its own number is ½‖gradient‖²/B, what a log shows of a distillation term.
    """
    target = (value - gradient).detach()
    return 0.5 * (value - target).square().sum() / len(value)
