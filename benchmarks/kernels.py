"""Compiled kernels against their definitions in torch: ratios of one run, and the gradient of silhouettes.

    python benchmarks/kernels.py [--rounds 7] [--only hash raster …] [--json]

One thread. A side's time is the processor time (not the clock on the wall: neighbours do not count) of its best round,
forward and backward with the same incoming gradient, rounds interleaved. The definitions are the product's own twins,
none of them naive: the grid's gathers all levels at once, compositing is packed, marching looks every step up at once,
the rasteriser expands fragments without a loop and is given the list of silhouette pairs, marching tetrahedra find
their edges by `unique`. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import os

# Read once, when the libraries are loaded below.
os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import argparse
import datetime
import json
import platform
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from anyform.fields.marching_tets import marching_tets, marching_tets_reference
from anyform.geometry.tets import grid_tets, grid_vertices
from anyform.nn.grid_encoding import encode, encode_reference, hashed, levels
from anyform.render import raster_torch, silhouette
from anyform.render.rasteriser import Compiled
from anyform.render.rays import camera_rays, march, march_reference
from anyform.render.volume import composite, composite_reference
from anyform.types.camera import Cameras

Sides = tuple[Callable[[], object], Callable[[], object]]
BARS = {
    "hash grid, T = 2^19": 4.0,
    "hash grid, T = 2^15": 8.0,
    "compositing, thin": 2.0,
    "compositing, solid": 2.0,
    "marching": 5.0,
    "rasteriser, 20 k on 128²": 4.0,
    "rasteriser, 49 k on 256²": 4.0,
    "marching tetrahedra, 64³": 5.0,
}


def with_backward(output: Callable[[], Tensor], inputs: list[Tensor], seed: int = 0) -> Callable[[], None]:
    """A step: forward, and backward of a fixed random gradient."""
    generator = torch.Generator().manual_seed(seed)
    pull: list[Tensor] = []

    def step() -> None:
        for one in inputs:
            one.grad = None
        made = output()
        if not pull or pull[0].shape != made.shape:
            pull[:] = [torch.randn(made.shape, generator=generator)]
        made.backward(pull[0].clone())

    return step


def hash_grid(log2_rows: int) -> Sides:
    """16 384 points on 256 rays, 16 levels from 16 to 4096; gradient to the table."""
    grid = levels(hashed(log2_rows=log2_rows))
    table = (torch.rand(int(grid.offset[-1]), 2) * 0.2 - 0.1).requires_grad_()
    origin, along = torch.rand(256, 1, 3) * 0.2, torch.rand(256, 1, 3) * 0.7
    points = (origin + along * torch.linspace(0, 1, 64)[None, :, None]).reshape(-1, 3).contiguous()
    return (
        with_backward(lambda: encode_reference(points, table, grid, 16), [table]),
        with_backward(lambda: encode(points, table, grid, 16), [table]),
    )


def compositing(density_scale: float) -> Sides:
    """64² rays of 64 samples; gradients to density and colour."""
    rays, steps = 64 * 64, 64
    start, delta = torch.arange(rays + 1) * steps, torch.full((rays * steps,), 2 / steps)
    density, color = (
        (torch.rand(rays * steps) * density_scale).requires_grad_(),
        torch.rand(rays * steps, 3).requires_grad_(),
    )
    t, background = torch.rand(rays * steps), torch.ones(rays, 3)

    def pixels(function: Callable[..., tuple[Tensor, ...]]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            seen, alpha, *_ = function(density, color, t, delta, start, background)
            return torch.cat([seen, alpha[:, None]], 1)

        return run

    inputs = [density, color]
    return with_backward(pixels(composite_reference), inputs), with_backward(pixels(composite), inputs)


def marching() -> Sides:
    """64² rays through a 32³ grid in which a ball of radius 0.6 is occupied."""
    axis = (torch.arange(32) + 0.5) / 16 - 1
    occupied = torch.cartesian_prod(axis, axis, axis).norm(dim=1).view(32, 32, 32) < 0.6
    rays = camera_rays(Cameras.orbit(np.zeros(1), np.zeros(1), 2.5, np.deg2rad(40), 64), 1.0)
    step, middle = 2 * 3**0.5 / 256, torch.full((64 * 64,), 0.5)
    return (
        lambda: march_reference(rays, occupied, 1.0, step, middle),
        lambda: march(rays, occupied, 1.0, step, middle),
    )


def ball(triangles: int) -> tuple[np.ndarray, Tensor]:
    """A bumpy sphere of about so many triangles."""
    m = int((triangles / 4) ** 0.5)
    theta, phi = np.meshgrid(np.arange(m + 1) / m * np.pi, np.arange(2 * m) / m * np.pi, indexing="ij")
    radius = 0.6 + 0.06 * np.sin(7 * phi) * np.sin(theta) ** 2 * np.sin(5 * theta)
    unit = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1)
    i, j = np.meshgrid(np.arange(m), np.arange(2 * m), indexing="ij")
    k = (j + 1) % (2 * m)
    a, b, c, d = i * 2 * m + j, i * 2 * m + k, (i + 1) * 2 * m + j, (i + 1) * 2 * m + k
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (b, d, c))])
    return (radius[..., None] * unit).reshape(-1, 3), torch.from_numpy(faces)


def clip(vertices: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Seen from a distance of 2.5 at an angle, fov 40°."""
    c, s = np.cos(0.4), np.sin(0.4)
    p = vertices @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) + [0, 0, -2.5]
    f, near, far = 1 / np.tan(np.deg2rad(20)), 0.1, 10
    z = (far + near) / (near - far) * p[:, 2] + 2 * far * near / (near - far)
    return torch.from_numpy(np.stack([f * p[:, 0], f * p[:, 1], z, -p[:, 2]], 1)).to(dtype)


def rasteriser(triangles: int, size: int) -> Sides:
    """Visibility, three channels, neighbours, silhouettes, blending; gradients to positions and attributes."""
    vertices, faces = ball(triangles)
    position, attributes = clip(vertices, torch.float32).requires_grad_(), torch.rand(len(vertices), 3).requires_grad_()
    _, depth, face = raster_torch.rasterise(position, faces, size, size)
    listed = silhouette.pairs(position.detach().double(), faces, face, depth)

    def definition() -> Tensor:
        seen = raster_torch.rasterise(position, faces, size, size)[2]
        return silhouette.blend(raster_torch.interpolate(attributes, position, faces, seen), position, listed)

    def compiled() -> Tensor:
        draw = Compiled()  # a new one, so that the neighbours are found again
        seen = draw.rasterise(position, faces, size, size)
        return draw.antialias(draw.interpolate(attributes, position, faces, seen), position, faces, seen)

    inputs = [position, attributes]
    return with_backward(definition, inputs), with_backward(compiled, inputs)


def tetrahedra(resolution: int) -> Sides:
    """A sphere; gradients to the distances and the deformation."""
    vertices, tets = torch.from_numpy(grid_vertices(resolution)), torch.from_numpy(grid_tets(resolution))
    sdf, offset = ((vertices - 0.5).norm(dim=1) - 0.3).requires_grad_(), torch.zeros_like(vertices).requires_grad_()
    half = 0.5 / resolution

    def definition() -> Tensor:
        return marching_tets_reference(vertices + torch.tanh(offset) * half, sdf, tets)[0].square().sum()

    def compiled() -> Tensor:
        def place(index: Tensor) -> Tensor:
            return vertices[index] + torch.tanh(offset.index_select(0, index)) * half

        return marching_tets(place, sdf, resolution)[0].square().sum()

    return with_backward(definition, [sdf, offset]), with_backward(compiled, [sdf, offset])


def silhouette_ratio(triangles: int, size: int) -> float:
    """d(Σ alpha)/d(scale) over twice the area: 1 where the outline has the gradient that areas have."""
    vertices, faces = ball(triangles)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    position = clip(vertices, torch.float64)
    moved = torch.cat([position[:, :2] * scale, position[:, 2:]], 1)
    draw, factor = Compiled(), 2048 // size
    seen = draw.rasterise(moved, faces, size, size)
    draw.antialias((seen.face >= 0).double()[..., None], moved, faces, seen).sum().backward()
    area = (Compiled().rasterise(position, faces, size * factor, size * factor).face >= 0).sum().item() / factor**2
    return float(scale.grad) / (2 * area) if scale.grad is not None else 0.0


def best(sides: Sides, rounds: int) -> tuple[float, float]:
    """Processor seconds of both sides: the best round, sides taking turns, after one round that compiles."""
    seconds = [np.inf, np.inf]
    for n in range(rounds + 1):
        for side, run in enumerate(sides):
            begin = time.process_time()
            run()
            if n:
                seconds[side] = min(seconds[side], time.process_time() - begin)
    return seconds[0], seconds[1]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compiled kernels against their definitions in torch.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=[], help="kernels whose name holds one of these words")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    make: dict[str, Callable[[], Sides]] = {
        "hash grid, T = 2^19": lambda: hash_grid(19),
        "hash grid, T = 2^15": lambda: hash_grid(15),
        "compositing, thin": lambda: compositing(1.0),
        "compositing, solid": lambda: compositing(40.0),
        "marching": marching,
        "rasteriser, 20 k on 128²": lambda: rasteriser(20_000, 128),
        "rasteriser, 49 k on 256²": lambda: rasteriser(50_000, 256),
        "marching tetrahedra, 64³": lambda: tetrahedra(64),
    }
    chosen = [name for name in make if not arguments.only or any(word in name for word in arguments.only)]
    ratios, failed = {}, False
    if not arguments.json:
        print(f"kernels, 1 thread, {platform.machine()}, {datetime.datetime.now(datetime.UTC).date().isoformat()}")
    for name in chosen:
        slow, fast = best(make[name](), arguments.rounds)
        ratios[name] = slow / fast
        failed |= ratios[name] < BARS[name]
        if not arguments.json:
            print(
                f"  {name:28s} {1e3 * slow:8.1f} ms -> {1e3 * fast:7.2f} ms   {slow / fast:5.1f}x (bar {BARS[name]:g}x)"
            )
    if not arguments.only or "silhouette" in arguments.only:
        for triangles, size in ((1000, 128), (20_000, 128), (200_000, 128), (200_000, 512)):
            key = f"silhouette, {triangles // 1000} k on {size}²"
            ratios[key] = silhouette_ratio(triangles, size)
            failed |= not 0.97 <= ratios[key] <= 1.03
            if not arguments.json:
                print(f"  {key:28s} gradient over 2 · area: {ratios[key]:.4f} (bar 0.97 to 1.03)")
    if arguments.json:
        print(json.dumps({"machine": platform.machine(), "ratios": ratios, "bars_met": not failed}))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
