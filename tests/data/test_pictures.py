"""Training pictures: what a view of a group shows, that cameras fit, that words follow colours, and resuming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from anyform.data.corpus import Item, Shape
from anyform.data.pictures import PicturePlan, fitted_distance, make_pictures, read_words, write_pictures
from anyform.data.views import FOV_Y
from anyform.errors import BadInput, BadSetting
from anyform.types.camera import Cameras

pytest.importorskip("embreex")
PLAN = PicturePlan(groups=2, views_per_group=2, size=24, flat=1.0)
CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 2) for z in (0, 1)], np.float64)
FACES = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                  [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip


class Boxes:
    """A collection of blue boxes; the second one is broken."""

    items = tuple(Item(id=f"box{i}", caption="box blue", split="train", tags=("crate",)) for i in range(3))

    def __init__(self) -> None:
        self.read_ids: list[str] = []

    def read(self, item: Item) -> Shape:
        self.read_ids.append(item.id)
        scale = 0.0 if item.id == "box1" else 1.0
        return Shape(CORNERS * scale, FACES, np.tile(np.array([[40, 80, 190]], np.uint8), (12, 1)))


def test_a_group_has_one_set_of_colours_and_its_words() -> None:
    item = Boxes.items[0]
    made = make_pictures(item, Boxes().read(item), PLAN)
    assert made.rgba.shape == (4, 24, 24, 4) and made.rgba.dtype == np.uint8
    solid = [view[view[..., 3] == 255][:, :3] for view in made.rgba]
    assert all((np.ptp(one, axis=0) <= 1).all() for one in solid)  # flat light: the albedo itself
    assert np.abs(solid[0][0].astype(int) - (40, 80, 190)).max() <= 1
    assert np.abs(solid[2][0].astype(int) - solid[3][0]).max() <= 1  # the same colours within a group
    assert np.abs(solid[0][0].astype(int) - solid[2][0]).max() > 20
    assert made.colours[0] == "blue" and made.colours[1] != "blue"
    assert f"{made.colours[1]} box" in made.captions[1][2] and "blue" not in " ".join(made.captions[1])
    assert "a blue box blue" in made.captions[0]  # its own name stays


def test_pictures_are_functions_of_the_object_and_the_seed() -> None:
    item = Boxes.items[0]
    first, again = (make_pictures(item, Boxes().read(item), PLAN) for _ in range(2))
    other = make_pictures(item, Boxes().read(item), PicturePlan(groups=2, views_per_group=2, size=24, seed=1))
    assert np.array_equal(first.rgba, again.rgba) and not np.array_equal(first.camera, other.camera)


def test_the_fitted_distance_touches_the_frame() -> None:
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (50, 3))
    distance = fitted_distance(points, 0.7, -0.2, 0.8)
    camera = Cameras.orbit(np.array([0.7]), np.array([-0.2]), distance, FOV_Y, 100)
    offset = np.abs(camera.project(points)[0, :, :2] - 50).max()
    assert offset == pytest.approx(40, abs=1e-9)


def test_a_killed_run_goes_on_and_a_broken_object_is_named(tmp_path: Path) -> None:
    write_pictures(Boxes(), tmp_path, PLAN, part=0, parts=2)  # type: ignore[arg-type]
    first = np.load(tmp_path / "rgba.npy").copy()
    assert first[0].any() and first[2].any()
    boxes = Boxes()
    write_pictures(boxes, tmp_path, PLAN)  # type: ignore[arg-type]
    assert boxes.read_ids == ["box1"]
    rows = read_words(tmp_path)
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert "same point" in rows[1]["reason"] and "captions" not in rows[1]
    with (tmp_path / "words-00-of-01.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"index": 1, "id"')
    assert len(read_words(tmp_path)) == 3
    with pytest.raises(BadInput, match="another plan"):
        write_pictures(Boxes(), tmp_path, PicturePlan())  # type: ignore[arg-type]
    assert json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["ids"] == ["box0", "box1", "box2"]


@pytest.mark.parametrize("wrong", [{"groups": 0}, {"fill": 1.2}, {"farther": 0.9}, {"size": 4}])
def test_a_plan_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadSetting, match="picture plan"):
        PicturePlan(**wrong)  # type: ignore[arg-type]
