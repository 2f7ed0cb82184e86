"""`anyform.client` against a real server in this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anyform import client as module
from anyform.client import Client, ServerError
from anyform.server.jobs import Service


def test_a_whole_job(service: Service, live: Callable[..., int], tmp_path: Path) -> None:
    server = Client(f"http://127.0.0.1:{live(service)}")
    job = server.submit({"text": "a mug", "seed": 7})
    names = [name for name, _ in server.events(job["id"])]
    assert names[0] == "queued" and names[-1] == "done" and "progress" in names
    path = server.download(job["id"], tmp_path / "mug.glb")
    assert path.stat().st_size == server.job(job["id"])["result"]["formats"]["glb"]["bytes"]
    assert [path.name for path in tmp_path.glob("mug*")] == ["mug.glb"]
    assert [one["id"] for one in server.jobs(state="done")] == [job["id"]]
    assert server.wait(job["id"])["state"] == "done"
    server.delete(job["id"])
    with pytest.raises(ServerError) as refused:
        server.job(job["id"])
    assert refused.value.status == 404 and refused.value.code == "not_found"


def test_files_keys_and_cancelling(
    make_service: Callable[..., Service], live: Callable[..., int], fixtures: Path
) -> None:
    server = Client(f"http://127.0.0.1:{live(make_service(start=False), root_path='/any')}/any/")
    picture = next(path for path in sorted(fixtures.rglob("*.png")))
    job = server.submit({"seed": 1}, {"image": picture}, key="once")
    assert job["request"]["kind"] == "image" and job["state"] == "queued"
    cancelled = server.cancel(job["id"])
    assert cancelled["state"] == "cancelled"
    assert [name for name, _ in server.events(job["id"])] == ["queued", "cancelled"]


def test_a_token_is_sent(service: Service, live: Callable[..., int]) -> None:
    url = f"http://127.0.0.1:{live(service, token='a long secret')}"
    assert Client(url, token="a long secret").models()["systems"][0]["name"] == "light"
    with pytest.raises(ServerError) as refused:
        Client(url).models()
    assert refused.value.status == 401


def test_refusals_and_dead_servers(service: Service, live: Callable[..., int]) -> None:
    server = Client(f"http://127.0.0.1:{live(service)}")
    with pytest.raises(ServerError, match="text is empty"):
        server.submit({"text": " "})
    with pytest.raises(OSError):
        Client("http://127.0.0.1:1").job("0" * 26)
    with pytest.raises(ValueError, match="no address"):
        Client("localhost:7860")


def test_one_file_without_the_package(tmp_path: Path) -> None:
    (tmp_path / "client.py").write_bytes(Path(module.__file__).read_bytes())
    code = "import client, sys; assert not {'anyform', 'httpx', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, check=True)
