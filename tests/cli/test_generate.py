"""`anyform generate` as a user drives it, with a real small system."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anyform.geometry.formats import read_extras, read_mesh

Command = Callable[..., int]
Record = Callable[[], dict[str, Any]]


def _names(folder: str = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_text_to_glb(anyform: Command, record: Record) -> None:
    assert anyform("generate", "a ball", "-o", "ball.glb", "--seed", 7, "--json") == 0
    made = record()
    assert made["ok"] and made["seed"] == 7 and made["system"] == "sphere" and made["commercial_use"] == "yes"
    assert made["prompt"] == {"kind": "text", "text": "a ball"} and made["file"] == "ball.glb"
    assert max(made["size_mm"]) == pytest.approx(1000, abs=1e-2)
    assert read_extras(Path("ball.glb"))["seed"] == 7
    assert _names() == ["ball.glb"]


def test_without_output_the_name_follows_from_prompt_and_seed(anyform: Command, capsys: Any) -> None:
    assert anyform("generate", "A red/../ball!", "--seed", 3) == 0
    assert capsys.readouterr().out == "a-red-ball-3.glb\n"
    assert _names() == ["a-red-ball-3.glb"]


def test_same_seed_same_bytes_other_seed_other_bytes(anyform: Command) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert anyform("generate", "x", "-o", f"{name}.glb", "--seed", seed) == 0
    a, b, c = (Path(f"{name}.glb").read_bytes() for name in "abc")
    assert a == b and a != c


def test_absent_seed_is_random_said_and_stored(anyform: Command, record: Record) -> None:
    seeds = set()
    for name in "abc":
        assert anyform("generate", "x", "-o", f"{name}.glb", "--json") == 0
        seeds.add(record()["seed"])
        assert read_extras(Path(f"{name}.glb"))["seed"] in seeds
    assert len(seeds) == 3


def test_config_repeats_a_file_byte_for_byte(anyform: Command) -> None:
    first = ("generate", "x", "--seed", 5, "--quality", "high", "--set", "resolution=20", "--set", "sphere.variation=1")
    assert anyform(*first, "--size", "8cm", "-o", "a.glb") == 0
    assert anyform("generate", "--config", "a.glb", "-o", "b.glb") == 0
    assert Path("a.glb").read_bytes() == Path("b.glb").read_bytes()
    Path("config.json").write_text(json.dumps(read_extras(Path("a.glb"))), encoding="utf-8")
    assert anyform("generate", "--config", "config.json", "--seed", 6, "-o", "c.glb") == 0
    settings = read_extras(Path("c.glb"))
    assert settings["seed"] == 6 and settings["settings"]["resolution"] == 20 and settings["quality"] == "high"


def test_settings_reach_the_system_and_later_wins(anyform: Command, record: Record) -> None:
    given = ("--faces", 500, "--no-texture", "--variation", 0.25, "--set", "variation=0.75")
    assert anyform("generate", "x", "-o", "a.glb", *given, "--json") == 0
    settings = record()["settings"]
    assert settings["faces"] == 500 and settings["paint"] is False and settings["variation"] == 0.75


def test_prompt_from_standard_input(anyform: Command, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO("ein roter Würfel 🧊\n".encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert anyform("generate", "-", "-o", "a.glb", "--json") == 0
    assert record()["prompt"]["text"] == "ein roter Würfel 🧊"


@pytest.mark.parametrize("option, name", [("--points", "p.npy"), ("--voxels", "v.npy")])
def test_file_prompts(anyform: Command, record: Record, option: str, name: str) -> None:
    np.save("p.npy", np.random.default_rng(0).random((100, 3)).astype(np.float32))
    np.save("v.npy", np.ones((16, 16, 16), bool))
    assert anyform("generate", option, name, "-o", "a.glb", "--json") == 0
    described = record()["prompt"]
    assert described["kind"] == option[2:] and len(described["sha256"]) == 64


def test_no_prompt_in_file(anyform: Command) -> None:
    assert anyform("generate", "my secret", "-o", "a.glb", "--no-prompt-in-file") == 0
    assert b"secret" not in Path("a.glb").read_bytes()
    assert read_extras(Path("a.glb"))["prompt"] == {"kind": "text"}


def test_existing_file_needs_force(anyform: Command) -> None:
    Path("a.glb").write_bytes(b"precious")
    assert anyform("generate", "x", "-o", "a.glb") == 2
    assert Path("a.glb").read_bytes() == b"precious"
    assert anyform("generate", "x", "-o", "a.glb", "--force") == 0
    assert len(read_mesh(Path("a.glb")).faces) > 100


def test_resume_keeps_the_same_run_and_refuses_another(anyform: Command, record: Record) -> None:
    assert anyform("generate", "x", "--seed", 1, "-o", "a.glb", "--resume") == 0
    before = Path("a.glb").stat().st_mtime_ns
    assert anyform("generate", "x", "--seed", 1, "-o", "a.glb", "--resume", "--json") == 0
    assert record()["resumed"] is True and Path("a.glb").stat().st_mtime_ns == before
    assert anyform("generate", "x", "--seed", 2, "-o", "a.glb", "--resume") == 2
    assert anyform("generate", "y", "--seed", 1, "-o", "a.glb", "--resume") == 2


def test_folder_holds_everything(anyform: Command) -> None:
    assert anyform("generate", "a ball", "--seed", 4, "-o", "out/") == 0
    folder = Path("out/a-ball-4")
    names = {path.name for path in folder.iterdir()}
    assert names == {"asset.glb", "input.txt", "preview.webp", "provenance.json", "log.txt"}
    assert (folder / "input.txt").read_text(encoding="utf-8") == "a ball"
    sidecar = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert sidecar["host"]["seconds"] > 0 and sidecar["seed"] == 4
    assert "denoise" in (folder / "log.txt").read_text(encoding="utf-8")
    assert anyform("generate", "a ball", "--seed", 4, "-o", "out/") == 2
    assert anyform("generate", "a ball", "--seed", 4, "-o", "out/", "--force") == 0
    assert _names("out") == ["a-ball-4"]


def test_print_is_sized_and_solid(anyform: Command, record: Record, capsys: Any) -> None:
    assert anyform("generate", "x", "--print", "--size", "40mm", "-o", "a.3mf", "--json") == 0
    made = record()
    assert max(made["size_mm"]) == pytest.approx(40, abs=0.1)
    assert anyform("check", "a.3mf", "--json") == 0
    checked = record()
    assert checked["watertight"] and checked["bodies"] == 1 and checked["stands_on_ground"]
    assert max(checked["size_mm"]) == pytest.approx(40, abs=0.1)
    assert checked["print"]["base_area_mm2"] > 1 and checked["print"]["thinnest_wall_mm"] > 1
    assert anyform("check", "a.3mf") == 0 and "thinnest wall" in capsys.readouterr().out


def test_memory_ends_once_then_smaller(anyform: Command, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYFORM_FAULT", "oom:stage=decode")
    assert anyform("generate", "x", "-o", "a.glb", "--json") == 0
    made = record()
    assert made["settings"]["resolution"] == 16 and "resolution 32 -> 16" in made["notes"][0]
    assert "resolution 32 -> 16" in read_extras(Path("a.glb"))["notes"][0]


@pytest.mark.parametrize(
    "fault, code, words",
    [
        ("nan:step=2", 5, "stage denoise at step 2"),
        ("oom:stage=denoise", 4, "does not fit into memory"),
        ("bug", 2, "no fault"),
    ],
)
def test_faults(
    anyform: Command, capsys: Any, monkeypatch: pytest.MonkeyPatch, fault: str, code: int, words: str
) -> None:
    monkeypatch.setenv("ANYFORM_FAULT", fault)
    assert anyform("generate", "x", "-o", "a.glb", "--json") == code
    printed = capsys.readouterr()
    assert words in printed.err and _names() == []
    assert json.loads(printed.out)["exit_code"] == code


def test_progress_starts_at_once_and_goes_to_stderr(anyform: Command, capsys: Any) -> None:
    assert anyform("generate", "x", "-o", "a.glb", "--seed", 1) == 0
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert lines[0] == "anyform: starting"
    assert [line for line in lines if "denoise  1/4" in line] and "decode" in printed.err
    assert printed.out == "a.glb\n" and "seed 1" in lines[-1]


def test_provenance_holds_no_path_name_or_secret(anyform: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_sentinel_token")
    monkeypatch.setenv("USER", "sentinel_user")
    np.save("p.npy", np.random.default_rng(0).random((100, 3)).astype(np.float32))
    assert anyform("generate", "--points", Path("p.npy").resolve(), "-o", "a.glb") == 0
    data = Path("a.glb").read_bytes()
    for secret in (b"hf_sentinel_token", b"sentinel_user", str(Path.cwd()).encode(), str(Path.home()).encode() + b"/"):
        assert secret not in data
