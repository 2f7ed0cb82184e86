"""Small real parts for tests: a soft ball with exact gradients, a Gaussian prior, an encoder of random projections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from anyform.diffusion.prediction import Prediction
from anyform.diffusion.prior import Condition, Prior
from anyform.diffusion.schedule import broadcast, scaled_linear
from anyform.errors import GateFailed
from anyform.geometry.mesh import Mesh
from anyform.systems.xbind.terms import Guides
from anyform.systems.xbind.variational import LowRankCopy
from anyform.types.camera import Cameras
from anyform.types.render import Render, Samples

SCHEDULE = scaled_linear(0.00085, 0.012, 1000)


class Ball(nn.Module):
    """A soft-edged ball around the origin with one colour; training jitters the rays, as a real field does."""

    def __init__(self, radius: float = 0.6, color: float = 0.5) -> None:
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(radius))
        self.color = nn.Parameter(torch.full((3,), color))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def render(
        self, cameras: Cameras, background: Tensor, *, color: bool = True, normal: bool = False
    ) -> Render[Tensor]:
        if not torch.isfinite(self.radius) or float(self.radius.detach()) < -1:
            raise GateFailed("the ball is gone")
        origins, directions = (torch.from_numpy(np.array(part, np.float32)) for part in cameras.rays())
        t = -(origins * directions).sum(-1, keepdim=True)
        if self.training:
            self.seen += 1
            t = t + 0.01 * torch.rand_like(t)
        nearest = origins + t * directions
        alpha = torch.sigmoid((self.radius - nearest.norm(dim=-1, keepdim=True)) / 0.05)
        rgb = alpha * torch.sigmoid(self.color) * float(color) + (1 - alpha) * background
        normals = functional.normalize(nearest, dim=-1) * alpha if normal else None
        weights = torch.stack([0.5 * alpha, 0.5 * alpha], -1).reshape(-1)
        spread = self.radius.detach() * 0.1
        depth = torch.stack([t - spread, t + spread], -1).reshape(-1)
        start = torch.arange(0, len(weights) + 1, 2)
        return Render(rgb=rgb, alpha=alpha, normal=normals, samples=Samples(start=start, t=depth, ray_weights=weights))

    def surface(self) -> tuple[Tensor, Tensor]:
        corners = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
        faces = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
        return corners * self.radius, torch.tensor(faces)

    def to_mesh(self, resolution: int) -> Mesh:
        assert resolution >= 2
        vertices, faces = self.surface()
        return Mesh(vertices.detach().numpy(), faces.numpy().astype(np.int32))


class Shrink:
    """A codec that averages 2 × 2 pixels."""

    def encode(self, sample: Tensor) -> Tensor:
        return functional.avg_pool2d(sample, 2)

    def decode(self, latent: Tensor) -> Tensor:
        return functional.interpolate(latent, scale_factor=2.0)


def gaussian_prior(color: tuple[float, float, float] = (0.9, 0.1, 0.1), size: int = 16) -> Prior:
    """Knows pictures of one colour with a spread of 0.1; the condition scales how strongly it insists."""
    mean = torch.tensor(color)[:, None, None]

    def denoiser(x_t: Tensor, t: int | Tensor, condition: Condition) -> Prediction:
        alpha, sigma = SCHEDULE.alpha_sigma(t)
        a, s = broadcast(alpha, x_t), broadcast(sigma, x_t)
        known = mean.to(x_t) * (0.0 if condition.tokens is None else 1.0) * _insists(condition, x_t)
        x0 = (0.01 * a * x_t + s**2 * known) / (0.01 * a**2 + s**2)
        return Prediction.from_x0(x0, x_t, alpha, sigma)

    def condition(image: Tensor | None = None, camera: Tensor | None = None, **_: object) -> Condition:
        return Condition(tokens=torch.ones(1, 1, 2))

    def null(given: Condition) -> Condition:
        assert given.tokens is not None
        return Condition(tokens=torch.zeros_like(given.tokens))

    return Prior(
        denoiser=denoiser, codec=Shrink(), schedule=SCHEDULE, condition=condition, null=null, licence="CC0-1.0",
        image_size=size, latent_shape=(3, size // 2, size // 2),
    )  # fmt: skip


def _insists(condition: Condition, x_t: Tensor) -> Tensor:
    tokens = condition.tokens
    assert tokens is not None
    return tokens.mean((1, 2)).reshape(-1, 1, 1, 1).expand(len(x_t), 1, 1, 1)


def embed(pictures: Tensor) -> Tensor:
    """Mean colour about grey: (B, 3)."""
    return pictures.mean((2, 3)) - 0.5


def guides() -> Guides:
    """Both priors know red pictures; the reference view is a red disc over white, the prompt is "red"."""
    prior = gaussian_prior()
    along = (torch.arange(32) + 0.5) / 16 - 1
    mask = ((along[:, None] ** 2 + along**2) < 0.45).float()[None, None]
    red = torch.tensor([0.9, 0.1, 0.1])[None, :, None, None]
    return Guides(
        vector=torch.tensor([1.0, -1.0, -1.0]),
        embed=embed,
        embed_size=16,
        planar=prior,
        planar_condition=prior.condition(),
        stereo=prior,
        picture=mask * red + (1 - mask),
        mask=mask,
        copy=copy_of(prior),
    )


class Attention(nn.Module):
    """One projection that a low-rank copy can adapt."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(3, 3, bias=False).requires_grad_(False)
        nn.init.zeros_(self.to_q.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_q(x.movedim(1, -1)).movedim(-1, 1)


def copy_of(prior: Prior) -> LowRankCopy:
    """The Gaussian prior with a projection whose addition moves its mean."""
    network = Attention()

    def denoiser(x_t: Tensor, t: int | Tensor, condition: Condition) -> Prediction:
        said = prior.denoiser(x_t, t, condition)
        return Prediction.from_eps(said.eps + network(x_t), x_t, *SCHEDULE.alpha_sigma(t))

    return LowRankCopy(replace(prior, denoiser=denoiser), prior.condition(), network)
