"""What the embedded priors learn from: a batch of pictures with their conditions, and the loss on it.

Both losses are `training.loop.Loss`: a step is a function of the generator it is given. The error is that of v; a
timestep weighs (min(SNR, 5) + 0.25) / (SNR + 1) (Hang et al., "Efficient Diffusion Training via Min-SNR Weighting").
Differs: the 0.25 keeps the noisiest steps, where a zero-terminal schedule would weigh nothing and layout is decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from anyform.diffusion.schedule import broadcast, cosine
from anyform.nn.unet2d import sinusoid
from anyform.priors.arrays import PriorArrays
from anyform.priors.embedded import FoldCodec, PriorNetwork, schedule
from anyform.priors.relative_camera import relative_camera

BINS = ((0, 250), (250, 500), (500, 750), (750, 1000))  # timesteps whose errors are logged apart


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorRecipe:
    """What a batch is made of (specs/embedded.md §4)."""

    batch: int = 32
    drop: float = 0.1  # of each condition on its own
    drop_all: float = 0.05
    white: float = 0.8  # share of white backgrounds; the others are a colour or a gradient
    coloured: float = 0.6  # share of captions that name the colour
    label_of_caption: float = 0.3  # share of class labels that embed the caption instead of the picture
    clean_label: float = 0.5  # share of class labels at noise level 0, as they are used
    snr_cap: float = 5.0
    snr_floor: float = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """clean: (B, 12, h, w); states: (B, 16, 384); labels: (B, 512); for `view` reference: (B, 12, h, w), pose: (B, 260)
    and present: (B,), 0 where the null takes the place of reference, pose and labels."""

    clean: Tensor
    states: Tensor
    labels: Tensor
    reference: Tensor | None = None
    pose: Tensor | None = None
    present: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        parts = (self.clean, self.states, self.labels, self.reference, self.pose, self.present)
        return Batch(*(None if part is None else part.to(device) for part in parts))  # type: ignore[arg-type]


def compose(rgba: NDArray[np.uint8], background: NDArray[np.floating]) -> Tensor:
    """(H, W, 4) straight alpha over a background (3,) or (H, W, 3) in [0, 1] -> (3, H, W) in [0, 1]."""
    picture = rgba.astype(np.float32) / 255
    mixed = picture[..., :3] * picture[..., 3:] + background * (1 - picture[..., 3:])
    return torch.from_numpy(np.ascontiguousarray(mixed.transpose(2, 0, 1), np.float32))


def random_background(size: int, white: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """White, else one random colour or a straight gradient between two: (3,) or (size, size, 3)."""
    if rng.random() < white:
        return np.ones(3)
    first, second = rng.random((2, 3))
    if rng.random() < 0.5:
        return first
    angle, axis = rng.uniform(0, 2 * np.pi), np.linspace(-1, 1, size)
    along = np.clip((axis[None] * np.cos(angle) + axis[:, None] * np.sin(angle)) / 2.8 + 0.5, 0, 1)[..., None]
    return first * (1 - along) + second * along


class PriorLoss:
    """The loss of `foundation` (kind "foundation") or `view`, on the objects `rows` of a folder of arrays."""

    def __init__(
        self, folder: Path, rows: NDArray[np.int64], recipe: PriorRecipe, kind: Literal["foundation", "view"]
    ) -> None:
        self.arrays, self.rows, self.recipe, self.kind = PriorArrays.open(folder), rows, recipe, kind
        self.schedule, self.label_schedule, self.codec = schedule(), cosine(1000), FoldCodec(2)

    def batch(self, rng: np.random.Generator) -> Batch:
        """One step's pictures and conditions."""
        rows = rng.choice(self.rows, self.recipe.batch)
        samples = [self._view(int(row), rng) if self.kind == "view" else self._picture(int(row), rng) for row in rows]
        return Batch(*(torch.stack(parts) for parts in zip(*samples, strict=True)))

    def __call__(self, model: nn.Module, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        assert isinstance(model, PriorNetwork)
        batch = self.batch(rng).to(model.text.weight.device)
        count = len(batch.clean)
        spread = (rng.random() + rng.permutation(count) / count) % 1
        t = torch.from_numpy(np.minimum((1000 * spread).astype(np.int64), 999))
        errors = velocity_errors(model, self, batch, t)
        weight = self.weight(t).to(errors.device)
        detached, logs = errors.detach().cpu(), {}
        for low, high in BINS:
            inside = (t >= low) & (t < high)
            if inside.any():
                logs[f"v_{low}"] = float(detached[inside].mean())
        return (errors * weight).mean(), logs

    def weight(self, t: Tensor) -> Tensor:
        """(B,) float32."""
        alpha_bar = self.schedule.alphas_cumprod[t]
        signal_to_noise = alpha_bar / (1 - alpha_bar)
        bounded = signal_to_noise.clamp(max=self.recipe.snr_cap) + self.recipe.snr_floor
        return (bounded / (signal_to_noise + 1)).float()

    def _picture(self, row: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(clean, states, labels) of one sample of the foundation; left and right are swapped half of the time."""
        recipe, arrays = self.recipe, self.arrays
        view = int(rng.integers(arrays.rgba.shape[1]))
        rgba = arrays.rgba[row, view]
        if rng.random() < 0.5:
            rgba = rgba[:, ::-1]
        image = compose(rgba, random_background(len(rgba), recipe.white, rng))
        known = arrays.captions[row][arrays.group(view)]
        sentence = known[2] if len(known) > 2 and rng.random() < recipe.coloured else int(rng.choice(known))
        unit = (
            arrays.joint_captions[sentence]
            if rng.random() < recipe.label_of_caption
            else arrays.joint_pictures[row, view]
        )
        labels, lost = self._labels(unit, rng), rng.random(3) < (recipe.drop, recipe.drop, recipe.drop_all)
        spoken = 0 if lost[0] or lost[2] else sentence
        states = torch.from_numpy(arrays.tokens[spoken].astype(np.float32))
        return self.codec.encode(image), states, torch.zeros_like(labels) if lost[1] or lost[2] else labels

    def _view(self, row: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """One sample of `view`: target and reference of the same colours and light, both on white."""
        arrays = self.arrays
        group = arrays.rgba.shape[1] // len(arrays.captions[row])
        first = int(rng.integers(len(arrays.captions[row]))) * group
        reference, target = first + rng.permutation(group)[:2]
        rgba, camera = arrays.rgba[row, [reference, target]], arrays.camera[row, [reference, target]].astype(np.float64)
        mirrored = rng.random() < 0.5
        if mirrored:
            rgba, camera = rgba[:, :, ::-1], camera * (-1, 1, 1)
        images = self.codec.encode(torch.stack([compose(one, np.ones(3)) for one in rgba]))
        unit = arrays.joint_pictures[row, reference]
        labels = self._labels(unit, rng)
        pose = torch.cat([torch.from_numpy(unit.astype(np.float32)) * len(unit) ** 0.5, self.pose(camera)])
        present = torch.tensor(float(rng.random() >= self.recipe.drop))
        states = torch.from_numpy(arrays.tokens[0].astype(np.float32))
        return images[1], states, labels * present, images[0] * present, pose, present

    def pose(self, camera: NDArray[np.float64]) -> Tensor:
        """Reference's and target's (azimuth, elevation, distance), (2, 3) -> the four numbers of the target."""
        reference, target = camera
        place = (float(reference[1]), float(reference[0]), float(reference[2]), 1.0)
        return relative_camera(float(target[1]), float(target[0]), float(target[2]), 1.0, place)[0]

    def _labels(self, unit: NDArray[np.float16], rng: np.random.Generator) -> Tensor:
        """Class labels of one unit vector at noise level 0, or at a random one that favours little noise."""
        level = 0 if rng.random() < self.recipe.clean_label else int(1000 * rng.random() ** 2)
        scaled = torch.from_numpy(unit.astype(np.float32)) * len(unit) ** 0.5
        noise = torch.from_numpy(rng.standard_normal(len(unit)).astype(np.float32))
        noised = self.label_schedule.add_noise(scaled, noise, level)
        return torch.cat([noised, sinusoid(torch.tensor([level]), len(unit))[0]])


def velocity_errors(model: PriorNetwork, loss: PriorLoss, batch: Batch, t: Tensor) -> Tensor:
    """Mean squared error of v of every sample (B,) at timesteps t (B,); noise from torch's seeded generator."""
    clean = batch.clean
    noise = torch.randn(clean.shape).to(clean)
    alpha, sigma = (broadcast(part, clean) for part in loss.schedule.alpha_sigma(t))
    x_t = alpha * clean + sigma * noise
    if batch.reference is None:
        tokens, x = model.tokens(batch.states), x_t
    else:
        assert batch.pose is not None and batch.present is not None
        tokens = model.tokens(batch.states, batch.pose)
        token = tokens[:, -1:] * batch.present[:, None, None]
        tokens, x = torch.cat([tokens[:, :-1], token], 1), torch.cat([x_t, batch.reference], 1)
    predicted = model(x, t.to(clean.device), tokens, batch.labels).float()
    return functional.mse_loss(predicted, alpha * noise - sigma * clean, reduction="none").mean((1, 2, 3))
