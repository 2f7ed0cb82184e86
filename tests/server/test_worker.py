"""What a worker does with a job: prompts from arrays, every format, sizes, refusals, cancelling, its protocol."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anyform.errors import BadInput, GateFailed, LicenceNotAccepted, OutOfMemory
from anyform.geometry.formats import read_extras, read_mesh
from anyform.server.prompt_arrays import read_prompt, write_prompt
from anyform.server.worker import Cancelled, Worker, _Reporter, describe, make
from anyform.types.camera import Cameras
from anyform.types.progress import Progress, silent
from anyform.types.prompt import Audio, Image, Points, Sketch, Text, Views, Voxels
from anyform.types.prompt import describe as describe_prompt
from anyform.weights import sha256


def request(**changes: Any) -> dict[str, Any]:
    """A checked request for a small sphere."""
    plain = {"text": "a ball", "kind": "text", "kinds": ["text"], "system": "sphere", "quality": "draft", "seed": 7}
    return {**plain, "settings": {"resolution": 16}, **changes}


def test_every_format_is_there_and_is_what_it_says(sphere: None, tmp_path: Path) -> None:
    told: list[Progress] = []
    result = make(tmp_path, request(), "cpu", told.append)
    out = tmp_path / "out"
    assert {"glb", "obj", "obj.zip", "ply", "stl", "3mf"} <= set(result["formats"])
    for name, row in result["formats"].items():
        file = out / f"asset.{name}"
        assert file.stat().st_size == row["bytes"] and sha256(file) == row["sha256"]
    assert json.loads((out / "result.json").read_text(encoding="utf-8")) == result
    assert result["seed"] == 7 and result["watertight"] is True and result["commercial_use"] == "yes"
    assert result["faces"] == len(read_mesh(out / "asset.glb").faces) and max(result["size_mm"]) == 1000
    made = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    assert made["host"]["device"] == "cpu" and str(tmp_path) not in json.dumps(made)
    assert (out / "preview.webp").read_bytes()[8:12] == b"WEBP" and not (tmp_path / "out.partial").exists()
    assert told[0].stage == "reading the prompt" and told[-1].stage == "saving"


def test_the_same_seed_gives_the_same_bytes(sphere: None, tmp_path: Path) -> None:
    hashes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        hashes.append(make(tmp_path / name, request(), "cpu", silent)["formats"]["glb"]["sha256"])
    assert hashes[0] == hashes[1]


def test_size_print_and_privacy(sphere: None, tmp_path: Path) -> None:
    wanted = request(size="80mm", print=True, keep_prompt=False, text="a secret ball")
    result = make(tmp_path, wanted, "cpu", silent)
    assert max(result["size_mm"]) == pytest.approx(80, rel=1e-3) and result["bodies"] == 1 and "print" in result
    extras = read_extras(tmp_path / "out" / "asset.glb")
    assert extras["prompt"] == {"kind": "text"} and b"secret" not in (tmp_path / "out" / "asset.glb").read_bytes()


def test_a_failed_job_leaves_no_result(sphere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYFORM_FAULT", "nan:step=1")
    with pytest.raises(GateFailed):
        make(tmp_path, request(), "cpu", silent)
    assert list(tmp_path.iterdir()) == []


def prompts() -> Iterator[tuple[str, Any]]:
    random = np.random.default_rng(0)
    cameras = Cameras.orbit(np.array([0.0, 1.0]), np.array(0.3), 3.0, 0.7, 16)
    rgba = random.integers(0, 256, (2, 16, 16, 4)) / 255
    yield "image", Image.from_rgba(random.random((16, 16, 4)))
    yield "sketch", Sketch((random.random((16, 16)) > 0.5).astype(np.float32))
    yield "audio", Audio(random.uniform(-0.5, 0.5, 8000).astype(np.float32), 16000)
    yield "points", Points(random.random((100, 3)), random.integers(0, 256, (100, 3)).astype(np.uint8))
    yield "voxels", Voxels(random.random((8, 8, 8)) > 0.5)
    yield "views", Views("rgb", rgba.astype(np.float32), cameras, (0, 3))
    yield "depths", Views("depth", (rgba[..., :1] + 1).astype(np.float32), cameras)


@pytest.mark.parametrize("kind, prompt", list(prompts()), ids=[kind for kind, _ in prompts()])
def test_prompts_survive_the_disk(tmp_path: Path, kind: str, prompt: Any) -> None:
    write_prompt(prompt, tmp_path / f"{kind}.npz")
    again = read_prompt(tmp_path / f"{kind}.npz", kind)
    assert describe_prompt(again) == describe_prompt(prompt) and type(again) is type(prompt)
    assert getattr(again, "view_ids", None) == getattr(prompt, "view_ids", None)


def test_text_has_no_arrays(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Text has no arrays"):
        write_prompt(Text("a mug"), tmp_path / "text.npz")


def test_a_worker_reads_the_arrays_of_its_prompt(sphere: None, tmp_path: Path) -> None:
    cloud = Points(np.random.default_rng(0).random((100, 3)))
    write_prompt(cloud, tmp_path / "points.npz")
    make(tmp_path, request(kind="points", kinds=["points"], text=None), "cpu", silent)
    assert read_extras(tmp_path / "out" / "asset.glb")["prompt"] == describe_prompt(cloud)


def test_an_earlier_asset_comes_back_in_the_unit_box(sphere: None, tmp_path: Path) -> None:
    from anyform.server.worker import _earlier

    make(tmp_path, request(), "cpu", silent)
    asset = _earlier(tmp_path / "out" / "asset.glb")
    low, high = asset.mesh.bounds
    assert np.abs(low + high).max() < 1e-5 and (high - low).max() == pytest.approx(1.8, abs=1e-5)
    assert asset.provenance.seed == 7 and asset.provenance.weights[0].commercial_use == "yes"


def test_reports_stop_a_cancelled_job_and_copy_previews(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    cancelled = threading.Event()
    report = _Reporter(cancelled.is_set, tmp_path, told.append)
    picture = tmp_path / "picture.webp"
    picture.write_bytes(b"RIFF")
    report(Progress("denoise", 1, 4, preview=picture))
    report(Progress("denoise", 2, 4))
    assert [next(iter(one)) for one in told] == ["preview", "progress", "progress"]
    assert (tmp_path / "live.webp").read_bytes() == b"RIFF" and told[-1]["progress"]["steps"] == 4
    assert told[-1]["progress"]["eta_s"] >= 0
    cancelled.set()
    with pytest.raises(Cancelled):
        report(Progress("denoise", 3, 4))


@pytest.fixture
def ask(sphere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """ask(request): the answers of a worker to one order."""

    def run(**changes: Any) -> list[dict[str, Any]]:
        answers = io.StringIO()
        worker = Worker(io.StringIO(), answers)
        worker._one({"job": "j", "folder": str(tmp_path), "request": request(**changes), "device": "cpu"})
        return [json.loads(line) for line in answers.getvalue().splitlines()]

    def ended(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("anyform.server.worker.os._exit", ended)
    return run


def test_the_protocol_of_a_good_job(ask: Callable[..., list[dict[str, Any]]]) -> None:
    answers = ask()
    assert set().union(*answers[:-1]) == {"progress"} and answers[-1]["done"]["seed"] == 7


def test_the_protocol_of_a_refusal(ask: Callable[..., list[dict[str, Any]]]) -> None:
    last = ask(settings={"resolution": 9999})[-1]["failed"]
    assert last["code"] == "bad_setting" and "between 8 and 64" in last["message"] and last["hint"]


def test_after_memory_ran_out_the_process_ends(
    ask: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANYFORM_FAULT", "oom:stage=denoise")
    with pytest.raises(SystemExit) as ended:
        ask()
    assert ended.value.code == 0 and list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said(ask: Callable[..., list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "/secret/path")

    monkeypatch.setattr("anyform.server.worker._write", full)
    last = ask()[-1]["failed"]
    assert last["code"] == "storage" and "No space left" in last["message"] and "secret" not in json.dumps(last)


def test_last_words_name_the_kind_of_mistake_only() -> None:
    answers = io.StringIO()
    Worker(io.StringIO(), answers).fell(ValueError, ValueError("/secret/path"), None)
    assert "ValueError" in answers.getvalue() and "secret" not in answers.getvalue()


@pytest.mark.parametrize(
    "error, code",
    [(BadInput("x"), "bad_input"), (OutOfMemory("x"), "out_of_memory"), (LicenceNotAccepted("x"), "weights")],
)
def test_errors_have_codes_and_hints(error: Any, code: str) -> None:
    told = describe(error)
    assert told["code"] == code and told["message"] == "x" and told["hint"]
