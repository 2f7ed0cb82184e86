"""The process that does the work: one a device, the models kept warm, killable at any moment.

stdin: JSON lines {"job", "folder", "request", "device"} and {"cancel": job}; its end stops the process, so no worker
outlives its server. stdout: JSON lines {"ready"}, {"progress"}, {"preview"} and, last of a job, {"done"}, {"failed"}
or {"cancelled"}. A result appears in the job's folder as `out/`, renamed into place once it is whole.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from anyform.errors import AnyformError, BadInput, Interrupted, MissingDependency, OutOfMemory
from anyform.types.progress import Progress, Report

OUT, PARTIAL, LIVE_PREVIEW = "out", "out.partial", "live.webp"
NICENESS = 5  # below the server, which has to answer while all cores work
# error class -> (code of the API, hint)
_CODES: dict[str, tuple[str, str]] = {
    "BadSetting": ("bad_setting", "change that setting and send the job again"),
    "BadInput": ("bad_input", "change the prompt or the file and send the job again"),
    "MissingDependency": ("missing_dependency", "ask whoever runs this server to install it"),
    "WeightsError": ("weights", "ask whoever runs this server to look at `anyform models`"),
    "LicenceNotAccepted": ("weights", "ask whoever runs this server to accept the licence"),
    "DeviceUnavailable": ("device", "ask whoever runs this server to look at `anyform doctor`"),
    "OutOfMemory": ("out_of_memory", "choose a lower quality or a smaller texture"),
    "GateFailed": ("gate_failed", "try another seed or say the prompt in other words"),
}


class Cancelled(Interrupted):
    """The server asked to stop this job."""


class Worker:
    """Takes orders from stdin, one job after another."""

    def __init__(self, orders: IO[str], answers: IO[str]) -> None:
        self._orders, self._answers = orders, answers
        self._jobs: queue.Queue[dict[str, Any]] = queue.Queue()
        self._cancelled = ""

    def run(self) -> None:
        """Work until stdin ends; the process ends with it even in the middle of a job."""
        threading.Thread(target=self._listen, daemon=True).start()
        self._say({"ready": True})
        while True:
            order = self._jobs.get()
            self._one(order)

    def _listen(self) -> None:
        for line in self._orders:
            order = json.loads(line)
            if "cancel" in order:
                self._cancelled = order["cancel"]
            else:
                self._jobs.put(order)
        os._exit(0)

    def _one(self, order: Mapping[str, Any]) -> None:
        """One job; errors of ours by class, all others end the process, which says so on its way."""
        folder = Path(order["folder"])
        reporter = _Reporter(lambda: self._cancelled == order["job"], folder, self._say)
        try:
            result = make(folder, order["request"], order["device"], reporter)
            self._say({"done": result})
        except Cancelled:
            self._say({"cancelled": True})
        except OutOfMemory as error:  # what filled the memory goes with the process
            self._say({"failed": describe(error)})
            os._exit(0)
        except AnyformError as error:
            self._say({"failed": describe(error)})
        except OSError as error:
            code = {"code": "storage", "hint": "ask whoever runs this server to look at its disk"}
            self._say({"failed": {**code, "message": f"a file could not be written: {error.strerror}"}})

    def _say(self, answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=self._answers, flush=True)

    def fell(self, kind: type[BaseException], _error: BaseException, _trace: TracebackType | None) -> None:
        """The last words after a mistake of ours: its kind, no text of it, which could name paths."""
        hint = "please report it with the prompt"
        self._say({"failed": {"code": "internal", "message": f"a mistake of ours: {kind.__name__}", "hint": hint}})


class _Reporter:
    """The `Report` of a job: tells the server, stops where it was cancelled, copies previews."""

    def __init__(self, is_cancelled: Any, folder: Path, say: Any) -> None:
        self._is_cancelled, self._folder, self._say = is_cancelled, folder, say
        self._stage, self._since, self._previews = "", time.monotonic(), 0

    def __call__(self, progress: Progress) -> None:
        if self._is_cancelled():
            raise Cancelled("cancelled")
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._since = progress.stage, now
        eta = None
        if progress.total and 0 < progress.step <= progress.total:
            eta = round((now - self._since) / progress.step * (progress.total - progress.step), 1)
        if progress.preview is not None and progress.preview.is_file():
            self._previews += 1
            partial = self._folder / f"{LIVE_PREVIEW}.partial"
            shutil.copyfile(progress.preview, partial)
            partial.replace(self._folder / LIVE_PREVIEW)
            self._say({"preview": self._previews})
        told = {"stage": progress.stage, "step": progress.step, "steps": progress.total, "eta_s": eta}
        self._say({"progress": {**told, "message": progress.message[:300]}})


def make(folder: Path, request: Mapping[str, Any], device: str, report: Report) -> dict[str, Any]:
    """Generate what a checked request asks for and put it into `folder`/out. Returns the result of the API."""
    from anyform import api
    from anyform.cli.generate import finish, host_facts
    from anyform.server.prompts import metres_of, settings_of

    start = time.monotonic()
    report(Progress("reading the prompt"))
    asset = api.generate(
        _prompt(folder, request),
        system=request["system"],
        refine=request.get("refine"),
        quality=request["quality"],
        seed=request["seed"],
        device=device,
        settings=settings_of(request),
        report=report,
    )
    asset, facts = finish(asset, metres_of(request), bool(request.get("print")), report)
    if request.get("keep_prompt") is False:
        kind = {"kind": asset.provenance.prompt.get("kind", "unknown")}
        asset = replace(asset, provenance=replace(asset.provenance, prompt=kind))
    report(Progress("saving"))
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    formats = _save(asset, partial)
    seconds = round(time.monotonic() - start, 2)
    record = {**asset.provenance.to_json(), "host": {"seconds": seconds, **host_facts(device)}}
    _write(partial / "provenance.json", record)
    result = {**_facts(asset), **facts, "seconds": seconds, "formats": formats}
    _write(partial / "result.json", result)
    partial.replace(folder / OUT)
    return result


def describe(error: AnyformError) -> dict[str, str]:
    """An error as the API shows it."""
    code, hint = _CODES.get(type(error).__name__, ("failed", ""))
    return {"code": code, "message": str(error), "hint": hint}


def _prompt(folder: Path, request: Mapping[str, Any]) -> Any:
    """What `api.generate` takes: the text, the arrays left by the reader, a mix of them, or an earlier asset."""
    from anyform.server.prompt_arrays import read_prompt
    from anyform.types.prompt import Text

    if request["kind"] == "asset":
        return _earlier(folder / "asset.glb")
    prompts: list[Any] = []
    for kind in request["kinds"]:
        prompts.append(Text(request["text"]) if kind == "text" else read_prompt(folder / f"{kind}.npz", kind))
        if kind == "image" and request.get("background") != "keep" and not prompts[-1].has_mask:
            from anyform.encoders.cutout import cut_out

            prompts[-1] = cut_out(prompts[-1], "auto")
    return prompts[0] if len(prompts) == 1 else [(prompt, 1.0) for prompt in prompts]


def _earlier(glb: Path) -> Any:
    """The asset of an earlier job, moved from the floor it stands on back into [-1, 1]³."""
    from anyform.geometry.asset import Asset, Provenance, WeightsRecord
    from anyform.geometry.formats import read_extras, read_mesh

    mesh, made = read_mesh(glb), read_extras(glb)
    low, high = mesh.bounds
    scale = 1.8 / float((high - low).max())
    weights = tuple(WeightsRecord(**row) for row in made.get("weights", ()))
    kept = {key: made[key] for key in ("system", "version", "seed", "quality", "settings", "prompt") if key in made}
    return Asset(mesh.moved(scale, -(low + high) / 2 * scale), Provenance(**kept, weights=weights))


def _save(asset: Any, folder: Path) -> dict[str, Any]:
    """Every format there is: {"glb": {"bytes", "sha256"}, …}; the preview picture beside them."""
    from anyform.cli.output import preview
    from anyform.geometry.formats import FORMATS
    from anyform.weights import sha256

    formats: dict[str, Any] = {}
    for suffix in FORMATS:
        file = folder / f"asset{suffix}"
        try:
            asset.save(file, force=True)
        except MissingDependency:  # an optional format: it is not offered
            continue
        except BadInput:
            if suffix == ".glb":
                raise
            continue  # a shape this format cannot hold
        formats[suffix[1:]] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    preview(asset, folder / "preview.webp")
    return formats


def _facts(asset: Any) -> dict[str, Any]:
    """What the page says about a result."""
    from anyform.cli.generate import shape_facts
    from anyform.geometry.gate import gate
    from anyform.licensing import commercial_use

    made, verdict = asset.provenance, commercial_use(asset.provenance.to_json())
    report = gate(asset.mesh, allow_parts=True)
    return {
        "system": made.system,
        "seed": made.seed,
        "quality": made.quality,
        **shape_facts(asset),
        "watertight": report.watertight,
        "bodies": report.bodies,
        **verdict.to_json(),
        "licences": sorted({weights.licence for weights in made.weights}),
        "notes": list(made.notes),
        "citations": list(made.citations),
    }


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def main() -> None:
    """What the server starts: stdout belongs to the answers, whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if sys.platform != "win32":
        os.nice(NICENESS)
    worker = Worker(sys.stdin, answers)
    sys.excepthook = worker.fell
    worker.run()


if __name__ == "__main__":
    main()
