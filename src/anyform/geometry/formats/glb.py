"""GLB, the binary form of glTF 2.0 (https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html): the writer.

+y up, 1 unit = 1 m, standing on y = 0. COLOR_0 is linear and 16-bit; textures are embedded PNG, base colour in sRGB.
Provenance sits in asset.extras.anyform, and again in XMP (KHR_xmp_json_ld) for readers who know no anyform.
Same asset, same bytes.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.geometry.asset import Asset, Provenance
from anyform.geometry.color import srgb_to_linear
from anyform.geometry.mesh import Material, Mesh
from anyform.geometry.placement import standing
from anyform.geometry.topology import face_cross, weld

MAX_BYTES = 2**32 - 1  # lengths in a GLB are 32-bit
_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_VERTICES, _INDICES = 34962, 34963
_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@dataclass(slots=True)
class _Buffer:
    """The binary chunk under construction, with the views and accessors that point into it."""

    parts: list[bytes] = field(default_factory=list)
    length: int = 0
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)

    def view(self, content: bytes, target: int | None = None) -> int:
        """Appends bytes, padded to four, and returns the index of their buffer view."""
        entry: dict[str, Any] = {"buffer": 0, "byteOffset": self.length, "byteLength": len(content)}
        self.views.append(entry if target is None else {**entry, "target": target})
        padded = content + b"\0" * (-len(content) % 4)
        self.parts.append(padded)
        self.length += len(padded)
        return len(self.views) - 1

    def array(self, values: NDArray[Any], component: int, kind: str, target: int, **entry: Any) -> int:
        """Appends an array and returns the index of its accessor."""
        view = self.view(np.ascontiguousarray(values).tobytes(), target)
        accessor = {"bufferView": view, "componentType": component, "count": len(values), "type": kind}
        self.accessors.append({**accessor, **entry})
        return len(self.accessors) - 1


def write_glb(asset: Asset, name: str) -> dict[str, bytes]:
    """{name: the file}. Raises BadInput where the file would pass the 4 GiB that a GLB can address."""
    mesh = standing(asset.mesh, asset.metres)
    expected = mesh.vertices.size * 8 + len(mesh.vertices) * 16 + mesh.faces.size * 4
    _refuse_too_large(expected)
    buffer = _Buffer()
    primitive = {"attributes": _attributes(mesh, buffer), "indices": _indices(mesh, buffer), "material": 0}
    document: dict[str, Any] = {
        "asset": _header(asset.provenance),
        "extensionsUsed": ["KHR_xmp_json_ld"],
        "extensions": {"KHR_xmp_json_ld": {"packets": [_xmp(asset.provenance)]}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "asset"}],
        "meshes": [{"primitives": [primitive], "name": "asset"}],
        **_material(mesh.material or Material(), buffer),
    }
    document |= {
        "buffers": [{"byteLength": buffer.length}],
        "bufferViews": buffer.views,
        "accessors": buffer.accessors,
    }
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + buffer.length
    _refuse_too_large(total)
    head = struct.pack("<4sIIII", b"glTF", 2, total, len(text), 0x4E4F534A)
    return {name: b"".join([head, text, struct.pack("<II", buffer.length, 0x004E4942), *buffer.parts])}


def _refuse_too_large(size: int) -> None:
    if size > MAX_BYTES:
        raise BadInput(
            f"the asset would take {size / 2**30:.1f} GiB and a GLB holds at most {MAX_BYTES / 2**30:.1f};"
            " simplify it with --faces or save it as .ply"
        )


def _attributes(mesh: Mesh, buffer: _Buffer) -> dict[str, int]:
    low, high = mesh.vertices.min(0).tolist(), mesh.vertices.max(0).tolist()
    attributes = {
        "POSITION": buffer.array(mesh.vertices, _FLOAT, "VEC3", _VERTICES, min=low, max=high),
        "NORMAL": buffer.array(vertex_normals(mesh), _FLOAT, "VEC3", _VERTICES),
    }
    if mesh.uv is not None:
        # glTF measures v downwards from the top of the image.
        down = np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], 1).astype(np.float32)
        attributes["TEXCOORD_0"] = buffer.array(down, _FLOAT, "VEC2", _VERTICES)
    if mesh.vertex_color is not None:
        rgba = np.full((len(mesh.vertices), 4), 65535, np.uint16)
        rgba[:, :3] = np.round(srgb_to_linear(mesh.vertex_color) * 65535)
        attributes["COLOR_0"] = buffer.array(rgba, _UINT16, "VEC4", _VERTICES, normalized=True)
    return attributes


def _indices(mesh: Mesh, buffer: _Buffer) -> int:
    if len(mesh.vertices) <= 65535:  # 65535 itself means "restart" in the 16-bit form
        return buffer.array(mesh.faces.ravel().astype(np.uint16), _UINT16, "SCALAR", _INDICES)
    return buffer.array(mesh.faces.ravel().astype(np.uint32), _UINT32, "SCALAR", _INDICES)


def vertex_normals(mesh: Mesh) -> NDArray[np.float32]:
    """(V, 3) unit normals, faces weighted by area. Vertices that only a texture seam separates share theirs."""
    label = weld(mesh.vertices) if mesh.uv is not None else np.arange(len(mesh.vertices))
    cross = face_cross(mesh.vertices, mesh.faces)
    corner = label[mesh.faces]
    total = np.zeros((len(mesh.vertices), 3))
    for axis in range(3):
        total[:, axis] = np.bincount(corner.ravel(), np.repeat(cross[:, axis], 3), len(mesh.vertices))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    unit = np.where(length > 0, total / np.where(length > 0, length, 1), [0.0, 1.0, 0.0])
    return unit[label].astype(np.float32)


def _material(material: Material, buffer: _Buffer) -> dict[str, Any]:
    """The sections materials, and where there are textures also textures, images and samplers."""
    surface: dict[str, Any] = {
        "baseColorFactor": list(material.base_color_factor),
        "metallicFactor": material.metallic_factor,
        "roughnessFactor": material.roughness_factor,
    }
    entry: dict[str, Any] = {"name": "surface", "pbrMetallicRoughness": surface}
    images: list[dict[str, Any]] = []
    for pixels, owner, key in (
        (material.base_color, surface, "baseColorTexture"),
        (material.metallic_roughness, surface, "metallicRoughnessTexture"),
        (material.normal, entry, "normalTexture"),
    ):
        if pixels is not None:
            owner[key] = {"index": len(images)}
            images.append({"bufferView": buffer.view(png(pixels)), "mimeType": "image/png"})
    if not images:
        return {"materials": [entry]}
    return {
        "materials": [entry],
        "textures": [{"source": i, "sampler": 0} for i in range(len(images))],
        "images": images,
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
    }


def png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W), (H, W, 3) or (H, W, 4) uint8 as a PNG without any metadata."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=4)
    return out.getvalue()


def _header(provenance: Provenance) -> dict[str, Any]:
    header: dict[str, Any] = {"version": "2.0", "generator": f"anyform {provenance.version}"}
    rights = credit(provenance)
    if rights:
        header["copyright"] = rights
    return {
        **header,
        "extras": {"anyform": provenance.to_json()},
        "extensions": {"KHR_xmp_json_ld": {"packet": 0}},
    }


def credit(provenance: Provenance) -> str:
    """One line that names the works an asset started from and the licences of the weights that made it."""
    works = [f"started from “{s.title}” by {s.author} ({s.licence})" for s in provenance.sources]
    weights = [f"weights {w.id} ({w.licence})" for w in provenance.weights]
    return "; ".join(works + weights)


def _xmp(provenance: Provenance) -> dict[str, Any]:
    packet: dict[str, Any] = {
        "@context": {
            "dc": "http://purl.org/dc/elements/1.1/",
            "xmp": "http://ns.adobe.com/xap/1.0/",
            "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
        },
        "dc:format": "model/gltf-binary",
        "xmp:CreatorTool": f"anyform {provenance.version}",
        "Iptc4xmpExt:DigitalSourceType": _IPTC + provenance.digital_source_type,
    }
    rights = credit(provenance)
    return {**packet, "dc:rights": rights} if rights else packet
