"""`--views-out`: any asset gives views that `--views` reads; a folder that cannot be written stops the run at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anyform import cli
from anyform.types.prompt import Views


def test_an_asset_without_views_of_its_own_is_pictured(sphere: None, tmp_path: Path) -> None:
    folder = tmp_path / "views"
    assert (
        cli.main(["generate", "a ball", "-o", str(tmp_path / "a.glb"), "--views-out", str(folder), "--seed", "1"]) == 0
    )
    views = Views.open(folder)
    assert len(views.pixels) == 8
    alpha = views.pixels[..., 3]
    assert (alpha.max((1, 2)) > 0.9).all() and (alpha[:, 0, 0] == 0).all()
    towards = views.cameras.camera_to_world[:, :3, 2]
    assert np.allclose(np.linalg.norm(towards, axis=1), 1) and len(np.unique(np.round(towards, 3), axis=0)) == 8


def test_a_folder_of_somebody_else_stops_the_run_before_it_starts(
    sphere: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep", encoding="utf-8")
    command = ["generate", "a ball", "-o", str(tmp_path / "a.glb"), "--views-out", str(tmp_path / "mine"), "--force"]
    assert cli.main(command) == 2
    assert "other things than views" in capsys.readouterr().err
    assert not (tmp_path / "a.glb").exists() and (tmp_path / "mine" / "letter.txt").exists()
