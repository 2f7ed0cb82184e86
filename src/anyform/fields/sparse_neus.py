"""SparseNeuS: a distance and latent field in the unit ball, read from the feature maps of V pictures (TuneMV3D 3.1.1).

Conventions. World axes are those of `types/camera.py`; the object lies in the unit ball around the origin. A projection
(V, 3, 4) maps homogeneous world points to (u d, v d, d): u right and v down in [-1, 1] over the picture, d the depth
along the camera axis. Feature maps are read with `align_corners=False`, so a pixel's value sits at its centre. Lattices
(C, G, G, G) are indexed [z, y, x] with samples at −1 + 2 i / (G − 1). Distances are negative inside.

The same weights are evaluated in two ways: on a lattice once, which rays then read (`lattice`, `render_lattice`), or at
every sample of every ray (`render_points`, the readable twin and the paper's way, specs/tunemv3d.md §0.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from anyform.nn.unet2d import Embedding, sinusoid
from anyform.types.camera import Cameras

NUM_FREQUENCIES = 6  # TuneMV3D supplement B.1
START_RADIUS = 0.6  # of the sphere an untrained field shows
_EPSILON = 1e-5
_TIME_WIDTH = 64  # of the sinusoid of the timestep
_RAYS_AT_ONCE = 8192  # temporaries below about 10 MB: larger ones spend their time in page faults


def alphas(sdf: Tensor, inv_s: float | Tensor) -> Tensor:
    """Opacity (..., S) of the sections between S + 1 distances (..., S + 1) along rays, in [0, 1].

    α_i = max((Φ(s_i) − Φ(s_{i+1}) + ε) / (Φ(s_i) + ε), 0), Φ the logistic function of slope inv_s (NeuS Eq. 13 at the
    sections' end points, so that no normals and no second derivatives are needed).
    """
    inside = torch.sigmoid(sdf * inv_s)
    here, following = inside[..., :-1], inside[..., 1:]
    return ((here - following + _EPSILON) / (here + _EPSILON)).clamp(0, 1)


def section_weights(alpha: Tensor) -> Tensor:
    """w_i = α_i Π_{j<i} (1 − α_j), both (..., S): their sum over a ray is the alpha of its pixel."""
    clear = torch.cumprod(1 - alpha + 1e-7, -1)
    return alpha * torch.cat([torch.ones_like(clear[..., :1]), clear[..., :-1]], -1)


def projections(cameras: Cameras) -> Tensor:
    """(V, 3, 4) float32: world -> (u d, v d, d) of each camera."""
    pose = cameras.camera_to_world
    rotation, position = pose[:, :3, :3].transpose(0, 2, 1), pose[:, :3, 3]
    local = np.concatenate([rotation, -(rotation @ position[..., None])], -1)
    focal = 1 / np.tan(cameras.fov_y / 2)
    scale = np.stack([focal * cameras.height / cameras.width, -focal, -np.ones_like(focal)], -1)
    return torch.from_numpy(local * scale[..., None]).float()


def rays_of(cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Origins and unit directions (V, H, W, 3) float32 of the rays through the pixel centres."""
    origins, directions = cameras.rays()
    return torch.from_numpy(np.ascontiguousarray(origins)).float(), torch.from_numpy(directions).float()


def project(points: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
    """World points (P, 3) -> places (V, P, 2) in [-1, 1] and depths (V, P); a point behind a camera has depth <= 0."""
    homogeneous = points @ projection[:, :, :3].transpose(1, 2) + projection[:, None, :, 3]
    depth = homogeneous[..., 2]
    return homogeneous[..., :2] / depth.clamp(min=1e-3)[..., None], depth


def gather(points: Tensor, features: Tensor, projection: Tensor) -> Tensor:
    """Mean over the views of their features where the points (P, 3) project: f̂(p) = 1/n Σ_j f_j(π_j(p)), (P, C).

    features (V, C, H, W). Views that do not see a point (beside the picture or behind it) are left out of its mean; a
    point that no view sees takes the features at the pictures' borders.

    Implements: TuneMV3D Eq. 2
    Differs: the mean there is over all n views; on the preset orbit every view sees the whole ball, so both are equal.
    """
    where, depth = project(points, projection)
    seen = ((where.abs() <= 1).all(-1) & (depth > 0)).to(features.dtype)
    weight = seen + (seen.sum(0) == 0).to(features.dtype)
    read = functional.grid_sample(features, where[:, :, None], align_corners=False, padding_mode="border")[..., 0]
    return ((read * weight[:, None]).sum(0) / weight.sum(0)).T


def encode_position(points: Tensor, omega: float) -> Tensor:
    """(P, 3) -> (P, 39): p, then sin and cos of 2^k ω p for k = 0..5, sine and cosine together for each k."""
    scale = omega * 2.0 ** torch.arange(NUM_FREQUENCIES, device=points.device)
    angle = points[:, None] * scale[:, None]
    return torch.cat([points, torch.cat([angle.sin(), angle.cos()], -1).flatten(1)], -1)


class ResnetFC(nn.Module):
    """Fully connected residual blocks, with a latent code added before each (pixelNeRF's layers)."""

    def __init__(self, width_in: int, latent: int, width_out: int, hidden: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width_in, hidden)
        self.codes = nn.ModuleList(nn.Linear(latent, hidden) for _ in range(blocks))
        self.first = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(blocks))
        self.leave = nn.Linear(hidden, width_out)
        for first, second in zip(*(cast(Iterable[nn.Linear], one) for one in (self.first, self.second)), strict=True):
            nn.init.kaiming_normal_(first.weight)
            for zero in (first.bias, second.weight, second.bias):
                nn.init.zeros_(zero)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        x = self.enter(x)
        for of_code, first, second in zip(self.codes, self.first, self.second, strict=True):
            x = x + of_code(code)
            x = x + second(functional.relu(first(functional.relu(x))))
        return self.leave(functional.relu(x))


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldConfig:
    """Sizes of the point networks. Defaults: the CPU row of specs/tunemv3d.md §3.3."""

    feature_channels: int = 32  # of the feature maps
    hidden: int = 64
    blocks: int = 3  # of the distance network
    latent_blocks: int = 2
    time_width: int = 32
    omega: float = 2.0  # 1.5 for ShapeNet-Chair, 2.0 for mini-Objaverse (supplement B.1)
    channels: int = 3  # of what is rendered
    is_color: bool = True  # rendered values are colours in [-1, 1]; False: latents without bounds, and RGB beside them
    sharpness: float = 0.2  # v of inv_s = exp(10 v): SparseNeuS' start


@dataclass(frozen=True, slots=True, eq=False)
class RayRender:
    """What R rays see. value (R, C): over the background. alpha (R,). weights (R, S) and edges (R, S + 1): sections.

    rgb (R, 3) in [-1, 1] over white where the field has a colour head of its own beside latents; None otherwise.
    """

    value: Tensor
    alpha: Tensor
    weights: Tensor
    edges: Tensor
    rgb: Tensor | None = None

    @property
    def middles(self) -> Tensor:
        """(R, S): distance from the ray's origin of each section's middle."""
        return (self.edges[:, :-1] + self.edges[:, 1:]) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What the field is read from: features (V, C, H, W), projections (V, 3, 4), and the time code (1, D)."""

    features: Tensor
    projection: Tensor
    code: Tensor


class SparseNeuS(nn.Module):
    """The two point networks, the slope of the distances, and the two ways to render them."""

    def __init__(self, config: FieldConfig) -> None:
        super().__init__()
        self.config = config
        hidden, width = config.hidden, config.time_width
        latent, geometry = config.feature_channels + width, config.hidden // 2
        self.num_values = config.channels + (0 if config.is_color else 3)
        self.time = Embedding(_TIME_WIDTH, width)
        self.distance = ResnetFC(3 * (1 + 2 * NUM_FREQUENCIES), latent, 1 + geometry, hidden, config.blocks)
        self.latent = ResnetFC(geometry + 3, latent, self.num_values, hidden, config.latent_blocks)
        self.sharpness = nn.Parameter(torch.tensor(config.sharpness))
        nn.init.normal_(self.distance.leave.weight[:1], 0, 1e-2)
        nn.init.zeros_(self.distance.leave.bias)

    @property
    def inv_s(self) -> Tensor:
        """Slope of the logistic function, 1 / world unit."""
        return (10 * self.sharpness).exp().clamp(1e-6, 1e6)

    def scene(self, features: Tensor, projection: Tensor, t: Tensor) -> Scene:
        """features (V, C, H, W) and one timestep t (1,) of the noisy views."""
        return Scene(features, projection, self.time(sinusoid(t, _TIME_WIDTH)))

    def sdf(self, points: Tensor, scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
        """(P, 3) -> distances (P,), geometry features (P, D) and the code (P, Z) both came from; no view direction."""
        code = torch.cat([gather(points, scene.features, scene.projection), scene.code.expand(len(points), -1)], -1)
        out = self.distance(encode_position(points, self.config.omega), code)
        return out[:, 0] + points.norm(dim=-1) - START_RADIUS, out[:, 1:], code

    def values(self, geometry: Tensor, directions: Tensor, code: Tensor) -> Tensor:
        """(P, C): colours in [-1, 1]; of latents the latents, then colours."""
        out = self.latent(torch.cat([geometry, directions], -1), code)
        plain = 0 if self.config.is_color else self.config.channels
        return torch.cat([out[:, :plain], torch.sigmoid(out[:, plain:]) * 2 - 1], -1)

    def lattice(self, scene: Scene, resolution: int) -> Tensor:
        """(1 + C, G, G, G): distances and values, seen from nowhere in particular; outside the ball only the prior."""
        device = scene.features.device
        along = torch.linspace(-1, 1, resolution, device=device)
        z, y, x = torch.meshgrid(along, along, along, indexing="ij")
        points = torch.stack([x, y, z], -1).reshape(-1, 3)
        near = (points.norm(dim=-1) <= 1 + 2 * math.sqrt(3) / (resolution - 1)).nonzero()[:, 0]
        parts = []
        for some in points[near].split(1 << 15):
            distance, geometry, code = self.sdf(some, scene)
            value = self.values(geometry, torch.zeros_like(some), code)
            parts.append(torch.cat([distance[:, None], value], -1))
        prior = (points.norm(dim=-1) - START_RADIUS)[:, None]
        whole = torch.cat([prior, prior.new_zeros(len(points), self.num_values)], -1)
        whole = whole.index_copy(0, near, torch.cat(parts).to(whole.dtype))
        return whole.T.reshape(-1, resolution, resolution, resolution)

    def sdf_lattice(self, scene: Scene, resolution: int, at_once: int = 1 << 15) -> Tensor:
        """(G, G, G) distances indexed [x, y, z], for meshing."""
        along = torch.linspace(-1, 1, resolution, device=scene.features.device)
        points = torch.stack(torch.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3)
        distances = torch.cat([self.sdf(some, scene)[0] for some in points.split(at_once)])
        return distances.reshape(resolution, resolution, resolution)

    def render_lattice(
        self, lattice: Tensor, origins: Tensor, directions: Tensor, background: Tensor, *, sections: int, jitter: bool
    ) -> RayRender:
        """Rays (R, 3) through a lattice of `lattice`; background (C,) in the values' space."""

        def read(points: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
            found = read_lattice(lattice, points)
            return found[:, 0], found[:, 1:]

        parts = []
        for some, along in zip(origins.split(_RAYS_AT_ONCE), directions.split(_RAYS_AT_ONCE), strict=True):
            edges = ball_edges(some, along, sections, jitter)
            parts.append(self._composite(read, some, along, edges, background))
        return _joined(parts)

    def render_points(
        self, scene: Scene, origins: Tensor, directions: Tensor, background: Tensor, *, sections: int, importance: int
    ) -> RayRender:
        """The networks at every sample: `sections` even ones, then `importance` more where the surface is."""

        def read(points: Tensor, towards: Tensor) -> tuple[Tensor, Tensor]:
            distance, geometry, code = self.sdf(points, scene)
            return distance, self.values(geometry, towards, code)

        parts = []
        for some, along in zip(origins.split(512), directions.split(512), strict=True):
            edges = ball_edges(some, along, sections, jitter=False)
            if importance:
                edges = self._refined(scene, some, along, edges, importance)
            parts.append(self._composite(read, some, along, edges, background))
        return _joined(parts)

    @torch.no_grad()
    def _refined(self, scene: Scene, origins: Tensor, directions: Tensor, edges: Tensor, importance: int) -> Tensor:
        """(R, S + 1 + I) edges: I more at the quantiles of the weights that the even ones find."""
        points = origins[:, None] + directions[:, None] * edges[..., None]
        distance = self.sdf(points.reshape(-1, 3), scene)[0].reshape(edges.shape)
        weights = section_weights(alphas(distance, self.inv_s)) + 1e-4
        share = weights / weights.sum(-1, keepdim=True)
        reached = torch.cat([torch.zeros_like(share[:, :1]), share.cumsum(-1)], -1)
        wanted = ((torch.arange(importance, device=edges.device) + 0.5) / importance).expand(len(edges), -1)
        section = (torch.searchsorted(reached, wanted.contiguous(), right=True) - 1).clamp(0, share.shape[1] - 1)
        part = (wanted - reached.gather(1, section)) / share.gather(1, section)
        start, width = edges.gather(1, section), edges.diff().gather(1, section)
        return torch.cat([edges, start + part * width], -1).sort(-1).values

    def _composite(
        self,
        read: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        origins: Tensor,
        directions: Tensor,
        edges: Tensor,
        background: Tensor,
    ) -> RayRender:
        """Volume rendering of `read(points, directions) -> (distances, values)` at the sections' ends."""
        points = origins[:, None] + directions[:, None] * edges[..., None]
        towards = directions[:, None].expand_as(points)
        distance, value = read(points.reshape(-1, 3), towards.reshape(-1, 3))
        distance = distance.reshape(edges.shape)
        in_ball = ((points[:, :-1] + points[:, 1:]) / 2).norm(dim=-1) < 1
        weights = section_weights(alphas(distance, self.inv_s) * in_ball)
        value = value.reshape(*edges.shape, -1)
        middle = (value[:, :-1] + value[:, 1:]) / 2
        alpha = weights.sum(-1)
        seen = (middle * weights[..., None]).sum(1)
        if self.config.is_color:
            return RayRender(seen + (1 - alpha)[:, None] * background, alpha, weights, edges)
        latent, rgb = seen.split([self.config.channels, 3], -1)
        clear = (1 - alpha)[:, None]
        return RayRender(latent + clear * background, alpha, weights, edges, rgb + clear)


def read_lattice(lattice: Tensor, points: Tensor) -> Tensor:
    """Trilinear values (P, C) of a lattice (C, G, G, G) at points (P, 3); beyond it the border's."""
    where = points.reshape(1, 1, 1, -1, 3)
    read = functional.grid_sample(lattice[None], where, align_corners=True, padding_mode="border")
    return read[0, :, 0, 0].T


def ball_edges(origins: Tensor, directions: Tensor, sections: int, jitter: bool) -> Tensor:
    """(R, S + 1) ascending distances along rays (R, 3), even over the part that can meet the unit ball.

    jitter: each ray's edges move together by up to half a section (torch's global generator).
    """
    middle = -(origins * directions).sum(-1, keepdim=True)
    edges = middle + torch.linspace(-1, 1, sections + 1, device=origins.device)
    if jitter:
        edges = edges + (torch.rand(len(edges), 1, device=origins.device) - 0.5) * (2 / sections)
    return edges


def _joined(parts: list[RayRender]) -> RayRender:
    rgb = [part.rgb for part in parts if part.rgb is not None]
    return RayRender(
        torch.cat([part.value for part in parts]),
        torch.cat([part.alpha for part in parts]),
        torch.cat([part.weights for part in parts]),
        torch.cat([part.edges for part in parts]),
        torch.cat(rgb) if rgb else None,
    )
