"""Noise schedules: how much of a clean sample is left at each of T timesteps.

x_t = √ᾱ_t · x_0 + √(1 − ᾱ_t) · ε with ᾱ_t = Π (1 − β_i), t = 0..T−1, t = 0 the cleanest. Everything here is float64 on
the CPU: the last β of a re-spaced cosine chain is 1 − 1e-8, which float32 cannot hold. Cast where a value is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from anyform.errors import BadSetting


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSchedule:
    """betas, alphas_cumprod: (T,) float64, entry t for timestep t. Build it with `cosine` or `scaled_linear`."""

    betas: Float64[Tensor, "t"]
    alphas_cumprod: Float64[Tensor, "t"]

    @property
    def num_timesteps(self) -> int:
        """Length of the full chain; timesteps are 0 .. num_timesteps − 1."""
        return len(self.betas)

    def alpha_sigma(self, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """(√ᾱ_t, √(1 − ᾱ_t)) in float64, each of the shape of `t`."""
        alpha_bar = self.alphas_cumprod[t.cpu() if isinstance(t, Tensor) else t]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def add_noise(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε. x0, noise: (B, ...); t: one timestep or (B,)."""
        alpha, sigma = (broadcast(c, x0) for c in self.alpha_sigma(t))
        return alpha * x0 + sigma * noise


def broadcast(coefficient: float | Tensor, like: Tensor) -> Tensor:
    """A scalar or (B,) coefficient in the dtype and on the device of `like` (B, ...), shaped to multiply it."""
    value = torch.as_tensor(coefficient).to(device=like.device, dtype=like.dtype)
    return value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim == 1 else value


def _from_betas(betas: Tensor) -> NoiseSchedule:
    return NoiseSchedule(betas, torch.cumprod(1 - betas, 0))


def cosine(num_timesteps: int = 1000) -> NoiseSchedule:
    """β_i = min(1 − ᾱ((i+1)/T) / ᾱ(i/T), 0.999), ᾱ(u) = cos²((u + 0.008)/1.008 · π/2) (Nichol, Dhariwal, Eq. 17)."""
    _check(num_timesteps)
    u = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
    alpha_bar = torch.cos((u + 0.008) / 1.008 * (math.pi / 2)) ** 2
    return _from_betas((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999))


def scaled_linear(start: float, end: float, num_timesteps: int = 1000) -> NoiseSchedule:
    """√β linear from √start to √end (latent diffusion): Stable Diffusion 0.00085 to 0.012, WaLa's MVDream to 0.02."""
    _check(num_timesteps)
    if not 0 < start <= end < 1:
        raise BadSetting(f"a scaled-linear schedule needs 0 < start <= end < 1, but start is {start} and end {end}")
    return _from_betas(torch.linspace(start**0.5, end**0.5, num_timesteps, dtype=torch.float64) ** 2)


def zero_terminal(schedule: NoiseSchedule) -> NoiseSchedule:
    """The schedule with √ᾱ shifted and scaled so that the last one is 0 and the first stays (Lin et al., "Common
    Diffusion Noise Schedules and Sample Steps are Flawed", Algorithm 1): sampling then starts from what training saw.
    """
    root = schedule.alphas_cumprod.sqrt()
    alpha_bar = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
    betas = 1 - alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    return NoiseSchedule(betas, alpha_bar)


def _check(num_timesteps: int) -> None:
    if num_timesteps < 2:
        raise BadSetting(f"a noise schedule needs 2 timesteps or more, not {num_timesteps}")
