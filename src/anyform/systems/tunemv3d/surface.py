"""From the last field and the views to a mesh: lattice, refinement, surface, colours of the views on it (§8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from anyform.fields.sparse_neus import read_lattice
from anyform.geometry import marching_cubes
from anyform.geometry.coloring import with_colors
from anyform.geometry.mesh import Mesh
from anyform.geometry.simplify import with_fewer_faces
from anyform.geometry.smoothing import smooth
from anyform.render.backprojection import Projection, project
from anyform.systems.tunemv3d.config import TuneMV3DSettings
from anyform.systems.tunemv3d.control import ControlBranch
from anyform.systems.tunemv3d.latent_neus import Rig, Seen
from anyform.systems.tunemv3d.refine import RefinePlan, foreground, refine
from anyform.types.camera import Cameras
from anyform.types.progress import Progress, Report

MESH_LATTICE = 64  # samples an edge of the lattice that is refined


@dataclass(frozen=True, slots=True)
class ViewColors:
    """Colours for any point: the views where they see it, blended by angle; the field's lattice (3, G, G, G) behind."""

    projection: Projection
    lattice: Tensor

    def color_at(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Points (N, 3) -> sRGB (N, 3) in [0, 1]."""
        shown, confidence = self.projection.sample(points)
        behind = read_lattice(self.lattice, torch.from_numpy(np.ascontiguousarray(points, np.float32))).numpy()
        share = confidence[:, None]
        return np.clip(share * shown + (1 - share) * behind, 0, 1).astype(np.float32)


@torch.no_grad()
def colored_lattice(branch: ControlBranch, seen: Seen, resolution: int) -> Tensor:
    """(4, G, G, G) on the CPU: distances, and colours in [0, 1] where the field has any (grey for the rest)."""
    lattice = branch.latent_neus.field.lattice(seen.scene, resolution).cpu()
    colors = (lattice[-3:] + 1) / 2
    return torch.cat([lattice[:1], colors.clamp(0, 1)])


def mesh_of(
    lattice: Tensor, pictures: Tensor, cameras: Cameras, settings: TuneMV3DSettings, *, seed: int, report: Report
) -> tuple[Mesh, tuple[str, ...]]:
    """The textured surface and what the user should know.

    lattice: of `colored_lattice`; pictures (V, 3, S, S) in [0, 1] on white, taken by `cameras`. Raises GateFailed where
    the field holds no surface.
    """
    if settings.refinement:
        rig = Rig.of(cameras, pictures.shape[-1])
        total = settings.refinement
        plan = RefinePlan(steps=total, resolution=MESH_LATTICE)
        with torch.enable_grad():
            lattice = refine(
                lattice, pictures, rig, plan, seed=seed, on_step=lambda done: report(Progress("refine", done, total))
            )
    report(Progress("mesh", message=f"{settings.mesh_resolution}³"))
    size = settings.mesh_resolution
    fine = functional.interpolate(lattice[None, :1], size=(size,) * 3, mode="trilinear", align_corners=True)
    sdf = np.ascontiguousarray(fine[0, 0].permute(2, 1, 0).numpy())
    bodies = marching_cubes.keep_bodies(marching_cubes.surface(sdf, -1.0, 2 / (size - 1)))
    mesh, notes = with_fewer_faces(smooth(bodies, settings.smoothing), settings.max_faces)
    rgba = torch.cat([pictures, foreground(pictures)], 1).permute(0, 2, 3, 1)
    taken = Cameras(cameras.camera_to_world, cameras.fov_y, *rgba.shape[1:3])
    projection = project(np.rint(rgba.numpy() * 255).astype(np.uint8), taken, mesh)
    mesh, told = with_colors(mesh, ViewColors(projection, lattice[1:]), settings.texture, report)
    return mesh, (*notes, *told)
