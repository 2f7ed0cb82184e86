"""A worker in the standard library alone, for tests of the server: speaks the protocol of `server/worker.py`.

The prompt's text steers it: "slow" waits for a file named go in its job folder, "stubborn" does too and is deaf to
cancelling, "die" kills itself, "fail" fails, "wait" sleeps as many milliseconds as the number after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

cancelled: set[str] = set()
arrived = threading.Condition()
orders: list[dict[str, Any]] = []


def listen() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        with arrived:
            cancelled.add(order["cancel"]) if "cancel" in order else orders.append(order)
            arrived.notify_all()
    os._exit(0)


def say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def work(order: dict[str, Any]) -> None:
    job, folder, text = order["job"], Path(order["folder"]), order["request"].get("text", "")
    for step in range(3):
        say(progress={"stage": "denoise", "step": step + 1, "steps": 3, "eta_s": 0.1, "message": ""})
    (folder / "live.webp").write_bytes(b"RIFFlive")
    say(preview=1)
    if text.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if text.startswith("fail"):
        return say(failed={"code": "gate_failed", "message": "the mesh is open", "hint": "try another seed"})
    with arrived:
        while text.startswith(("slow", "stubborn")) and not (folder / "go").exists():
            if job in cancelled and not text.startswith("stubborn"):
                break
            arrived.wait(0.02)
        if text.startswith("wait"):
            arrived.wait_for(lambda: job in cancelled, int(text.split()[1]) / 1000)
    if job in cancelled and not text.startswith("stubborn"):
        return say(cancelled=True)
    say(done=save(folder, order["request"]))


def save(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    partial = folder / f"out.partial.{os.getpid()}"
    partial.mkdir()
    content = f"{request.get('text')} {request['seed']} ".encode() * 40
    (partial / "asset.glb").write_bytes(content)
    (partial / "preview.webp").write_bytes(b"RIFFdone")
    (partial / "provenance.json").write_text(json.dumps({"seed": request["seed"]}), encoding="utf-8")
    result = {
        **{name: [] for name in ("reasons", "credits", "licences", "notes", "citations")},
        **dict.fromkeys(("vertices", "faces", "bodies"), 1),
        **{name: request[name] for name in ("system", "seed", "quality")},
        "size_mm": [1.0, 2.0, 3.0],
        "watertight": True,
        "commercial_use": "yes",
        "seconds": 0.0,
        "formats": {"glb": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}},
    }
    (partial / "result.json").write_text(json.dumps(result), encoding="utf-8")
    partial.replace(folder / "out")
    return result


if __name__ == "__main__":
    threading.Thread(target=listen, daemon=True).start()
    say(ready=True)
    while True:
        with arrived:
            arrived.wait_for(lambda: orders)
            order = orders.pop(0)
        work(order)
