"""Bad input through the command line (expectations.md §4.3: 1, 21-24, 29, 38, 60-65): one sentence, the right code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyform import cli

SOURCE = Path(cli.__file__).resolve().parents[2]
SENTENCE = 1000


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Callable[..., str]:
    """Run a command that must fail: its sentence, once the code, the one line and the untouched folder are checked."""
    monkeypatch.chdir(tmp_path)

    def run(code: int, *arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert cli.main([str(argument) for argument in arguments]) == code
        printed = capsys.readouterr()
        progress = ("anyform: starting", "anyform: loading sphere")
        lines = [line for line in printed.err.splitlines() if line not in progress]
        assert len(lines) == 1 and lines[0].startswith("anyform: ") and len(lines[0]) < SENTENCE, printed.err
        assert "Traceback" not in printed.err and printed.out == ""
        assert sorted(tmp_path.rglob("*")) == before
        return lines[0]

    return run


ARGUMENTS = [
    # row 1: texts
    (["generate", ""], "empty"),
    (["generate", "   "], "empty"),
    (["generate", "x" * 2001], "2001 characters"),
    (["generate", "x" * 1_000_000], "1000000 characters"),
    (["generate", "a\0b"], "NUL"),
    (["generate"], "no prompt"),
    # grammar
    ([], "required"),
    (["paint"], "invalid choice"),
    (["generate", "x", "--nonsense"], "--nonsense"),
    (["generate", "x", "--qual", "high"], "--qual"),
    (["generate", "x", "--quality", "best"], "best"),
    (["generate", "x", "--faces", "many"], "many"),
    (["generate", "x", "extra"], "extra"),
    (["check"], "file"),
    (["train", "dall-e"], "dall-e"),
    (["data", "steal"], "steal"),
    # row 64: seeds
    *[
        (["generate", "x", "--seed", seed], "whole number")
        for seed in ("-1", "4294967296", "1.5", "true", "1e3", "", "٣")
    ],
    # row 22: settings
    (["generate", "x", "--set", "resolutoin=3"], "resolution"),
    (["generate", "x", "--set", "resolution=many"], "expected int"),
    (["generate", "x", "--set", "resolution=True"], "expected int"),
    (["generate", "x", "--set", "resolution=100000"], "between 8 and 64"),
    (["generate", "x", "--set", "variation=1e400"], "expected float"),
    (["generate", "x", "--set", "__class__=3"], "no setting"),
    (["generate", "x", "--set", "resolution.__class__=3"], "too deep"),
    (["generate", "x", "--set", "resolution"], "path.to.field"),
    (["generate", "x", "--set", "resolution=" + "(" * 10_000], "expected int"),
    # systems, sizes, devices
    (["generate", "x", "--system", "dreamfusion"], "sphere"),
    (["generate", "x", "--refine", "xbind"], "systems that can: none yet"),
    (["generate", "x", "--size", "80"], "80mm"),
    (["generate", "x", "--size", "0mm"], "between 1 mm and 100 m"),
    (["generate", "x", "--size", "1e9m"], "length"),
    (["generate", "x", "--mask", "m.png"], "--image"),
    (["generate", "x", "--config", "absent.glb"], "absent.glb"),
    (["generate", "x", "--image", "absent.png"], "absent.png"),
    (["generate", "--views", "absent"], "absent"),
    # row 23: outputs
    (["generate", "x", "-o", "a.blend"], ".glb"),
    (["generate", "x", "-o", "a"], ".glb"),
    (["generate", "x", "-o", ".glb"], "3D format"),
    (["generate", "x", "-o", "absent/a.glb"], "absent"),
    (["generate", "x", "-o", "n" * 300 + ".glb"], "too long"),
    (["generate", "x", "-o", "/dev/full"], "3D format"),
    (["generate", "x", "-o", "a\0.glb"], "NUL"),
    # other verbs
    (["check", "absent.glb"], "absent.glb"),
    (["cite", "absent.glb"], "absent.glb"),
    (["cite", "a.stl"], "a.stl"),
]


@pytest.mark.parametrize("arguments, words", ARGUMENTS, ids=[str(i) for i in range(len(ARGUMENTS))])
def test_bad_arguments(sphere: None, refused: Callable[..., str], arguments: list[str], words: str) -> None:
    assert words in refused(2, *arguments)


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["generate", "x", "--device", "tpu"], 2, "no device"),
        (["generate", "x", "--weights", "absent.safetensors"], 3, "no weights"),
        (["generate", "x", "--weights", "someone/model"], 3, "anyform models"),
        (["generate", "x", "--accept-licence", "someone/model"], 3, "no released"),
        (["weights", "convert", "absent.ckpt", "-o", "a.safetensors"], 3, "absent.ckpt"),
    ],
)
def test_other_codes(sphere: None, refused: Callable[..., str], arguments: list[str], code: int, words: str) -> None:
    assert words in refused(code, *arguments)


@pytest.mark.parametrize(
    "text", ["שלום כיסא", "🪑👩‍🚀", "\ud800 chair", "a\u202eb", "\x1b]0;title\x07chair", "一把椅子"]
)
def test_odd_texts_work_and_reach_the_terminal_clean(
    sphere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["generate", text, "-o", "a.glb"]) == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.err + printed.out and "\u202e" not in printed.err + printed.out


def test_file_names_are_echoed_clean(sphere: None, refused: Callable[..., str], tmp_path: Path) -> None:
    assert "\x1b" not in refused(2, "generate", "x", "--image", "a\x1b]0;pwned\x07.png")
    (tmp_path / "b\nc\x1b[2J.glb").write_bytes(b"no mesh")
    assert "\x1b" not in refused(2, "check", "b\nc\x1b[2J.glb")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"settings": 3}',
        b'{"seed": "1"}',
        b'{"seed": true}',
        b'{"seed": 1e400}',
        b'{"seed": -1}',
        b'{"settings": {"resolution": NaN}}',
        b'{"settings": {"__class__": 1}}',
        b'{"system": ["sphere"]}',
        b'{"quality": "best"}',
        b'{"weights": [{"id": "/home/me/w.ckpt"}]}',
        b'{"settings": {"export": {"millimetres": "wide"}}}',
        b'{"prompt": {"kind": "image", "sha256": "00"}}',
    ],
)
def test_damaged_config(sphere: None, refused: Callable[..., str], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    text = [] if b"prompt" in content else ["x"]
    refused(2, "generate", *text, "--config", "config.json")


def test_output_is_never_the_input(sphere: None, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "p.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 64\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
        + "".join(f"{i % 4} {i // 4 % 4} {i // 16}\n" for i in range(64)),
        encoding="ascii",
    )
    before = (tmp_path / "p.ply").read_bytes()
    assert "also the input" in refused(2, "generate", "--points", "p.ply", "-o", "./p.ply", "--force")
    assert (tmp_path / "p.ply").read_bytes() == before


def test_read_only_and_existing_folders(sphere: None, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "folder.glb").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refused(2, "generate", "x", "-o", "link/a.glb")
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "read-only" in refused(2, "generate", "x", "-o", "locked/a.glb")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(max_size=30), value=st.text(max_size=30))
def test_any_setting_ends_in_success_or_two(
    sphere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["generate", "x", "-o", "a.glb", "--force", "--set", f"{path}={value}"]) in {0, 2}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arguments=st.lists(st.sampled_from(["generate", "check", "cite", "--json", "-o", "x", "--seed", "3", "--", "-"]))
)
def test_any_arguments_end_with_a_known_code(
    sphere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments, "--faces"]) == 2


def _script(body: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(body)]


SLEEPER = """
    import sys
    from anyform import api, cli
    from anyform.types.prompt import Text
    class Sleeper:
        accepts, settings = (Text,), None
        def generate(self, prompt, *, seed, report):
            try:
                print("ready", flush=True)  # inside, or a prompt signal would pass the cleaning by
                while True:
                    sys.stdin.read(1)
            finally:
                CLEANUP
    entry = api.Entry(load=lambda w, d, s: Sleeper(), settings=lambda q: None, smaller=lambda s: None, accepts=(Text,))
    api.SYSTEMS = {"sleeper": entry}
    import anyform.configuration
    anyform.configuration.apply = lambda config, values: config
    sys.exit(cli.main(["generate", "x", "-o", "a.glb"]))
"""


def _start(body: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        _script(body), cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_with_130(tmp_path: Path, number: signal.Signals) -> None:
    process = _start(SLEEPER.replace("CLEANUP", "pass"), tmp_path)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped; nothing was saved" in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    busy = "print('cleaning', flush=True); sys.stdin.read()"
    process = _start(SLEEPER.replace("CLEANUP", busy), tmp_path)
    assert process.stdout is not None
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM and list(tmp_path.iterdir()) == []


def test_killed_run_leaves_nothing_and_can_be_repeated(
    sphere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = _start(SLEEPER.replace("CLEANUP", "pass"), tmp_path)
    process.kill()
    process.communicate(timeout=60)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.chdir(tmp_path)
    for name in ("a.glb", "b.glb"):
        assert cli.main(["generate", "x", "--seed", "1", "-o", name, "--resume"]) == 0
    assert (tmp_path / "a.glb").read_bytes() == (tmp_path / "b.glb").read_bytes()


SPHERE = """
    import os, sys
    os.umask(int(os.environ.get("UMASK", "022"), 8))
    import importlib.util
    spec = importlib.util.spec_from_file_location("sphere_system", sys.argv[1])
    module = sys.modules["sphere_system"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from anyform import api, cli
    api.SYSTEMS = {"sphere": module.entry()}
    sys.exit(cli.main(["generate", sys.argv[3], "--seed", "3", "-o", sys.argv[2]]))
"""


@pytest.mark.slow
def test_same_bytes_in_any_environment(tmp_path: Path, root: Path) -> None:
    surroundings = (
        {},
        {"TZ": "Asia/Kolkata", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
        {"PYTHONHASHSEED": "7", "UMASK": "077", "SOURCE_DATE_EPOCH": "0"},
        {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1"},
    )
    for number, environment in enumerate(surroundings):
        system = str(root / "tests" / "sphere_system.py")
        command = [*_script(SPHERE), system, str(tmp_path / f"{number}.glb"), "Iğdır'da ılık 🪑"]
        base = {**os.environ, "PYTHONPATH": str(SOURCE)}
        done = subprocess.run(command, env=base | environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (content,) = {path.read_bytes() for path in tmp_path.glob("*.glb")}
    assert json.dumps("Iğdır'da ılık 🪑").encode() in content


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
def test_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(b"precious")
    body = """
        import resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        import numpy as np
        from anyform import cli
        from anyform.geometry.asset import Asset, Provenance
        from anyform.geometry.marching_cubes import surface
        axis = np.linspace(-1, 1, 24, dtype=np.float32)
        grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
        asset = Asset(surface(np.sqrt((grid**2).sum(0)) - 0.7, -1.0, 2 / 23), Provenance("s", "0", 0, "draft"))
        from anyform import api
        api.generate = lambda prompt, **options: asset
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        sys.exit(cli.main(["generate", "x", "-o", "a.glb", "--force"]))
    """
    done = subprocess.run(
        _script(body),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "larger than this system allows" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.glb"]
    assert (tmp_path / "a.glb").read_bytes() == b"precious"


def test_a_mistake_of_ours_is_one_sentence_and_debug_shows_where(tmp_path: Path) -> None:
    body = """
        import sys
        import anyform.cli.cite
        def broken(arguments): raise KeyError("\\x1b[31mred")
        anyform.cli.cite.run = broken
        sys.argv = ["anyform", "cite", "x"] + EXTRA
        from anyform.cli import main
        sys.exit(main())
    """
    for extra, has_trace in (([], False), (["--debug"], True)):
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        command = _script(body.replace("EXTRA", repr(extra)))
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and ("Traceback" in done.stderr) is has_trace
        assert has_trace or (len(done.stderr.splitlines()) == 1 and "\x1b" not in done.stderr)


def test_debug_shows_the_traceback_of_an_error(sphere: None, capsys: Any) -> None:
    assert cli.main(["generate", "", "--debug"]) == 2
    printed = capsys.readouterr().err
    assert "Traceback" in printed and printed.splitlines()[-1].startswith("anyform: the text is empty")


def test_error_record(sphere: None, capsys: Any) -> None:
    assert cli.main(["generate", "", "--json"]) == 2
    record = json.loads(capsys.readouterr().out)
    assert record["ok"] is False and record["exit_code"] == 2 and "empty" in record["message"]


@pytest.mark.parametrize("environment", [{"TZ": "Asia/Kolkata"}, {"LC_ALL": "tr_TR.UTF-8"}, {"PYTHONHASHSEED": "7"}])
def test_help_loads_nothing_heavy_in_any_environment(environment: dict[str, str], tmp_path: Path) -> None:
    body = """
        import sys
        from anyform.cli import main
        code = main(["--help"])
        heavy = {"torch", "numpy", "rich", "PIL", "trimesh"} & set(sys.modules)
        sys.exit(code or len(heavy))
    """
    done = subprocess.run(
        _script(body),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "generate" in done.stdout
