"""GLB: the reader. Believes no number in the file before it has compared it with the bytes that are there.

Opens nothing but the file itself: buffers and images with a `uri` are refused. Reads triangles, strips and fans with
their node transforms, texture coordinates, vertex colours, base colours and base-colour textures; Draco needs DracoPy.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.geometry.color import linear_to_srgb
from anyform.geometry.formats.draco import decode_draco
from anyform.geometry.formats.files import read_limited
from anyform.geometry.formats.images import decode_image
from anyform.geometry.formats.parts import MAX_VERTICES, Part, check_counts, join
from anyform.geometry.mesh import Material, Mesh

MAX_GLB_BYTES = 2**32 - 1
MAX_JSON_BYTES = 64 << 20
MAX_DEPTH = 256
MAX_NODES = 1_000_000
_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_DRACO = "KHR_draco_mesh_compression"
# Extensions that change what the numbers mean are read here; those below only change how the surface shines.
_READABLE = {_DRACO, "KHR_mesh_quantization", "KHR_texture_transform", "KHR_xmp_json_ld", "EXT_texture_webp"}


@dataclass(slots=True)
class _Document:
    """The JSON of a GLB and its binary chunk. Materials are decoded once and shared."""

    json: dict[str, Any]
    binary: bytes
    materials: dict[int, Material] = field(default_factory=dict)
    vertices: int = 0
    faces: int = 0

    def item(self, section: str, index: Any) -> dict[str, Any]:
        """Entry `index` of a top-level list. Raises BadInput where it is missing or not an object."""
        entries = self.json.get(section, [])
        if not isinstance(entries, list) or not _is_index(index) or index >= len(entries):
            raise BadInput(f"it refers to entry {str(index)[:20]} of {section}, which does not exist")
        if not isinstance(entries[index], dict):
            raise BadInput(f"entry {index} of its {section} is not an object")
        return entries[index]


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def read_glb(path: Path) -> Mesh:
    """The mesh of all nodes of the default scene. Raises BadInput where anything in the file contradicts itself."""
    document = _open(read_limited(path, MAX_GLB_BYTES))
    required = document.json.get("extensionsRequired", [])
    unknown = [e for e in required if e not in _READABLE and not str(e).startswith(("KHR_materials_", "KHR_lights_"))]
    if unknown:
        raise BadInput(f"it needs the glTF extension {str(unknown[0])[:60]!r}, which is not read; export it without")
    return join(_scene_parts(document))


def read_glb_extras(path: Path) -> dict[str, Any]:
    """asset.extras.anyform of a GLB made by anyform, else an empty dictionary."""
    header = _open(read_limited(path, MAX_GLB_BYTES)).json.get("asset", {})
    extras = header.get("extras") if isinstance(header, dict) else None
    found = extras.get("anyform") if isinstance(extras, dict) else None
    return found if isinstance(found, dict) else {}


def _open(content: bytes) -> _Document:
    if len(content) < 20 or content[:4] != b"glTF":
        raise BadInput("it is not a GLB: it does not start with 'glTF'")
    version, total, size, kind = struct.unpack_from("<IIII", content, 4)
    if version != 2:
        raise BadInput(f"it is glTF version {version}; version 2 is read")
    if total > len(content):
        raise BadInput(f"its header says {total} bytes, but the file has {len(content)}")
    if kind != 0x4E4F534A or size > MAX_JSON_BYTES or 20 + size > total:
        raise BadInput(f"its JSON part of {size} bytes does not fit the {total} bytes of the file")
    document = json.loads(content[20 : 20 + size])
    if not isinstance(document, dict):
        raise BadInput("its JSON part is not an object")
    binary, at = b"", 20 + size
    if at + 8 <= total:
        size, kind = struct.unpack_from("<II", content, at)
        if kind == 0x004E4942:
            if at + 8 + size > total:
                raise BadInput(f"its binary part says {size} bytes, but {total - at - 8} follow")
            binary = content[at + 8 : at + 8 + size]
    for section in ("buffers", "images"):
        for entry in document.get(section, []):
            if isinstance(entry, dict) and "uri" in entry:
                raise BadInput(f"its {section} lie outside the file (a uri), which is never followed; embed them")
    return _Document(document, binary)


def _scene_parts(document: _Document) -> list[Part]:
    """Every primitive of every node under the default scene, in world space."""
    nodes = document.json.get("nodes", [])
    if not isinstance(nodes, list) or len(nodes) > MAX_NODES:
        raise BadInput(f"it lists more than {MAX_NODES} nodes or none that can be read")
    if document.json.get("scenes"):
        roots = document.item("scenes", document.json.get("scene", 0)).get("nodes", [])
    else:
        roots = list(range(len(nodes)))
    parts: list[Part] = []
    seen: set[int] = set()
    waiting = [(index, np.eye(4), 0) for index in reversed(roots)]
    while waiting:
        index, parent, depth = waiting.pop()
        node = document.item("nodes", index)
        if index in seen:
            raise BadInput(f"its node {index} has two parents or is its own ancestor")
        if depth > MAX_DEPTH:
            raise BadInput(f"its nodes are nested more than {MAX_DEPTH} deep")
        seen.add(index)
        world = parent @ _local(node)
        if "mesh" in node:
            for primitive in document.item("meshes", node["mesh"]).get("primitives", []):
                parts += _part(document, primitive, world)
        waiting += [(child, world, depth + 1) for child in reversed(node.get("children", []))]
    return parts


def _local(node: dict[str, Any]) -> NDArray[np.float64]:
    """(4, 4) transform of a node, from its matrix or its translation, rotation and scale."""
    if "matrix" in node:
        matrix = np.array(node["matrix"], np.float64).reshape(4, 4).T
    else:
        x, y, z, w = (float(value) for value in node.get("rotation", (0, 0, 0, 1)))
        matrix = np.eye(4)
        matrix[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        matrix[:3, :3] *= np.array(node.get("scale", (1, 1, 1)), np.float64)
        matrix[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64)
    if not np.isfinite(matrix).all():
        raise BadInput("the transform of a node is not finite")
    return matrix


def _part(document: _Document, primitive: dict[str, Any], world: NDArray[np.float64]) -> list[Part]:
    """A primitive as a list of one part; empty for points and lines."""
    mode = primitive.get("mode", 4)
    if mode not in (4, 5, 6):
        return []
    attributes = primitive.get("attributes", {})
    material = _material(document, primitive["material"]) if "material" in primitive else None
    compressed = primitive.get("extensions", {}).get(_DRACO)
    positions, indices, uv, rgba = (
        _plain(document, primitive, attributes)
        if compressed is None
        else decode_draco(_view(document, compressed["bufferView"]), MAX_VERTICES)
    )
    document.vertices += len(positions)
    document.faces += len(indices) // 3 if mode == 4 else max(0, len(indices) - 2)
    check_counts(document.vertices, document.faces)
    if uv is not None and "material" in primitive:
        uv = _placed_uv(document, primitive["material"], uv)
    faces = _triangles(indices.astype(np.int64), mode)
    if np.linalg.det(world[:3, :3]) < 0:
        faces = faces[:, ::-1]
    color = None if rgba is None else linear_to_srgb(rgba[:, :3])
    return [Part(positions @ world[:3, :3].T + world[:3, 3], faces, uv, color, material)]


def _plain(
    document: _Document, primitive: dict[str, Any], attributes: dict[str, Any]
) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Positions, indices, texture coordinates (v up) and linear colours of an uncompressed primitive."""
    if "POSITION" not in attributes:
        raise BadInput("a primitive has no POSITION")
    positions = _accessor(document, attributes["POSITION"], 3)
    indices = (
        _accessor(document, primitive["indices"], 1, integers=True)[:, 0]
        if "indices" in primitive
        else np.arange(len(positions))
    )
    uv = rgba = None
    if "TEXCOORD_0" in attributes:
        uv = _accessor(document, attributes["TEXCOORD_0"], 2) * [1, -1] + [0, 1]
    if "COLOR_0" in attributes:
        rgba = _accessor(document, attributes["COLOR_0"], 3)
    for name, values in (("TEXCOORD_0", uv), ("COLOR_0", rgba)):
        if values is not None and len(values) != len(positions):
            raise BadInput(f"its {name} has {len(values)} entries for {len(positions)} positions")
    return positions, indices, uv, rgba


def _triangles(indices: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    """(F, 3) from a list (mode 4), strip (5) or fan (6)."""
    if mode == 4:
        if len(indices) % 3:
            raise BadInput(f"it has {len(indices)} indices, which is no whole number of triangles")
        return indices.reshape(-1, 3)
    step = np.arange(max(0, len(indices) - 2))
    if mode == 6:
        return np.stack([indices[step * 0], indices[step + 1], indices[step + 2]], 1)
    odd = step % 2
    return np.stack([indices[step], indices[step + 1 + odd], indices[step + 2 - odd]], 1)


def _view(document: _Document, index: Any) -> bytes:
    view = document.item("bufferViews", index)
    if "EXT_meshopt_compression" in view.get("extensions", {}):
        raise BadInput("it is compressed with meshopt, which is not read; export it without")
    start, length = view.get("byteOffset", 0), view.get("byteLength", 0)
    if view.get("buffer", 0) != 0 or not _is_index(start) or not _is_index(length):
        raise BadInput(f"its buffer view {index} is malformed")
    if start + length > len(document.binary):
        raise BadInput(f"its buffer view {index} ends at byte {start + length} of {len(document.binary)}")
    return document.binary[start : start + length]


def _accessor(document: _Document, index: Any, width: int, integers: bool = False) -> NDArray[Any]:
    """(count, W) numbers, W >= width: float64, normalised integers in [0, 1] or [−1, 1]; or integers as they are."""
    accessor = document.item("accessors", index)
    if "sparse" in accessor or "bufferView" not in accessor:
        raise BadInput("it uses sparse accessors, which are not read; export it without")
    component, columns = accessor.get("componentType"), _WIDTHS.get(accessor.get("type", ""), 0)
    if component not in _COMPONENTS or columns < width or (integers and component == 5126):
        raise BadInput(f"its accessor {index} has a type that does not fit its use")
    content = _view(document, accessor["bufferView"])
    dtype = np.dtype(_COMPONENTS[component])
    count, start = accessor.get("count", 0), accessor.get("byteOffset", 0)
    stride = document.item("bufferViews", accessor["bufferView"]).get("byteStride", dtype.itemsize * columns)
    if not (_is_index(count) and _is_index(start) and _is_index(stride)) or stride < dtype.itemsize * columns:
        raise BadInput(f"its accessor {index} is malformed")
    needed = start + stride * (count - 1) + dtype.itemsize * columns if count else 0
    if needed > len(content):
        raise BadInput(f"its accessor {index} declares {count} entries, {needed} bytes, in a view of {len(content)}")
    raw = np.ndarray((count, columns), dtype, content, start, (stride, dtype.itemsize))
    if integers:
        return raw
    if accessor.get("normalized") and component != 5126:
        return np.maximum(raw.astype(np.float64) / np.iinfo(dtype).max, -1)
    return raw.astype(np.float64)


def _material(document: _Document, index: Any) -> Material:
    """The base colour of a material, decoded once."""
    if index not in document.materials:
        entry = document.item("materials", index)
        surface = entry.get("pbrMetallicRoughness", {})
        red, green, blue, alpha = (float(value) for value in surface.get("baseColorFactor", (1, 1, 1, 1)))
        texture = None
        if "baseColorTexture" in surface:
            source = document.item("textures", surface["baseColorTexture"].get("index"))
            image = source.get("extensions", {}).get("EXT_texture_webp", source).get("source")
            texture = decode_image(_view(document, document.item("images", image).get("bufferView")))
        document.materials[index] = Material(
            base_color=texture,
            base_color_factor=(red, green, blue, alpha),
            metallic_factor=float(surface.get("metallicFactor", 1)),
            roughness_factor=float(surface.get("roughnessFactor", 1)),
        )
    return document.materials[index]


def _placed_uv(document: _Document, material: Any, uv: NDArray[np.float64]) -> NDArray[np.float64]:
    """Texture coordinates (v up) after KHR_texture_transform, which works on v down."""
    surface = document.item("materials", material).get("pbrMetallicRoughness", {})
    transform = surface.get("baseColorTexture", {}).get("extensions", {}).get("KHR_texture_transform")
    if transform is None:
        return uv
    angle = float(transform.get("rotation", 0))
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    down = uv * [1, -1] + [0, 1]
    scaled = down * np.array(transform.get("scale", (1, 1)), np.float64)
    return (scaled @ rotation.T + np.array(transform.get("offset", (0, 0)), np.float64)) * [1, -1] + [0, 1]
