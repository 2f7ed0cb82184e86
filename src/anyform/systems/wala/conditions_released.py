"""Conditions of released WaLa checkpoints: one encoder, then position and camera embeddings (specs/wala.md §5).

tokens = map(encoder(prompt)) + position + camera. The null condition is a *zero raw condition*, to which positions and
cameras are added all the same, so its tokens are these embeddings. Camera embeddings go by place in the list of views
wherever the model names its training views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image as Picture
from torch import Tensor, nn
from torch.nn import functional

from anyform.diffusion.prior import Condition
from anyform.encoders.dinov2 import Dinov2, Dinov2Config
from anyform.encoders.pointnet import PointNetConfig, PointNetLarge, PointNetSimple
from anyform.encoders.pointnet import build as build_pointnet
from anyform.encoders.voxels import VoxelEncoder, VoxelEncoderConfig
from anyform.errors import BadInput
from anyform.types.prompt import Audio, Image, Points, Sketch, Text, Views, Voxels

MAX_POINTS = 25_000  # as many as the public example gives; the encoder's memory grows with them
_HALF_EXTENT = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedConditionConfig:
    """What a released model is conditioned on; `encoder` decides the kind: images, points or voxels."""

    encoder: Dinov2Config | PointNetConfig | VoxelEncoderConfig
    width: int = 1024
    num_tokens: int = 256  # of one view
    is_depth: bool = False  # images are depth maps, near = bright
    num_cameras: int = 0  # rows of the camera embedding, 0 = a single view without one
    training_views: tuple[int, ...] | None = None  # view ids in the order of the camera embedding
    mapping_layers: int = 0

    @property
    def kind(self) -> Literal["image", "points", "voxels"]:
        """Which encoder."""
        if isinstance(self.encoder, Dinov2Config):
            return "image"
        return "points" if isinstance(self.encoder, PointNetConfig) else "voxels"

    @property
    def num_views(self) -> int:
        """Views in a prompt; 1 where the model has no camera embedding."""
        return len(self.training_views) if self.training_views else max(self.num_cameras, 1)


class ReleasedConditions(nn.Module):
    """`condition(prompt)` and `null_condition()` of a released checkpoint."""

    def __init__(self, config: ReleasedConditionConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _build_encoder(config.encoder)
        self.mapping = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.mapping_layers))
        self.positions = nn.Parameter(torch.zeros(1, config.num_tokens, config.width))
        cameras = config.num_cameras
        self.cameras = nn.Parameter(torch.zeros(cameras, config.width)) if cameras else None

    def condition(self, prompt: Image | Sketch | Points | Voxels | Views | Text | Audio) -> Condition:
        """The prompt as tokens (1, V·L, D). Raises BadInput where this checkpoint does not read such a prompt."""
        rows = torch.arange(self.config.num_views, device=self.positions.device)
        if isinstance(prompt, Views) and self.cameras is not None:
            prompt, rows = self._in_training_order(prompt)
        with torch.no_grad():
            return self._finish(self.encoder(self._inputs(prompt).to(self.positions))[None], rows)

    def condition_of(self, pictures: list[NDArray[np.uint8]]) -> Condition:
        """Pictures (H, W, 3) as the model was trained on, one a view in training order, as tokens (1, V·L, D)."""
        with torch.no_grad():
            rows = torch.arange(self.config.num_views, device=self.positions.device)
            return self._finish(self.encoder(self._stacked(pictures).to(self.positions))[None], rows)

    def null_condition(self) -> Condition:
        """Tokens of the zero raw condition: positions and cameras alone."""
        config = self.config
        raw = self.positions.new_zeros(1, config.num_views, config.num_tokens, config.width)
        with torch.no_grad():
            return self._finish(raw, torch.arange(config.num_views, device=raw.device))

    def _finish(self, raw: Float[Tensor, "1 v l d"], camera_rows: Tensor) -> Condition:
        """Mapping layers, positions, the given rows of the camera embedding; views one after the other."""
        tokens = raw
        for layer in self.mapping:
            tokens = functional.silu(layer(tokens))
        tokens = tokens + self.positions
        if self.cameras is not None:
            tokens = tokens + self.cameras[camera_rows][:, None]
        return Condition(tokens=tokens.flatten(1, 2))

    def _inputs(self, prompt: Image | Sketch | Points | Voxels | Views | Text | Audio) -> Tensor:
        """What the encoder reads: (V, 3, S, S) pictures, (1, N, 3) points or (1, R, R, R) voxels."""
        encoder, kind = self.config.encoder, self.config.kind
        if kind == "points" and isinstance(prompt, Points):
            return torch.from_numpy(box_points(prompt.points))[None]
        if isinstance(encoder, VoxelEncoderConfig) and isinstance(prompt, Voxels):
            return torch.from_numpy(prompt.to_resolution(encoder.resolution).occupancy.astype(np.float32))[None]
        if isinstance(encoder, Dinov2Config):
            return self._stacked(self._pictures(prompt))
        raise BadInput(self._refusal(prompt))

    def _stacked(self, pictures: list[NDArray[np.uint8]]) -> Tensor:
        """(V, 3, S, S) as DINOv2 reads them."""
        encoder = self.config.encoder
        if not isinstance(encoder, Dinov2Config) or len(pictures) != self.config.num_views:
            raise BadInput(f"this WaLa checkpoint reads {self.config.num_views} views, got {len(pictures)}")
        size = round(self.config.num_tokens**0.5) * encoder.patch
        return torch.stack([image_tensor(picture, size) for picture in pictures])

    def _pictures(self, prompt: object) -> list[NDArray[np.uint8]]:
        """(H, W, 3) uint8 pictures as the model was trained on, one a view."""
        if isinstance(prompt, Views) and (prompt.kind == "depth") == self.config.is_depth:
            if prompt.kind == "depth":
                return [depth_picture(depth[..., 0]) for depth in prompt.pixels]
            return [over_black(np.rint(rgba * 255).astype(np.uint8)) for rgba in prompt.pixels]
        if isinstance(prompt, Image) and not self.config.is_depth:
            return [over_black(prompt.rgba)]
        if isinstance(prompt, Sketch) and not self.config.is_depth:
            return [sketch_picture(prompt.ink)]
        raise BadInput(self._refusal(prompt))

    def _refusal(self, prompt: object) -> str:
        pictures = f"{self.config.num_views} {'depth' if self.config.is_depth else 'rgb'} view(s)"
        reads = {"image": pictures, "points": "points", "voxels": "voxels"}[self.config.kind]
        return f"this WaLa checkpoint reads {reads}, not {type(prompt).__name__.lower()}: load another"

    def _in_training_order(self, views: Views) -> tuple[Views, Tensor]:
        """The views in the order of the camera embedding, and the rows of it that they take."""
        wanted, ids = self.config.training_views, views.view_ids
        device = self.positions.device
        if wanted is None:
            if ids is None or not all(0 <= i < self.config.num_cameras for i in ids):
                raise BadInput(f"this checkpoint needs view ids below {self.config.num_cameras}, got {ids}")
            return views, torch.tensor(ids, device=device)
        if ids is not None:
            if sorted(ids) != sorted(wanted):
                raise BadInput(f"this WaLa checkpoint reads the views {list(wanted)}, got {list(ids)}")
            order = [ids.index(i) for i in wanted]
            cameras = views.cameras
            sorted_cameras = type(cameras)(
                cameras.camera_to_world[order], cameras.fov_y[order], cameras.height, cameras.width
            )
            views = Views(views.kind, views.pixels[order], sorted_cameras, wanted)
        return views, torch.arange(len(wanted), device=device)


def _build_encoder(
    config: Dinov2Config | PointNetConfig | VoxelEncoderConfig,
) -> Dinov2 | PointNetLarge | PointNetSimple | VoxelEncoder:
    if isinstance(config, Dinov2Config):
        return Dinov2(config)
    return build_pointnet(config) if isinstance(config, PointNetConfig) else VoxelEncoder(config)


def over_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) straight alpha -> (H, W, 3) over black: as renders with black under transparency already are."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(rgba[..., :3] * alpha).astype(np.uint8)


def sketch_picture(ink: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W) ink, 1 on strokes -> black lines on white, (H, W, 3)."""
    return np.repeat(np.rint((1 - ink) * 255).astype(np.uint8)[..., None], 3, -1)


def depth_picture(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W) depth, inf behind the object -> (H, W, 3) grey: nearest point 255, farthest point and background 0."""
    hit = np.isfinite(depth)
    grey = np.zeros(depth.shape, np.float32)
    if hit.any():
        near, far = depth[hit].min(), depth[hit].max()
        grey[hit] = (far - depth[hit]) / (far - near) if far > near else 1.0
    return np.repeat(np.rint(grey * 255).astype(np.uint8)[..., None], 3, -1)


def image_tensor(picture: NDArray[np.uint8], size: int) -> Float[Tensor, "3 s s"]:
    """(H, W, 3) -> shorter side to `size` (bilinear, antialiased), centre crop, (value − 0.5)/0.5."""
    height, width = picture.shape[:2]
    short = min(height, width)
    new_width, new_height = int(size * width / short), int(size * height / short)
    resized = Picture.fromarray(picture).resize((new_width, new_height), Picture.Resampling.BILINEAR)
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    cropped = np.asarray(resized.crop((left, top, left + size, top + size)), np.float32) / 255
    return torch.from_numpy((cropped - 0.5) / 0.5).permute(2, 0, 1)


def box_points(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points in WaLa's box, the longest half extent 0.9, at most `MAX_POINTS` of them, evenly thinned.

    Points that fill at least half of [−1, 1]³ and do not leave it are taken to be in the box already.
    """
    if len(points) > MAX_POINTS:
        points = points[np.linspace(0, len(points) - 1, MAX_POINTS).astype(np.int64)]
    low, high = points.min(0), points.max(0)
    extent = float((high - low).max())
    if np.abs(points).max() <= 1 and extent >= 1:
        return points
    return ((points - (low + high) / 2) * (2 * _HALF_EXTENT / extent)).astype(np.float32)
