"""STL (https://www.loc.gov/preservation/digital/formats/fdd/fdd000505.shtml): binary out; binary and ASCII in.

Written +z up in millimetres, standing on z = 0. Read back the same way: an STL is taken to be z-up and in millimetres,
and becomes +y up in metres.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from anyform.errors import BadInput
from anyform.geometry.asset import Asset
from anyform.geometry.color import vertex_colors
from anyform.geometry.formats.files import read_limited
from anyform.geometry.formats.parts import Part, check_counts, join
from anyform.geometry.mesh import Mesh
from anyform.geometry.placement import MILLIMETRES, on_the_plate, z_up_to_y_up
from anyform.geometry.topology import face_cross, weld

MAX_STL_BYTES = 1 << 30
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def write_stl(asset: Asset, name: str) -> dict[str, bytes]:
    """{name: the file}: binary. Warns that an STL has no colours and no provenance."""
    if vertex_colors(asset.mesh) is not None:
        warnings.warn("STL holds neither colours nor provenance; 3MF holds both", stacklevel=4)
    mesh = on_the_plate(asset.mesh, asset.metres)
    cross = face_cross(mesh.vertices, mesh.faces)
    length = np.linalg.norm(cross, axis=1, keepdims=True)
    table = np.zeros(len(mesh.faces), _TRIANGLE)
    table["normal"] = cross / np.where(length > 0, length, 1)
    table["corners"] = mesh.vertices[mesh.faces]
    # A binary header that began with "solid" would be taken for ASCII.
    header = f"anyform {asset.provenance.version}, millimetres, z up".encode("ascii", "replace")[:80].ljust(80)
    return {name: header + len(table).to_bytes(4, "little") + table.tobytes()}


def read_stl(path: Path) -> Mesh:
    """The mesh of an STL file, corners at the same position joined. Raises BadInput where counts and bytes differ."""
    content = read_limited(path, MAX_STL_BYTES)
    count = int.from_bytes(content[80:84], "little") if len(content) >= 84 else -1
    if count >= 0 and len(content) == 84 + count * _TRIANGLE.itemsize:
        check_counts(0, count)
        corners = np.frombuffer(content, _TRIANGLE, count, 84)["corners"].reshape(-1, 3)
    elif content[:512].lstrip().lower().startswith(b"solid"):
        words = content.split(b"vertex")[1:]
        check_counts(0, len(words) // 3)
        if not words or len(words) % 3:
            raise BadInput(f"it has {len(words)} corners, which is no whole number of triangles")
        corners = np.array([word.split()[:3] for word in words], np.float64)
    elif count >= 0:
        raise BadInput(f"it declares {count} triangles and is {len(content)} bytes long instead of {84 + 50 * count}")
    else:
        raise BadInput("it is too short for an STL")
    if not len(corners):
        raise BadInput("it holds no triangles")
    positions = (corners / MILLIMETRES).astype(np.float32)
    label = weld(positions)
    _, first = np.unique(label, return_index=True)
    return z_up_to_y_up(join([Part(positions[first], label.reshape(-1, 3))]))
