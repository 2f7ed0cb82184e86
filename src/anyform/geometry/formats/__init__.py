"""File formats: one file each, one table that maps suffixes to them, one door out (`save_asset`) and one in."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from xml.etree.ElementTree import ParseError

import numpy as np

from anyform.errors import BadInput
from anyform.geometry.asset import Asset
from anyform.geometry.formats.files import write_files
from anyform.geometry.formats.glb import write_glb
from anyform.geometry.formats.glb_reader import read_glb, read_glb_extras
from anyform.geometry.formats.obj import read_obj, write_obj, write_obj_zip
from anyform.geometry.formats.ply import read_ply, write_ply
from anyform.geometry.formats.stl import read_stl, write_stl
from anyform.geometry.formats.threemf import read_3mf, read_3mf_extras, write_3mf
from anyform.geometry.formats.usdz import write_usdz
from anyform.geometry.mesh import Mesh

if TYPE_CHECKING:
    import trimesh

_T = TypeVar("_T")

# A writer maps an asset and the name of its main file to the content of every file it needs, the main one last.
Writer = Callable[[Asset, str], dict[str, bytes]]

FORMATS: dict[str, Writer] = {
    ".glb": write_glb,
    ".obj": write_obj,
    ".obj.zip": write_obj_zip,
    ".ply": write_ply,
    ".stl": write_stl,
    ".3mf": write_3mf,
    ".usdz": write_usdz,
}

READERS: dict[str, Callable[[Path], Mesh]] = {
    ".glb": read_glb,
    ".obj": read_obj,
    ".ply": read_ply,
    ".stl": read_stl,
    ".3mf": read_3mf,
}

# What decoding damaged numbers, text and containers raises; a reader's own checks raise BadInput.
_DAMAGE = (
    *(struct.error, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError),
    *(ParseError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError),
)


def format_of(path: Path) -> str:
    """The key of FORMATS that a file name ends with. Raises BadInput naming the known ones."""
    for suffix in sorted(FORMATS, key=len, reverse=True):
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return suffix
    raise BadInput(f"{path.name[:80]!r} has no known 3D format: end the name with one of {', '.join(FORMATS)}")


def save_asset(asset: Asset, path: Path, force: bool = False) -> Path:
    """Write an asset to a file whose suffix chooses the format.

    Atomic: the files appear whole or not at all, and what was there before stays where writing fails. Raises BadInput,
    one sentence, for an unknown suffix, an existing file without `force`, and everything the file system refuses.
    Warns of what the format cannot hold.
    """
    writer = FORMATS[format_of(path)]
    write_files(path, lambda: writer(asset, path.name), force=force)
    return path


def read_mesh(path: str | Path) -> Mesh:
    """The mesh of a GLB, OBJ, PLY, STL or 3MF file, +y up; STL and 3MF come back in metres, others in their own units.

    Safe for files from strangers: declared counts are compared with the bytes present before anything is allocated,
    nothing but the file is opened (an OBJ may name an MTL and its textures beside it), and there is no network.
    Raises BadInput, one sentence, for anything that cannot be read.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BadInput(f"{path.name[:80]!r} is no mesh that can be read: use one of {', '.join(READERS)}")
    with np.errstate(all="ignore"):
        return _sheltered(reader, path)


def read_extras(path: str | Path) -> dict[str, Any]:
    """The provenance inside a GLB or 3MF made by anyform; empty for one made elsewhere, BadInput for other formats."""
    path = Path(path)
    readers = {".glb": read_glb_extras, ".3mf": read_3mf_extras}
    if path.suffix.lower() not in readers:
        raise BadInput(f"{path.name[:80]!r} carries no provenance; only .glb and .3mf do")
    return _sheltered(readers[path.suffix.lower()], path)


def _sheltered(reader: Callable[[Path], _T], path: Path) -> _T:
    """The reader's result; every complaint becomes BadInput that names the file."""
    try:
        return reader(path)
    except BadInput as error:
        raise BadInput(f"cannot use {path.name[:80]!r}: {error}") from error
    except _DAMAGE as error:
        raise BadInput(f"cannot use {path.name[:80]!r}: it is damaged ({type(error).__name__})") from error


def to_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    """The mesh as a `trimesh.Trimesh`, vertices in the same order, with its texture or its vertex colours."""
    import trimesh
    from trimesh.visual import ColorVisuals, TextureVisuals
    from trimesh.visual.material import PBRMaterial

    visual = None
    material = mesh.material
    if material is not None and material.base_color is not None and mesh.uv is not None:
        from PIL import Image

        surface = PBRMaterial(
            baseColorTexture=Image.fromarray(material.base_color),
            baseColorFactor=list(material.base_color_factor),
            metallicFactor=material.metallic_factor,
            roughnessFactor=material.roughness_factor,
        )
        visual = TextureVisuals(uv=mesh.uv, material=surface)
    elif mesh.vertex_color is not None:
        visual = ColorVisuals(vertex_colors=np.round(np.clip(mesh.vertex_color, 0, 1) * 255).astype(np.uint8))
    return trimesh.Trimesh(mesh.vertices, mesh.faces, visual=visual, process=False)
