"""Samplers: from noise to a sample in n steps, each a flat function over `denoise(x_t, t) -> Prediction`.

`timesteps` are ascending indices into the original schedule; a sampler walks them from the last to the first. Before
the first one stands ᾱ = 1, so the last step returns the predicted x_0 itself. Coefficients are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from anyform.diffusion.prediction import Prediction
from anyform.diffusion.schedule import NoiseSchedule, broadcast
from anyform.errors import BadSetting

Denoise = Callable[[Tensor, int], Prediction]
Variance = Literal["fixed_small", "fixed_large"]


def spaced_timesteps(n: int, num_timesteps: int = 1000) -> list[int]:
    """n ascending timesteps from 0 to T − 1, evenly spaced (Nichol and Dhariwal, section 4; specs: WaLa's sampler).

    The position is accumulated and rounded half to even: k·(T − 1)/(n − 1) in one product differs for 283 values of n
    up to 1000, the first being 21. n = 1 gives [0], which no sampler here accepts: it would call pure noise clean.
    """
    if not 1 <= n <= num_timesteps:
        raise BadSetting(
            f"{n} sampling steps cannot be spread over {num_timesteps} timesteps: use 2 to {num_timesteps}"
        )
    stride = (num_timesteps - 1) / max(n - 1, 1)
    position, timesteps = 0.0, []
    for _ in range(n):
        timesteps.append(round(position))  # Python rounds half to even
        position += stride
    return timesteps


def spaced_betas(schedule: NoiseSchedule, timesteps: Sequence[int]) -> Float64[Tensor, "n"]:
    """β_k = 1 − ᾱ[i_k] / ᾱ[i_{k−1}] of the chain that visits only `timesteps`, with ᾱ = 1 before the first."""
    alpha_bar = schedule.alphas_cumprod[list(timesteps)]
    return 1 - alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])


def ancestral_step(
    prediction: Prediction,
    alpha_bar: float,
    alpha_bar_previous: float,
    noise: Tensor,
    variance: Variance = "fixed_small",
) -> Tensor:
    """One draw from q(x_{k−1} | x_k, x_0) with the predicted x_0 (Ho et al., DDPM, Eqs. 6 and 7).

    alpha_bar, alpha_bar_previous: ᾱ of this step and of the next cleaner one (1 at the end: no noise).
    variance: "fixed_small" is β̃ = β (1 − ᾱ')/(1 − ᾱ), "fixed_large" is β. Nothing is clipped.
    """
    beta = 1 - alpha_bar / alpha_bar_previous
    of_x0 = beta * alpha_bar_previous**0.5 / (1 - alpha_bar)
    of_x_t = (1 - alpha_bar_previous) * (1 - beta) ** 0.5 / (1 - alpha_bar)
    mean = of_x0 * prediction.x0 + of_x_t * prediction.x_t
    if alpha_bar_previous == 1:
        return mean
    spread = beta * (1 - alpha_bar_previous) / (1 - alpha_bar) if variance == "fixed_small" else beta
    return mean + spread**0.5 * noise


def ddim_step(
    prediction: Prediction, alpha_bar_previous: float | Tensor, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """x_{k−1} = √ᾱ' x_0 + √(1 − ᾱ' − s²) ε + s z (Song et al., DDIM, Eq. 12), s = η √((1−ᾱ')/(1−ᾱ)) √(1−ᾱ/ᾱ').

    alpha_bar_previous: ᾱ' of the next cleaner step, a scalar or (B,); noise: z like x_t, needed where eta > 0.
    """
    previous = torch.as_tensor(alpha_bar_previous, dtype=torch.float64)
    spread = eta * (((1 - previous) / prediction.sigma**2) * (1 - prediction.alpha**2 / previous)).clamp(min=0).sqrt()
    x_t = prediction.x_t
    towards = (1 - previous - spread**2).clamp(min=0).sqrt()
    mean = broadcast(previous.sqrt(), x_t) * prediction.x0 + broadcast(towards, x_t) * prediction.eps
    if eta == 0:
        return mean
    if noise is None:
        raise ValueError(f"ddim_step with eta {eta} needs noise of shape {tuple(x_t.shape)}")
    return mean + broadcast(spread, x_t) * noise


def ancestral(
    denoise: Denoise,
    start: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    *,
    generator: torch.Generator | None = None,
    variance: Variance = "fixed_small",
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """DDPM on the re-spaced chain: `start` (B, ...) is x at the last timestep, the result is x_0.

    One noise tensor is drawn at every step, the last included, where it is multiplied by 0: a seed then gives the draws
    of the public WaLa code. They are made by `torch.randn` on the generator's device. on_step: called with steps done.
    """
    _check_steps(timesteps)
    x, device = start, generator.device if generator is not None else start.device
    for done, (t, alpha_bar, previous) in enumerate(_walk(schedule, timesteps), 1):
        prediction = denoise(x, t)
        noise = torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
        x = ancestral_step(prediction, alpha_bar, previous, noise, variance)
        if on_step is not None:
            on_step(done)
    return x


def ddim(
    denoise: Denoise,
    start: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    *,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Deterministic DDIM (η = 0): `start` (B, ...) is x at the last of `timesteps`, pure noise or a noised sample."""
    _check_steps(timesteps)
    x = start
    for done, (t, _, previous) in enumerate(_walk(schedule, timesteps), 1):
        prediction = denoise(x, t)
        x = ddim_step(prediction, previous) if previous < 1 else prediction.x0
        if on_step is not None:
            on_step(done)
    return x


def _walk(schedule: NoiseSchedule, timesteps: Sequence[int]) -> list[tuple[int, float, float]]:
    """(t, ᾱ_t, ᾱ of the next cleaner timestep or 1), noisiest first."""
    alpha_bar = [1.0, *schedule.alphas_cumprod[list(timesteps)].tolist()]
    return [(timesteps[k], alpha_bar[k + 1], alpha_bar[k]) for k in reversed(range(len(timesteps)))]


def _check_steps(timesteps: Sequence[int]) -> None:
    if len(timesteps) < 2:
        raise BadSetting(f"sampling needs 2 steps or more, not {len(timesteps)}: raise num_inference_steps")
