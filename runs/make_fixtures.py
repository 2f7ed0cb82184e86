"""Make fixtures/: nine CC0 objects of the corpus as small GLB meshes, and one file of every other modality from them.

    python runs/make_fixtures.py [--corpus ../shared/data/corpus] [--out fixtures]

Same corpus, same bytes. Only objects of `sweethome3d/BlendSwap-CC-0` are copied; test-split ones first, so that what
the demo shows was never trained on.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import fast_simplification
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.vq import kmeans2
from scipy.spatial import cKDTree

from anyform.data.corpus import Catalogue, Item, Shape, open_collection
from anyform.data.sketches import draw, line_art
from anyform.data.views import FOV_Y, Light, render_views, surface_points
from anyform.geometry.asset import Asset, Provenance, Source
from anyform.geometry.mesh import Mesh
from anyform.geometry.sdf import mesh_to_sdf, normalise
from anyform.types.camera import Cameras, wala_cameras

SOURCE, LICENCE = "sweethome3d/BlendSwap-CC-0", "CC0-1.0"
OBJECTS = {
    "chair": "19558220f1c2",
    "armchair": "2d4eaafadf19",
    "wall_light": "b16548a53582",
    "cactus": "8609275c1ef8",
    "table": "a2016e2833f9",
    "wardrobe": "b1dc018aa3ff",
    "mug": "76e58d1a4faa",
    "bookcase": "594cd6b3b4f2",
    "desk_lamp": "1ad5d5c9a226",
}
MADE_FROM = {
    "image.png": "chair",
    "image_plain.png": "cactus",
    "sketch.png": "armchair",
    "points.ply": "chair",
    "voxels.json": "armchair",
    "views": "chair",
    "depths": "armchair",
}
VIEW_IDS = (3, 6, 10, 26)
FACES, COLOURS, PICTURE, VIEW, POINTS = 2_000, 8, 384, 224, 2_500
DEPTH_SCALE = 1e-4  # world units a grey level; 0 is background
PLAIN = (214, 220, 224)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make fixtures/ from the corpus.")
    parser.add_argument("--corpus", type=Path, default=Path("../shared/data/corpus"))
    parser.add_argument("--out", type=Path, default=Path("fixtures"))
    arguments = parser.parse_args()
    collection, out = open_collection(arguments.corpus), arguments.out
    if not isinstance(collection, Catalogue):
        raise SystemExit(f"{arguments.corpus} has no catalog.json")
    rows = {item.id: item for item in collection.items}
    items = {name: rows[item_id] for name, item_id in OBJECTS.items()}
    shapes = {name: _normalised(collection.read(item)) for name, item in items.items()}
    (out / "meshes").mkdir(parents=True, exist_ok=True)
    for name, item in items.items():
        if (item.source, item.licence) != (SOURCE, LICENCE):
            raise SystemExit(f"{name} is {item.licence} from {item.source}; fixtures are {LICENCE} from {SOURCE}")
        _asset(item, _small(shapes[name])).save(out / "meshes" / f"{name}.glb", force=True)
    write_pictures(out, shapes)
    write_points(out / "points.ply", shapes[MADE_FROM["points.ply"]])
    write_voxels(out / "voxels.json", shapes[MADE_FROM["voxels.json"]])
    write_views(out / "views", shapes[MADE_FROM["views"]])
    write_depths(out / "depths", shapes[MADE_FROM["depths"]])
    (out / "README.md").write_text(readme(items), encoding="utf-8")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {len(items)} objects, {size / 1e6:.2f} MB")


def _normalised(shape: Shape) -> Shape:
    vertices, _, _ = normalise(shape.vertices, shape.faces)
    return Shape(vertices, shape.faces, shape.face_rgb)


def _small(shape: Shape) -> Mesh:
    """At most FACES triangles in at most COLOURS colours; vertices are split where colours meet."""
    points, first = np.unique(shape.vertices.round(6), axis=0, return_inverse=True)
    vertices, faces = points, first.reshape(-1)[shape.faces]
    if len(faces) > FACES:
        vertices, faces = fast_simplification.simplify(
            points.astype(np.float32), faces.astype(np.int32), target_count=FACES
        )
    samples, colours = surface_points(shape, 30_000, np.random.default_rng(0))
    palette, label = np.unique(colours, axis=0, return_inverse=True)
    if len(palette) > COLOURS:
        palette, label = kmeans2(colours.astype(float), COLOURS, minit="++", rng=np.random.default_rng(0))
    _, nearest = cKDTree(samples).query(vertices[faces].mean(1))
    corner = faces.astype(np.int64) * COLOURS + label.reshape(-1)[nearest][:, None]
    used, index = np.unique(corner, return_inverse=True)
    colour = palette[used % COLOURS] / 255
    return Mesh(vertices[used // COLOURS], index.reshape(-1, 3), vertex_color=colour.astype(np.float32))


def _asset(item: Item, mesh: Mesh) -> Asset:
    source = Source(title=item.name, author=item.author, licence=item.licence, id=item.id, share=1.0)
    note = "from the corpus: converted, normalised, simplified"
    provenance = Provenance(
        system="corpus",
        version="fixture",
        seed=0,
        quality="standard",
        sources=(source,),
        notes=(note,),
        digital_source_type="digitalCreation",
    )
    return Asset(mesh, provenance)


def write_pictures(out: Path, shapes: dict[str, Shape]) -> None:
    """image.png with alpha, image_plain.png on one colour, sketch.png dark on light."""
    camera = Cameras.orbit(np.radians([35.0]), np.radians(20.0), 3.8, FOV_Y, PICTURE)
    rgba = render_views(shapes[MADE_FROM["image.png"]], camera, light=Light()).rgba[0]
    Image.fromarray(_bytes(rgba)).save(out / "image.png", optimize=True)
    rgba = render_views(shapes[MADE_FROM["image_plain.png"]], camera, light=Light()).rgba[0]
    plain = rgba[..., :3] * rgba[..., 3:] + np.array(PLAIN) / 255 * (1 - rgba[..., 3:])
    Image.fromarray(_bytes(plain)).save(out / "image_plain.png", optimize=True)
    shape = shapes[MADE_FROM["sketch.png"]]
    depth = render_views(shape, camera, supersampling=1).depth
    ink = draw(line_art(shape.vertices, shape.faces, camera, depth)[0], PICTURE, PICTURE, 2.5)
    Image.fromarray(_bytes(1 - ink)).save(out / "sketch.png", optimize=True)


def write_points(path: Path, shape: Shape) -> None:
    """Binary little-endian PLY with colours."""
    points, colours = surface_points(shape, POINTS, np.random.default_rng(0))
    rows = np.empty(POINTS, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = points, colours
    fields = [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {POINTS}", *fields, "end_header\n"]
    path.write_bytes("\n".join(header).encode("ascii") + rows.tobytes())


def write_voxels(path: Path, shape: Shape) -> None:
    """16³ in WaLa's JSON form: a voxel is set if any of its 4³ distance samples is inside."""
    inside = mesh_to_sdf(shape.vertices, shape.faces, 64) < 0
    occupied = np.argwhere(inside.reshape(16, 4, 16, 4, 16, 4).any((1, 3, 5)))
    samples, colours = surface_points(shape, 30_000, np.random.default_rng(0))
    _, nearest = cKDTree(samples).query(-1 + (2 * occupied + 1) / 16)
    record = {"resolution": 16, "occupancy": occupied.tolist(), "color": colours[nearest].tolist()}
    path.write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")


def write_views(folder: Path, shape: Shape) -> None:
    """RGBA pictures at WaLa's four view ids."""
    cameras = wala_cameras(VIEW_IDS, VIEW)
    pictures = [Image.fromarray(_bytes(rgba)) for rgba in render_views(shape, cameras, light=Light()).rgba]
    _write_frames(folder, pictures, cameras, {})


def write_depths(folder: Path, shape: Shape) -> None:
    """16-bit depth maps at WaLa's four view ids."""
    cameras = wala_cameras(VIEW_IDS, VIEW)
    depth = render_views(shape, cameras, supersampling=1).depth
    grey = np.where(np.isfinite(depth), np.round(np.where(np.isfinite(depth), depth, 0) / DEPTH_SCALE), 0)
    pictures = [Image.fromarray(levels) for levels in grey.astype(np.uint16)]
    _write_frames(folder, pictures, cameras, {"depth_scale": DEPTH_SCALE})


def _write_frames(folder: Path, pictures: list[Image.Image], cameras: Cameras, extra: dict[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for view, picture, pose in zip(VIEW_IDS, pictures, cameras.camera_to_world, strict=True):
        picture.save(folder / f"{view:03d}.png", optimize=True)
        frames.append({"file_path": f"{view:03d}.png", "transform_matrix": pose.round(9).tolist()})
    record = {"camera_angle_x": math.radians(40), **extra, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _bytes(picture: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def readme(items: dict[str, Item]) -> str:
    """fixtures/README.md."""
    rows = "\n".join(
        f"| `meshes/{name}.glb` | {item.name} | {item.author} | {item.licence} | {item.split} | `{item.id}` |"
        for name, item in items.items()
    )
    made = "\n".join(f"| `{file}` | {name} |" for file, name in MADE_FROM.items())
    return f"""# Fixtures

Nine objects by authors of Blend Swap, distributed under CC0 1.0 in Debian's `sweethome3d-furniture` ({SOURCE}), and one
file of every other modality made from them. Converted, normalised, simplified to at most {FACES:,} triangles and
{COLOURS} colours by `runs/make_fixtures.py`, which makes the same bytes again from the corpus.

**Licence: everything in this folder is CC0 1.0** (public domain dedication,
<https://creativecommons.org/publicdomain/zero/1.0/>), whatever the licence of the rest of the repository is. The
authors are named because they deserve it.

| file | title | author | licence | corpus split | id |
|---|---|---|---|---|---|
{rows}

Objects of the test split were seen by none of the embedded models in training.

| prompt file | made from |
|---|---|
{made}

`views/` and `depths/` hold WaLa's views 3, 6, 10 and 26 with their cameras in `transforms.json` (OpenGL
camera-to-world, distance 4.4, 40°). Depth maps are 16-bit: distance along the camera axis = grey level · `depth_scale`,
0 = background.
"""


if __name__ == "__main__":
    main()
