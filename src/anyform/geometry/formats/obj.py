"""Wavefront OBJ with its MTL and PNG (http://paulbourke.net/dataformats/obj/, …/mtl/).

Written +y up, 1 unit = 1 m, like GLB. The three files refer to each other by names without spaces, since readers
disagree on how to quote one. Vertex colours follow the coordinates of `v`, as most programs write them.
Read: positions, texture coordinates, polygons as fans, vertex colours, and from an MTL beside the file Kd and map_Kd.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput
from anyform.geometry.asset import Asset
from anyform.geometry.color import linear_to_srgb, srgb_to_linear
from anyform.geometry.formats.archive import zipped
from anyform.geometry.formats.files import read_limited
from anyform.geometry.formats.glb import credit, png
from anyform.geometry.formats.images import decode_image
from anyform.geometry.formats.parts import Part, check_counts, join
from anyform.geometry.mesh import Material, Mesh
from anyform.geometry.placement import standing

MAX_OBJ_BYTES = 512 << 20
MAX_MTL_BYTES = 4 << 20
MAX_IMAGE_BYTES = 128 << 20


def write_obj(asset: Asset, name: str) -> dict[str, bytes]:
    """{mtl, png where there are such, and last the OBJ itself}."""
    mesh = standing(asset.mesh, asset.metres)
    stem = re.sub(r"[^\w.-]+", "_", name[: -len(".obj")]) or "asset"
    rights = credit(asset.provenance)
    lines = [f"# anyform {asset.provenance.version}, +y up, metres"]
    if rights:
        lines.append(f"# {' '.join(rights.split())}")
    files: dict[str, bytes] = {}
    if mesh.material is not None:
        lines += [f"mtllib {stem}.mtl", "usemtl surface"]
        files |= _material_files(mesh.material, stem)
    lines.append(_vertex_lines(mesh))
    if mesh.uv is not None:
        lines.append(("vt %.9g %.9g\n" * len(mesh.uv))[:-1] % tuple(mesh.uv.ravel().tolist()))
        corners = np.repeat(mesh.faces.ravel() + 1, 2)
        lines.append(("f %d/%d %d/%d %d/%d\n" * len(mesh.faces)) % tuple(corners.tolist()))
    else:
        lines.append(("f %d %d %d\n" * len(mesh.faces)) % tuple((mesh.faces.ravel() + 1).tolist()))
    return {**files, name: "\n".join(lines).encode("utf-8")}


def write_obj_zip(asset: Asset, name: str) -> dict[str, bytes]:
    """{name: a ZIP archive of the OBJ and its companions}."""
    inner = name[: -len(".zip")]
    return {name: zipped(write_obj(asset, inner))}


def _vertex_lines(mesh: Mesh) -> str:
    if mesh.vertex_color is None:
        return ("v %.9g %.9g %.9g\n" * len(mesh.vertices))[:-1] % tuple(mesh.vertices.ravel().tolist())
    rows = np.concatenate([mesh.vertices.astype(np.float64), np.clip(mesh.vertex_color, 0, 1).astype(np.float64)], 1)
    return ("v %.9g %.9g %.9g %.6g %.6g %.6g\n" * len(rows))[:-1] % tuple(rows.ravel().tolist())


def _material_files(material: Material, stem: str) -> dict[str, bytes]:
    red, green, blue = linear_to_srgb(np.asarray(material.base_color_factor[:3])).tolist()
    lines = ["newmtl surface", f"Kd {red:.6g} {green:.6g} {blue:.6g}", "Ks 0 0 0", "illum 1"]
    files: dict[str, bytes] = {}
    if material.base_color is not None:
        lines.append(f"map_Kd {stem}.png")
        files[f"{stem}.png"] = png(material.base_color)
    if material.metallic_roughness is not None or material.normal is not None:
        warnings.warn("OBJ holds the base colour only: normal, roughness and metal maps are left out", stacklevel=5)
    return {**files, f"{stem}.mtl": ("\n".join(lines) + "\n").encode("utf-8")}


def read_obj(path: Path) -> Mesh:
    """The mesh of an OBJ file; polygons are cut into fans. Raises BadInput where it is malformed or reaches outside."""
    content = read_limited(path, MAX_OBJ_BYTES)
    position_lines: list[bytes] = []
    texture_lines: list[bytes] = []
    corners: list[bytes] = []
    face_sizes: list[int] = []
    face_materials: list[bytes] = []
    counts: list[tuple[int, int]] = []
    libraries: list[bytes] = []
    current = b""
    for line in content.replace(b"\\\n", b" ").splitlines():
        key, _, rest = line.strip().partition(b" ")
        if key == b"v":
            position_lines.append(rest)
        elif key == b"vt":
            texture_lines.append(rest)
        elif key == b"f":
            tokens = rest.split()
            if len(tokens) < 3:
                raise BadInput(f"a face has {len(tokens)} corners")
            corners += tokens
            face_sizes.append(len(tokens))
            face_materials.append(current)
            counts.append((len(position_lines), len(texture_lines)))
        elif key == b"usemtl":
            current = rest.strip()
        elif key == b"mtllib":
            libraries.append(rest.strip())
    if not face_sizes:
        raise BadInput("it holds no faces")
    sizes = np.asarray(face_sizes)
    check_counts(len(position_lines), int((sizes - 2).sum()))
    numbers = _corner_numbers(corners, np.repeat(np.asarray(counts), sizes, axis=0))
    materials = _read_materials(path, libraries)
    positions, texture = _table(position_lines, (3, 4, 6, 7)), _table(texture_lines, (1, 2, 3))
    return _assemble(positions, texture, numbers, sizes, face_materials, materials)


def _table(lines: list[bytes], widths: tuple[int, ...]) -> NDArray[np.float64]:
    """(N, W) numbers of lines that all have the same number of columns, one of `widths`."""
    if not lines:
        return np.zeros((0, widths[0]))
    width = len(lines[0].split())
    values = b" ".join(lines).split()
    if width not in widths or len(values) != width * len(lines):
        raise BadInput(f"a line of coordinates has {width} numbers or its neighbours have another count")
    return np.array(values, np.float64).reshape(-1, width)


def _corner_numbers(corners: list[bytes], seen: NDArray[np.int64]) -> NDArray[np.int64]:
    """(C, 2) zero-based position and texture indices of face corners, −1 where there is no texture coordinate.

    seen: (C, 2) how many positions and texture coordinates came before, which negative indices count back from.
    """
    slashes = corners[0].count(b"/")
    if all(corner.count(b"/") == slashes for corner in corners):
        fields = b"/".join(corners).replace(b"//", b"/0/").split(b"/")
        table = np.array(fields, np.int64).reshape(len(corners), -1)[:, :2]
    else:
        table = np.array([[*corner.split(b"/"), b""][:2] for corner in corners])
        table = np.where(table == b"", b"0", table).astype(np.int64)
    if table.shape[1] == 1:
        table = np.concatenate([table, np.zeros_like(table)], 1)
    resolved = np.where(table < 0, seen + table, table - 1)
    if (table[:, 0] == 0).any() or (resolved[:, 0] < 0).any() or (resolved[table[:, 1] != 0, 1] < 0).any():
        raise BadInput("a face names vertex 0 or counts back before the first; OBJ counts from 1")
    return resolved


def _assemble(
    positions: NDArray[np.float64],
    texture: NDArray[np.float64],
    numbers: NDArray[np.int64],
    sizes: NDArray[np.int64],
    face_materials: list[bytes],
    materials: dict[bytes, Material],
) -> Mesh:
    if numbers[:, 0].max() >= len(positions) or numbers[:, 1].max() >= len(texture):
        raise BadInput(f"a face names vertex {numbers[:, 0].max() + 1}, but there are {len(positions)} vertices")
    start = np.repeat(np.cumsum(sizes) - sizes, sizes - 2)
    step = np.arange(len(start)) - np.repeat(np.cumsum(sizes - 2) - (sizes - 2), sizes - 2) + 1
    triangles = np.stack([start, start + step, start + step + 1], 1)
    names = sorted(set(face_materials))
    owner = np.repeat(np.array([names.index(name) for name in face_materials]), sizes - 2)
    parts = []
    for index, name in enumerate(names):
        mine = triangles[owner == index]
        pairs = numbers[mine.ravel()]
        has_uv = texture.shape[1] >= 2 and bool((pairs[:, 1] >= 0).all())
        key = pairs[:, 0] * (len(texture) + 1) + (pairs[:, 1] if has_uv else 0)
        _, first, faces = np.unique(key, return_index=True, return_inverse=True)
        used = pairs[first]
        uv = texture[used[:, 1], :2] if has_uv else None
        color = positions[used[:, 0], -3:] if positions.shape[1] >= 6 else None
        parts.append(Part(positions[used[:, 0], :3], faces.reshape(-1, 3), uv, color, materials.get(name)))
    return join(parts)


def _beside(path: Path, name: bytes, what: str) -> Path:
    """The file a name refers to, which must lie in the same folder. Raises BadInput for any path in the name."""
    text = name.decode("utf-8", "replace")
    if re.search(r"[/\\:\0]", text) or text in ("", ".", ".."):
        raise BadInput(f"it asks for the {what} {text[:80]!r}; only files beside it are read: remove that line")
    beside = path.parent / text
    if beside.is_symlink():
        raise BadInput(f"it asks for the {what} {text[:80]!r}, which is a link; only plain files beside it are read")
    return beside


def _read_materials(path: Path, libraries: list[bytes]) -> dict[bytes, Material]:
    """Materials by name. A missing library is a warning: the shape is still there."""
    found: dict[bytes, Material] = {}
    for library in libraries:
        beside = _beside(path, library, "material file")
        if not beside.is_file():
            warnings.warn(f"{path.name} names the material file {beside.name}, which is not there", stacklevel=4)
            continue
        name, color, image = b"", (1.0, 1.0, 1.0), None
        for line in [*read_limited(beside, MAX_MTL_BYTES).splitlines(), b"newmtl"]:
            key, _, rest = line.strip().partition(b" ")
            if key == b"newmtl":
                if name:
                    found[name] = _material(color, image)
                name, color, image = rest.strip(), (1.0, 1.0, 1.0), None
            elif key == b"Kd":
                red, green, blue = (float(value) for value in rest.split()[:3])
                color = (red, green, blue)
            elif key == b"map_Kd":
                image = _beside(path, rest.strip(), "texture")
    return found


def _material(color: tuple[float, float, float], image: Path | None) -> Material:
    red, green, blue = srgb_to_linear(np.asarray(color)).tolist()
    texture = None
    if image is not None and image.is_file():
        texture = decode_image(read_limited(image, MAX_IMAGE_BYTES))
        # Exporters write Kd 0 beside a texture as often as 1; programs show the texture alone.
        red = green = blue = 1.0
    return Material(base_color=texture, base_color_factor=(red, green, blue, 1.0))
