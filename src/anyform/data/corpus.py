"""Where training objects come from: our catalogued corpus, or any folder of meshes, behind the same two members.

`items` is a tuple of `Item` rows in a fixed order, `read(item)` gives the `Shape`. Vertices come as the source has them
(+y up); `geometry.sdf.normalise` brings them into the cube.

The corpus is a folder with `catalog.json` (one row an object) and `objects.zip` (one `<id>.npz` an object: `vertices`
int16 over 65534 so that the longest side is 1, `faces`, `face_rgb` uint8).
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import BadInput

if TYPE_CHECKING:
    from anyform.geometry.mesh import Mesh

SPLITS = ("train", "val", "test")
MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".3mf", ".off")
MAX_OBJECT_BYTES = 512 * 2**20
_QUANTISATION = 65534  # int16 vertices over this lie in [-0.5, 0.5]
_GREY = (178, 178, 178)  # faces of a mesh without any colour


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object's row. `category`, `source`, `licence`, `author` and `group` are "" where nobody said."""

    id: str
    caption: str
    split: str
    name: str = ""
    tags: tuple[str, ...] = ()
    category: str = ""
    source: str = ""
    licence: str = ""
    author: str = ""
    group: str = ""  # of near duplicates


@dataclass(frozen=True, slots=True)
class Shape:
    """vertices (V, 3) float64, faces (F, 3) int64, face_rgb (F, 3) uint8 sRGB albedo."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    face_rgb: NDArray[np.uint8]


class Catalogue:
    """Our corpus: rows of `catalog.json`, shapes of `objects.zip`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            rows = json.loads((folder / "catalog.json").read_text(encoding="utf-8"))
            self.items = tuple(_item(row) for row in rows)
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"catalog.json in {folder.name} is not a list of corpus rows: {error!r}") from error
        if not (folder / "objects.zip").is_file():
            raise BadInput(f"{folder.name} has a catalog.json but no objects.zip; copy both")
        self._archive: zipfile.ZipFile | None = None

    def read(self, item: Item) -> Shape:
        """The shape of one row, longest side 1. Raises BadInput with the reason if its member is missing or damaged."""
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.folder / "objects.zip")
        try:
            member = self._archive.getinfo(f"{item.id}.npz")
            if member.file_size > MAX_OBJECT_BYTES:
                raise BadInput(f"object {item.id} unpacks to {member.file_size:,} bytes, over {MAX_OBJECT_BYTES:,}")
            with np.load(io.BytesIO(self._archive.read(member)), allow_pickle=False) as arrays:
                return Shape(
                    arrays["vertices"].astype(np.float64) / _QUANTISATION,
                    arrays["faces"].astype(np.int64),
                    arrays["face_rgb"].astype(np.uint8),
                )
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise BadInput(f"object {item.id} cannot be read from objects.zip: {error}") from error


class MeshFolder:
    """Any folder of meshes: captions from file names, splits (90, 5 and 5 %) from a hash of the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix.lower() in MESH_SUFFIXES and path.is_file()
        )
        self.items = tuple(_folder_item(path) for path in paths)
        if not self.items:
            raise BadInput(f"{folder.name} holds no mesh file ({', '.join(MESH_SUFFIXES)}) and no catalog.json")

    def read(self, item: Item) -> Shape:
        """The shape of one file with a colour per face. Raises BadInput with the reason if it cannot be read."""
        from anyform.geometry.formats import read_mesh

        mesh = read_mesh(self.folder / item.name)
        return Shape(mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64), face_colours(mesh))


Collection = Catalogue | MeshFolder


def open_collection(folder: str | Path) -> Collection:
    """The corpus in `folder` if it has a `catalog.json`, else the meshes below it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give the corpus or a folder of meshes")
    return Catalogue(folder) if (folder / "catalog.json").is_file() else MeshFolder(folder)


def face_colours(mesh: Mesh) -> NDArray[np.uint8]:
    """sRGB (F, 3) uint8 of a mesh: its texture at each face's middle, else its vertex colours, else its base colour.

    The base-colour factor of glTF is linear and multiplies the colour; it is brought to sRGB first.
    """
    from anyform.geometry.color import linear_to_srgb, sample_texture

    material = mesh.material
    if material is not None and material.base_color is not None and mesh.uv is not None:
        colour = sample_texture(material.base_color, mesh.uv[mesh.faces].mean(1))
    elif mesh.vertex_color is not None:
        colour = mesh.vertex_color[mesh.faces].mean(1)
    elif material is None:
        colour = np.full((len(mesh.faces), 3), np.asarray(_GREY) / 255)
    else:
        colour = np.ones((len(mesh.faces), 3))
    factor = np.ones(3) if material is None else linear_to_srgb(np.asarray(material.base_color_factor[:3]))
    return np.round(np.clip(colour * factor, 0, 1) * 255).astype(np.uint8)


def _item(row: dict[str, Any]) -> Item:
    if row["split"] not in SPLITS:
        raise ValueError(f"split {row['split']!r} of object {row['id']!r} is none of {SPLITS}")
    return Item(
        id=str(row["id"]),
        caption=str(row["caption"]),
        split=row["split"],
        name=str(row.get("name", "")),
        tags=tuple(map(str, row.get("tags", ()))),
        category=str(row.get("category", "")),
        source=str(row.get("source", "")),
        licence=str(row.get("license", "")),
        author=str(row.get("author", "")),
        group=str(row.get("group", "")),
    )


def _folder_item(path: str) -> Item:
    """`name` is the path inside the folder; the id is short, stable and safe as a file name."""
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape"))
    place = digest.digest()[-1] / 256
    split = "train" if place < 0.9 else "val" if place < 0.95 else "test"
    caption = Path(path).stem.replace("_", " ").replace("-", " ").strip()
    return Item(id=digest.hexdigest()[:12], caption=caption, split=split, name=path)
