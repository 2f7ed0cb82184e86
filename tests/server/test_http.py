"""The routes: submit, list, look, follow, cancel, delete, files, facts; problems for everything else."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from anyform.server import store as states
from anyform.server.jobs import Service
from anyform.server.prompts import FILES
from anyform.server.store import new_id

Wait = Callable[..., Any]


def submit(client: TestClient, text: str = "a mug", **prompt: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"text": text, "seed": 7, **prompt})
    assert answer.status_code == 202, answer.text
    return answer.json()


def done(client: TestClient, service: Service, wait_for: Wait, text: str = "a mug") -> str:
    job = submit(client, text)["id"]
    assert wait_for(service, job).state == states.DONE
    return job


def events(client: TestClient, job: str, **headers: str) -> list[tuple[str, str, Any]]:
    """(id, name, data) of every event of a stream."""
    answer = client.get(f"/v1/jobs/{job}/events", headers=headers)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in re.split(r"\r?\n\r?\n", answer.text.strip()):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


def picture(size: int = 32, kind: str = "PNG") -> bytes:
    rows = np.zeros((size, size, 3), np.uint8)
    rows[8:24, 8:24] = (200, 40, 30)
    file = io.BytesIO()
    Image.fromarray(rows).save(file, kind)
    return file.getvalue()


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and problem["code"] == code and problem["detail"] and len(answer.content) < 2000
    return problem


def test_a_job_from_submission_to_asset(client: TestClient, service: Service, wait_for: Wait) -> None:
    answer = client.post("/v1/jobs", json={"text": " a mug ", "quality": "draft"})
    job = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == job["links"]["self"]
    assert job["state"] in {"queued", "running", "done"} and job["request"]["text"] == "a mug"
    assert job["request"]["system"] == "light" and 0 <= job["request"]["seed"] < 2**32
    wait_for(service, job["id"])
    shown = client.get(job["links"]["self"]).json()
    assert shown["state"] == "done" and shown["position"] is None and shown["result"]["watertight"] is True
    asset = client.get(shown["links"]["asset"]["glb"])
    assert asset.status_code == 200 and len(asset.content) == shown["result"]["formats"]["glb"]["bytes"]
    assert asset.headers["etag"] == f'"{shown["result"]["formats"]["glb"]["sha256"]}"'
    assert asset.headers["content-disposition"].startswith("attachment; ")
    assert client.get(shown["links"]["preview"]).content == b"RIFFdone"
    assert client.get(shown["links"]["provenance"]).json() == {"seed": job["request"]["seed"]}


def test_a_form_is_as_good_as_json(client: TestClient) -> None:
    answer = client.post("/v1/jobs", files={"prompt": (None, '{"text": "a mug", "seed": 3}')})
    assert answer.status_code == 202 and answer.json()["request"]["seed"] == 3


@pytest.mark.parametrize("kind, name", [("PNG", "shoe.png"), ("JPEG", "x"), ("WEBP", "../../etc/passwd")])
def test_a_picture_is_read_by_the_child(
    client: TestClient, service: Service, wait_for: Wait, kind: str, name: str
) -> None:
    answer = client.post("/v1/jobs", files={"image": (name, picture(kind=kind))})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert job["request"]["kind"] == "image"
    with np.load(service.jobs / job["id"] / "image.npz") as arrays:
        assert arrays["rgba"].shape == (32, 32, 4)
    assert wait_for(service, job["id"]).state == states.DONE
    names = {path.name for path in (service.jobs / job["id"]).iterdir()}
    assert names == {"request.json", "image.npz", "live.webp", "out"}


@pytest.mark.parametrize(
    "prompt, field",
    [
        ({}, "prompt.text"),
        ({"text": ""}, "prompt.text"),
        ({"text": "x" * 2001}, "prompt.text"),
        ({"text": "a\0b"}, "prompt.text"),
        ({"text": 3}, "prompt.text"),
        ({"text": "x", "seed": -1}, "prompt.seed"),
        ({"text": "x", "seed": 2**32}, "prompt.seed"),
        ({"text": "x", "seed": 1.5}, "prompt.seed"),
        ({"text": "x", "seed": True}, "prompt.seed"),
        ({"text": "x", "quality": "best"}, "prompt.quality"),
        ({"text": "x", "system": "dalle"}, "prompt.system"),
        ({"text": "x", "refine": "dalle"}, "prompt.refine"),
        ({"text": "x", "settings": {"variatoin": 0.5}}, "prompt.settings"),
        ({"text": "x", "settings": {"__class__": 1}}, "prompt.settings"),
        ({"text": "x", "settings": {"variation": "much"}}, "prompt.settings"),
        ({"text": "x", "settings": {"a": {"b": {"c": 1}}}}, "prompt.settings"),
        ({"text": "x", "settings": []}, "prompt.settings"),
        ({"text": "x", "faces": "many"}, "prompt.faces"),
        ({"text": "x", "size": "80"}, "prompt.size"),
        ({"text": "x", "print": 1}, "prompt.print"),
        ({"text": "x", "background": "blur"}, "prompt.background"),
        ({"image": "http://169.254.169.254/"}, "prompt.image"),
        ({"text": "x", "url": "file:///etc/passwd"}, "prompt.url"),
        ({"job": "0" * 26}, "prompt.job"),
        ({"job": "../../etc"}, "prompt.job"),
        ({"text": "x", "job": "0" * 26}, "prompt.job"),
        ([], "prompt"),
        ("x", "prompt"),
    ],
)
def test_wrong_prompts_name_their_field(client: TestClient, service: Service, prompt: Any, field: str) -> None:
    problem = refused(client.post("/v1/jobs", json=prompt), 422, "bad_setting" if "settings" in field else "bad_input")
    assert problem["field"] == field
    assert not list(service.jobs.iterdir()) and not list(service.incoming.iterdir())


def test_a_job_can_be_refined(client: TestClient, service: Service, wait_for: Wait) -> None:
    first = done(client, service, wait_for)
    answer = client.post("/v1/jobs", json={"job": first, "seed": 1})
    assert answer.status_code == 202 and answer.json()["request"]["kind"] == "asset"
    kept = service.jobs / answer.json()["id"] / "asset.glb"
    assert kept.read_bytes() == (service.jobs / first / "out" / "asset.glb").read_bytes()


def test_lists_have_pages_states_and_counts(client: TestClient, service: Service, wait_for: Wait) -> None:
    made = [done(client, service, wait_for, str(i)) for i in range(3)]
    page = client.get("/v1/jobs?limit=2").json()
    assert [job["id"] for job in page["jobs"]] == made[:0:-1] and page["counts"]["done"] == 3
    page = client.get(f"/v1/jobs?limit=2&cursor={page['next']}").json()
    assert [job["id"] for job in page["jobs"]] == made[:1] and page["next"] is None
    assert client.get("/v1/jobs?state=queued").json()["jobs"] == []
    for wrong in ("state=lost", "limit=0", "limit=201", "limit=x", "cursor=x", "cursor=-1"):
        refused(client.get(f"/v1/jobs?{wrong}"), 422, "bad_input")


def test_events_end_with_the_job_and_resume(client: TestClient, service: Service, wait_for: Wait) -> None:
    job = submit(client)["id"]
    told = events(client, job)
    numbered = [event for event in told if event[0]]
    assert [int(event[0]) for event in numbered] == list(range(1, len(numbered) + 1))
    assert [event[1] for event in numbered][:2] == ["queued", "running"] and told[-1][1] == "done"
    assert told[-1][2] == client.get(f"/v1/jobs/{job}").json()
    assert events(client, job, **{"last-event-id": numbered[1][0]}) == numbered[2:]
    last = {"last-event-id": numbered[-1][0]}
    assert client.get(f"/v1/jobs/{job}/events", headers=last).status_code == 204
    assert events(client, job, **{"last-event-id": "nonsense"})[0][0] == "1"


def test_a_listener_hears_a_running_job_end(client: TestClient, service: Service, wait_for: Wait) -> None:
    job = submit(client, "slow")["id"]
    wait_for(service, job, states.RUNNING)
    waiting = submit(client)["id"]
    assert client.get(f"/v1/jobs/{waiting}").json()["position"] == 1
    opener = threading.Timer(0.2, (service.jobs / job / "go").touch)
    opener.start()
    assert events(client, job)[-1][1] == "done"
    opener.join()
    assert service._listeners.get(job) is None


def test_cancel_and_delete(client: TestClient, service: Service, wait_for: Wait) -> None:
    running = submit(client, "slow")["id"]
    wait_for(service, running, states.RUNNING)
    waiting = submit(client)["id"]
    for _ in range(2):  # cancelling twice is cancelling once
        answer = client.post(f"/v1/jobs/{waiting}/cancel")
        assert answer.status_code == 200 and answer.json()["state"] == "cancelled"
    assert client.delete(f"/v1/jobs/{running}").status_code == 200
    assert wait_for(service, running).state == states.CANCELLED
    for _ in range(2):
        assert client.delete(f"/v1/jobs/{running}").status_code == 204
    refused(client.get(f"/v1/jobs/{running}"), 404, "not_found")
    assert not (service.jobs / running).exists()
    finished = done(client, service, wait_for)
    refused(client.post(f"/v1/jobs/{finished}/cancel"), 409, "conflict")
    for method in ("get", "delete"):
        refused(getattr(client, method)(f"/v1/jobs/{new_id()}"), 404, "not_found")


def test_idempotency_over_http(client: TestClient) -> None:
    key = {"Idempotency-Key": "42"}
    first = client.post("/v1/jobs", json={"text": "a mug"}, headers=key)
    again = client.post("/v1/jobs", json={"text": "a mug"}, headers=key)
    assert (first.status_code, again.status_code) == (202, 200) and first.json()["id"] == again.json()["id"]
    refused(client.post("/v1/jobs", json={"text": "a chair"}, headers=key), 409, "conflict")
    refused(client.post("/v1/jobs", json={"text": "x"}, headers={"Idempotency-Key": "k" * 201}), 422, "bad_input")


def test_a_full_queue_says_when_to_come_back(make_service: Callable[..., Service], connect: Any) -> None:
    client = connect(make_service(start=False, max_queue=1))
    submit(client)
    answer = client.post("/v1/jobs", json={"text": "another"})
    refused(answer, 429, "queue_full")
    assert 1 <= int(answer.headers["retry-after"]) <= 300


@pytest.mark.parametrize(
    "header, status, part",
    [
        ("bytes=0-3", 206, slice(0, 4)),
        ("bytes=10-", 206, slice(10, None)),
        ("bytes=-5", 206, slice(-5, None)),
        ("bytes=0-99999", 206, slice(None)),
        ("bytes=99999-", 416, slice(0, 0)),
        ("bytes=-0", 416, slice(0, 0)),
        ("bytes=5-2", 200, slice(None)),
        ("bytes=0-1,4-5", 200, slice(None)),
        ("lines=0-1", 200, slice(None)),
    ],
)
def test_ranges(client: TestClient, service: Service, wait_for: Wait, header: str, status: int, part: slice) -> None:
    url = f"/v1/jobs/{done(client, service, wait_for)}/asset.glb"
    whole = client.get(url).content
    answer = client.get(url, headers={"Range": header})
    assert answer.status_code == status and answer.content == whole[part]
    if status == 206:
        first, last, size = (int(number) for number in re.findall(r"\d+", answer.headers["content-range"]))
        assert whole[first : last + 1] == answer.content and size == len(whole)


def test_an_unchanged_file_is_not_sent_again(client: TestClient, service: Service, wait_for: Wait) -> None:
    url = f"/v1/jobs/{done(client, service, wait_for)}/asset.glb"
    tag = client.get(url).headers["etag"]
    answer = client.get(url, headers={"If-None-Match": f'"other", {tag}'})
    assert answer.status_code == 304 and answer.content == b""
    assert client.get(url, headers={"Range": "bytes=0-3", "If-Range": tag}).status_code == 206
    assert client.get(url, headers={"Range": "bytes=0-3", "If-Range": '"old"'}).status_code == 200


def test_what_there_is_not(client: TestClient, service: Service, wait_for: Wait) -> None:
    job = done(client, service, wait_for)
    for path in (f"/v1/jobs/{job}/asset.usdz", f"/v1/jobs/{job}/asset.exe", "/nothing", "/v1/", "/v1/jobs/x/events"):
        refused(client.get(path), 404, "not_found")
    refused(client.put("/v1/jobs"), 405, "bad_input")


def test_facts(client: TestClient, service: Service) -> None:
    assert client.get("/v1/health").json()["status"] == "ok"
    systems = client.get("/v1/models").json()["systems"]
    assert systems[0]["name"] == "light" and set(systems[0]["accepts"]) == {"text", *FILES} - {"mask"}
    assert systems[0]["refines"] and {"name": "variation", "type": "float", "default": 0.5} in systems[0]["settings"]
    limits = client.get("/v1/limits").json()
    assert limits["max_text"] == 2000 and limits["formats"]["image"] == ["png", "jpg", "jpeg", "webp"]
    assert client.get("/v1/ready").json()["max_queue"] == 500
    assert client.get("/v1/session").json() == {"required": False, "authorized": True}


def test_a_server_without_workers_is_not_ready(make_service: Callable[..., Service], connect: Any) -> None:
    answer = connect(make_service(start=False)).get("/v1/ready")
    assert answer.status_code == 503 and answer.json()["ready"] is False


def test_the_sub_path_works_with_and_without_a_stripping_proxy(service: Service, connect: Any) -> None:
    client = connect(service, root_path="/any")
    for prefix in ("", "/any"):
        answer = client.post(f"{prefix}/v1/jobs", json={"text": "a mug"})
        assert answer.status_code == 202 and answer.headers["location"].startswith("/any/v1/jobs/")
        assert client.get(answer.headers["location"]).status_code == 200
    refused(client.get("/anyv1/jobs"), 404, "not_found")


def test_the_published_description_is_this_one(client: TestClient, root: Path) -> None:
    published = json.loads((root / "docs" / "openapi.json").read_text(encoding="utf-8"))
    assert published == client.get("/openapi.json").json(), "run `make docs`"
