"""What a run begins with, and how one phase's result becomes the next one's beginning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anyform.errors import GateFailed
from anyform.fields.dmtet import DMTet, dmtet_from_nerf
from anyform.fields.nerf import NeRF, NerfConfig, nerf_from_sdf
from anyform.fields.texture import TextureConfig, TextureField, texture_from_nerf
from anyform.geometry.asset import Asset
from anyform.geometry.color import vertex_colors
from anyform.geometry.marching_cubes import keep_bodies
from anyform.geometry.mesh import Mesh
from anyform.geometry.sdf import mesh_to_sdf, normalise
from anyform.geometry.simplify import with_fewer_faces
from anyform.nn.grid_encoding import GridConfig, hashed
from anyform.systems.xbind.config import FieldSettings, PhaseSettings, XBindSettings
from anyform.systems.xbind.painted_mesh import PaintedMesh
from anyform.training.optim import Adan

SDF_SIZE = 64
FIT_STEPS, FIT_BATCH = 150, 4096  # of a NeRF to a given shape
REACH = 0.78  # half the longest side of a given shape: what the reference view shows


def encoding(fields: FieldSettings) -> GridConfig:
    """The grid of the settings."""
    if fields.encoding == "hash":
        return hashed(num_levels=fields.levels, log2_rows=fields.log2_rows)
    return GridConfig(resolutions=fields.resolutions)


def nerf_config(fields: FieldSettings) -> NerfConfig:
    """A radiance field of the settings' sizes."""
    return NerfConfig(
        encoding=encoding(fields),
        hidden=fields.width,
        hidden_layers=fields.layers,
        samples=fields.samples,
        occupancy=fields.occupancy,
        analytic_normals=False,
    )


def blob(fields: FieldSettings, device: str) -> NeRF:
    """A soft ball in the middle, its weights from torch's global generator."""
    return NeRF(replace(nerf_config(fields), blob_density=fields.blob_density)).to(device)


def grown(nerf: NeRF) -> int:
    """Steps to add so that a field which was fitted to a shape uses all levels of its encoding from the start."""
    config = nerf.config
    return config.start_step + len(config.encoding.resolutions) * config.level_every


def fitted(asset: Asset, fields: FieldSettings, device: str) -> NeRF:
    """A radiance field of a given shape and its colours, the shape brought to the size of the reference view."""
    mesh = framed(asset.mesh)
    sdf = mesh_to_sdf(mesh.vertices, mesh.faces, SDF_SIZE)
    field = nerf_from_sdf(sdf, nerf_config(fields), color_at=_nearest_color(mesh), steps=FIT_STEPS, batch=FIT_BATCH)
    return field.to(device)


def framed(mesh: Mesh) -> Mesh:
    """The mesh centred on its bounding box, its longest side ± `REACH`."""
    moved, _, _ = normalise(mesh.vertices, mesh.faces)
    scale = REACH / 0.9  # `normalise` leaves ± 0.9
    return Mesh((moved * scale).astype(np.float32), mesh.faces, mesh.uv, mesh.vertex_color, mesh.material)


def tetrahedral(nerf: NeRF, fields: FieldSettings) -> DMTet:
    """Phase II's surface of phase I's field, the colours inherited and frozen."""
    tets = dmtet_from_nerf(nerf, fields.density_threshold, resolution=fields.tets)
    if tets.texture is None:
        raise GateFailed("the radiance field gave its surface no colours")
    tets.texture.requires_grad_(False)
    return tets


def painted(field: Any, settings: XBindSettings) -> tuple[PaintedMesh, tuple[str, ...]]:
    """Phase III's surface: cleaned of crumbs, with few enough faces, painted like the field before; and notes."""
    if isinstance(field, NeRF):
        mesh = field.to_mesh(settings.mesh_resolution, settings.fields.density_threshold)
        texture = texture_from_nerf(field)
    elif isinstance(field, DMTet) and field.texture is not None:
        mesh, texture = field.to_mesh(), field.texture.requires_grad_(True)
    else:
        raise TypeError(f"a {type(field).__name__} has no surface with colours")
    whole = keep_bodies(Mesh(mesh.vertices, mesh.faces))
    small, notes = with_fewer_faces(whole, settings.max_faces)
    return PaintedMesh(small, texture), notes


def kept(asset: Asset, fields: FieldSettings, device: str) -> PaintedMesh:
    """A given mesh as it is, under new colours."""
    texture = TextureField(TextureConfig(encoding=encoding(fields), hidden=fields.width, hidden_layers=fields.layers))
    plain = Mesh(asset.mesh.vertices, asset.mesh.faces)
    return PaintedMesh(plain, texture.to(device)).to(device)


def optimiser(phase: PhaseSettings) -> Callable[[Any], torch.optim.Optimizer]:
    """What steps a representation's parameters: Adam or Adan, the networks with a rate of their own."""

    def build(representation: Any) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = []
        for name, parameters in representation.parameter_groups().items():
            learning = [parameter for parameter in parameters if parameter.requires_grad]
            if learning:
                rate = phase.network_rate if name == "networks" else phase.learning_rate
                groups.append({"params": learning, "lr": rate})
        if phase.optimiser == "adan":
            return Adan(groups, lr=phase.learning_rate, weight_decay=2e-8, max_grad_norm=5.0)
        return torch.optim.Adam(groups, lr=phase.learning_rate, betas=(0.9, 0.99), eps=1e-8)

    return build


def _nearest_color(mesh: Mesh) -> Callable[[NDArray[np.float32]], NDArray[np.floating]] | None:
    """sRGB of the nearest vertex, None for a mesh without colours."""
    from scipy.spatial import KDTree

    colors = vertex_colors(mesh)
    if colors is None:
        return None
    tree, rgb = KDTree(mesh.vertices), np.asarray(colors)[:, :3]
    return lambda points: rgb[tree.query(points)[1]]
