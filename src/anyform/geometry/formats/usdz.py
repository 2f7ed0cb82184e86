"""USDZ (https://openusd.org/release/spec_usdz.html) through usd-core, the optional package of the `usd` extra.

+y up, metersPerUnit = 1. Vertex colours become primvars:displayColor (linear), the base-colour texture a
UsdPreviewSurface. The container is our own: uncompressed, 64-byte aligned, with fixed dates.
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from anyform.errors import MissingDependency
from anyform.geometry.asset import Asset
from anyform.geometry.color import srgb_to_linear
from anyform.geometry.formats.archive import stored_aligned
from anyform.geometry.formats.glb import credit, png, vertex_normals
from anyform.geometry.mesh import Material, Mesh
from anyform.geometry.placement import standing


def write_usdz(asset: Asset, name: str) -> dict[str, bytes]:
    """{name: the file}. Raises MissingDependency without usd-core."""
    usd = _libraries()
    mesh = standing(asset.mesh, asset.metres)
    with tempfile.TemporaryDirectory() as folder:
        crate = Path(folder) / "asset.usdc"
        stage = usd.Usd.Stage.CreateNew(str(crate))
        usd.UsdGeom.SetStageUpAxis(stage, usd.UsdGeom.Tokens.y)
        usd.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        root = usd.UsdGeom.Xform.Define(stage, "/asset")
        stage.SetDefaultPrim(root.GetPrim())
        stage.SetMetadata("comment", f"anyform {asset.provenance.version}; {credit(asset.provenance)}")
        surface = _surface(usd, stage, mesh)
        texture = None if mesh.material is None else mesh.material.base_color
        if mesh.material is not None:
            _bind(usd, stage, surface, mesh.material)
        stage.GetRootLayer().Save()
        files = {"asset.usdc": crate.read_bytes()}
    if texture is not None:
        files["textures/base_color.png"] = png(texture)
    return {name: stored_aligned(files, 64)}


def _libraries() -> SimpleNamespace:
    """usd-core's modules. They describe themselves to no type checker, so they are fetched by name."""
    try:
        return SimpleNamespace(
            **{n: import_module(f"pxr.{n}") for n in ("Gf", "Sdf", "Usd", "UsdGeom", "UsdShade", "Vt")}
        )
    except ImportError as error:
        raise MissingDependency("usd-core", extra="usd") from error


def _surface(usd: SimpleNamespace, stage: Any, mesh: Mesh) -> Any:
    surface = usd.UsdGeom.Mesh.Define(stage, "/asset/surface")
    surface.CreatePointsAttr(usd.Vt.Vec3fArray.FromNumpy(mesh.vertices))
    surface.CreateFaceVertexCountsAttr(usd.Vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, np.int32)))
    surface.CreateFaceVertexIndicesAttr(usd.Vt.IntArray.FromNumpy(mesh.faces.ravel()))
    surface.CreateNormalsAttr(usd.Vt.Vec3fArray.FromNumpy(vertex_normals(mesh)))
    surface.SetNormalsInterpolation(usd.UsdGeom.Tokens.vertex)
    surface.CreateSubdivisionSchemeAttr(usd.UsdGeom.Tokens.none)
    surface.CreateExtentAttr([usd.Gf.Vec3f(*corner) for corner in mesh.bounds.tolist()])
    if mesh.vertex_color is not None:
        linear = srgb_to_linear(mesh.vertex_color).astype(np.float32)
        surface.CreateDisplayColorPrimvar(usd.UsdGeom.Tokens.vertex).Set(usd.Vt.Vec3fArray.FromNumpy(linear))
    if mesh.uv is not None:
        primvar = usd.UsdGeom.PrimvarsAPI(surface).CreatePrimvar(
            "st", usd.Sdf.ValueTypeNames.TexCoord2fArray, usd.UsdGeom.Tokens.vertex
        )
        primvar.Set(usd.Vt.Vec2fArray.FromNumpy(mesh.uv))
    return surface


def _bind(usd: SimpleNamespace, stage: Any, surface: Any, material: Material) -> None:
    look = usd.UsdShade.Material.Define(stage, "/asset/look")
    shader = usd.UsdShade.Shader.Define(stage, "/asset/look/surface")
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("roughness", usd.Sdf.ValueTypeNames.Float).Set(material.roughness_factor)
    shader.CreateInput("metallic", usd.Sdf.ValueTypeNames.Float).Set(material.metallic_factor)
    diffuse = shader.CreateInput("diffuseColor", usd.Sdf.ValueTypeNames.Color3f)
    if material.base_color is None:
        diffuse.Set(usd.Gf.Vec3f(*material.base_color_factor[:3]))
    else:
        reader = usd.UsdShade.Shader.Define(stage, "/asset/look/st")
        reader.CreateIdAttr("UsdPrimvarReader_float2")
        reader.CreateInput("varname", usd.Sdf.ValueTypeNames.String).Set("st")
        image = usd.UsdShade.Shader.Define(stage, "/asset/look/base_color")
        image.CreateIdAttr("UsdUVTexture")
        image.CreateInput("file", usd.Sdf.ValueTypeNames.Asset).Set("textures/base_color.png")
        image.CreateInput("sourceColorSpace", usd.Sdf.ValueTypeNames.Token).Set("sRGB")
        output = reader.CreateOutput("result", usd.Sdf.ValueTypeNames.Float2)
        image.CreateInput("st", usd.Sdf.ValueTypeNames.Float2).ConnectToSource(output)
        diffuse.ConnectToSource(image.CreateOutput("rgb", usd.Sdf.ValueTypeNames.Float3))
    look.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
    usd.UsdShade.MaterialBindingAPI.Apply(surface.GetPrim()).Bind(look)
