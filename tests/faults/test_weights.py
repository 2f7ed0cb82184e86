"""Damaged, malicious and half-fetched weights (expectations.md §4.3: 39-43): WeightsError, nothing loaded or run."""

from __future__ import annotations

import http.server
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

import anyform
from anyform import weights
from anyform.errors import WeightsError

SOURCE = Path(anyform.__file__).resolve().parents[1]
ID = "ADSKAILab/WaLa-SV-1B"
INTACT = save({"a": torch.ones(4), "b": torch.zeros(2, 2)}, metadata={"licence": "CC0"})


def crafted(header: Any, data: bytes = b"\0" * 16) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(shape: list[Any], start: Any, stop: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


DAMAGED = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "header of 10^18 bytes": (10**18).to_bytes(8, "little") + b"{}",
    "header longer than the file": (100).to_bytes(8, "little") + b"{}",
    "no JSON": crafted(b"not json"),
    "deep JSON": crafted(b"[" * 100_000),
    "a list": crafted([]),
    "unknown format": crafted({"a": tensor([4], 0, 16, "F31")}),
    "overlap": crafted({"a": tensor([3], 0, 12), "b": tensor([2], 8, 16)}),
    "gap": crafted({"a": tensor([1], 0, 4), "b": tensor([2], 8, 16)}),
    "beyond the end": crafted({"a": tensor([8], 0, 32)}),
    "unused tail": crafted({"a": tensor([1], 0, 4)}),
    "shape against bytes": crafted({"a": tensor([5], 0, 16)}),
    "huge shape": crafted({"a": tensor([2**62, 2**62], 0, 16)}),
    "negative offset": crafted({"a": tensor([4], -16, 0)}),
    "negative shape": crafted({"a": tensor([-4], 0, 16)}),
    "float offset": crafted({"a": tensor([4], 0.0, 16)}),
    "true as shape": crafted({"a": tensor([True], 0, 4), "b": tensor([3], 4, 16)}),
    "no table": crafted({"a": 3}),
    "metadata of numbers": crafted({"__metadata__": {"a": 1}, "a": tensor([4], 0, 16)}),
    "truncated": INTACT[:-5],
    "a web page": b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "NaN": save({"good": torch.ones(2), "bad.weight": torch.tensor([1.0, float("nan")])}),
    "infinity": save({"half": torch.tensor([float("inf")], dtype=torch.float16)}),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        weights.read_safetensors(path)
    assert (
        "w.safetensors" in str(caught.value) and len(str(caught.value)) < 300 and str(tmp_path) not in str(caught.value)
    )
    assert path.read_bytes() == content


def test_nan_names_the_tensor(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(DAMAGED["NaN"])
    with pytest.raises(WeightsError, match=r"bad\.weight"):
        weights.read_safetensors(tmp_path / "w.safetensors")


@given(position=st.integers(0, len(INTACT) - 1), value=st.integers(0, 255))
def test_any_changed_byte_is_noticed_by_a_pinned_hash(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("w") / "w.safetensors"
    changed = bytearray(INTACT)
    changed[position] = value
    path.write_bytes(changed)
    if bytes(changed) == INTACT:
        weights.read_safetensors(path, sha256=sha256(INTACT).hexdigest())
        return
    with pytest.raises(WeightsError):
        weights.read_safetensors(path, sha256=sha256(INTACT).hexdigest())
    assert path.exists()


def test_embedded_folder_refuses_changed_and_unlisted_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anyform.weights import embedded

    index = {"text": {"file": "text.safetensors", "sha256": "0" * 64}}
    monkeypatch.setattr(embedded, "_FOLDER", tmp_path.resolve())
    monkeypatch.setattr(embedded, "embedded_index", lambda: index)
    for name, words in (("text", "hash of 'text.safetensors' differs"), ("other", "not listed")):
        save_file({"a": torch.ones(1)}, tmp_path / f"{name}.safetensors")
        with pytest.raises(WeightsError, match=words):
            weights.read_safetensors(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("path", ["absent.safetensors", "."])
def test_unreadable_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="cannot be read"):
        weights.read_safetensors(path)


class Malicious:
    """Unpickling this touches a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("legacy", [False, True])
def test_malicious_pickle_runs_nothing(tmp_path: Path, legacy: bool) -> None:
    marker = tmp_path / "pwned"
    state = {"a": torch.ones(1), "b": Malicious(marker)}
    torch.save(state, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="could run code"):
        weights.convert_pickle(tmp_path / "evil.ckpt", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.ckpt"]
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert marker.exists(), "the file was malicious indeed"


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"PK\x03\x04broken", pickle.dumps({"a": [1, 2]}), pickle.dumps(3), pickle.dumps({"a": 1})[:-4]],
    ids=str,
)
def test_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.bin"):
        weights.convert_pickle(tmp_path / "a.bin", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers like a hub whose mood `server.mood` says."""

    server: Any

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        mood = self.server.mood
        if isinstance(mood, int):
            self.send_response(mood)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        name = self.path.rpartition("/")[2]
        body = b"<!DOCTYPE html><p>Sign in</p>" if mood == "page" else name.encode() * 1000
        hashed = sha256(body if mood != "wrong hash" else b"another file").hexdigest()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{"e" * 40 if mood == "page" else hashed}"')
        self.end_headers()
        if with_body:
            self.wfile.write(body[: len(body) // 2] if mood == "half" else body)

    def log_message(self, *arguments: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def hub() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.mood, server.requests = "well", []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


FETCH = """
    import sys
    import time
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.01))  # back-off without the wait
    from anyform.errors import AnyformError
    from anyform.weights import accept_licence, resolve
    accept_licence(sys.argv[1])
    try:
        print(sorted(path.name for path in resolve(sys.argv[1]).iterdir()))
    except AnyformError as error:
        print(error)
        sys.exit(error.exit_code)
"""


@pytest.fixture
def fetch(hub: Any, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a process that fetches the id from the fake hub."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HTTP"))}
    environment |= {
        "PYTHONPATH": str(SOURCE),
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_sentinel_token",
        "HF_HUB_DISABLE_XET": "1",
        "ANYFORM_HOME": str(tmp_path / "home"),
    }

    def start(**more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(FETCH), ID]
        return subprocess.Popen(
            command, env=environment | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start


def test_two_processes_fetch_each_file_once_and_then_need_no_network(fetch: Any, hub: Any) -> None:
    both = [fetch(), fetch()]
    for process in both:
        said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, said + errors
        assert said.strip() == "['args.json', 'checkpoint.ckpt']"
    assert sum(request.startswith("GET") and request.endswith("checkpoint.ckpt") for request in hub.requests) == 1
    seen = len(hub.requests)
    process = fetch(ANYFORM_OFFLINE="1")
    assert process.communicate(timeout=120)[0].strip() == "['args.json', 'checkpoint.ckpt']"
    assert len(hub.requests) == seen


@pytest.mark.parametrize(
    "mood, words",
    [
        (401, "HTTP 401"),
        (403, "HTTP 403"),
        (404, "HTTP 404"),
        (429, "HTTP 429"),
        (503, "HTTP 503"),
        ("page", "web page"),
        ("half", "could not be fetched completely"),
        ("wrong hash", "differs"),
    ],
)
def test_what_a_hub_may_answer(fetch: Any, hub: Any, mood: int | str, words: str) -> None:
    hub.mood = mood
    process = fetch()
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 3 and words in said, said + errors
    assert len(said.splitlines()) == 1 and "hf_sentinel_token" not in said + errors


def test_a_flipped_byte_in_the_cache_is_noticed(fetch: Any, tmp_path: Path) -> None:
    assert fetch().wait(timeout=120) == 0
    cached = next((tmp_path / "hf").rglob("snapshots/*/checkpoint.ckpt")).resolve()
    damaged = bytearray(cached.read_bytes())
    damaged[100] ^= 1
    cached.write_bytes(damaged)
    process = fetch(ANYFORM_OFFLINE="1")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 3 and "differs" in said and cached.exists()


def test_offline_touches_no_network(fetch: Any, hub: Any) -> None:
    process = fetch(ANYFORM_OFFLINE="1")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 3 and "the network is off" in said and hub.requests == []
