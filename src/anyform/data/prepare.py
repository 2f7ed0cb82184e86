"""Meshes in, training shards out: resumable, one bad mesh never stops the run, and the same bytes however it was run.

`out` holds `plan.json` (what was asked for), `shard-000000.tar` …, a record of each shard in `records/`, and at the end
`manifest.json` and `rejected.jsonl`. A shard is a fixed slice of the item list and every object has its own seed, so
shards do not depend on the number of workers, on their order, or on how often the run was interrupted. Shards and
records appear whole; a run that finds both skips the shard.

Workers are processes started before any compiled kernel runs (a forked numba thread pool is a dead one). A worker that
dies on an object (a crash in a native library, or killed for memory) is replaced; that object is rejected and named.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from anyform.data.corpus import Collection, open_collection
from anyform.data.samples import ViewPlan, make_sample
from anyform.data.shards import TRUNCATION, Sample, write_shard
from anyform.errors import AnyformError, BadInput, BadSetting, MissingDependency
from anyform.types.progress import Progress, Report, silent

_VERSION = 2  # of the shards' content; two versions are never mixed in one folder
_NATIVE_LIBRARIES = {"point_cloud_utils": "point-cloud-utils", "embreex": "embreex"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run left in its folder."""

    samples: int
    rejected: int
    shards: int


def prepare(
    folder: str | Path,
    out: str | Path,
    *,
    size: int = 64,
    views: ViewPlan | None = None,
    shard_size: int = 64,
    workers: int = 1,
    report: Report = silent,
) -> Prepared:
    """Turn the corpus or any folder of meshes into shards in `out`; call it again to go on after an interruption.

    size: samples a side of the distance grid. workers: processes; 0 works in this one. Memory: one object a worker.
    Raises BadInput where `out` holds shards made with other settings or from other items.
    """
    if workers < 0 or shard_size < 1:
        raise BadSetting(f"workers is {workers} and shard_size {shard_size}; they must be at least 0 and 1")
    for module, package in _NATIVE_LIBRARIES.items():
        if find_spec(module) is None:
            raise MissingDependency(package, extra="data")
    collection, out = open_collection(folder), Path(out)
    job = Job(str(Path(folder).absolute()), str(out.absolute()), size, views or ViewPlan(), shard_size)
    (out / "records").mkdir(parents=True, exist_ok=True)
    _agree_on_plan(out / "plan.json", job, collection)
    for leftover in out.rglob("*.partial"):
        leftover.unlink(missing_ok=True)
    total = -(-len(collection.items) // shard_size)
    waiting = [index for index in range(total) if not job.is_done(index)]
    if workers == 0:
        for index in waiting:
            step = total - len(waiting) + waiting.index(index)
            write_one_shard(job, collection, index, _reporter(report, step, total))
    else:
        _run_workers(job, waiting, min(workers, len(waiting)), report)
    return _write_manifest(out, job, total)


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a worker needs to make any shard of a run."""

    folder: str
    out: str
    size: int
    views: ViewPlan
    shard_size: int

    def shard(self, index: int) -> Path:
        """Where shard `index` goes."""
        return Path(self.out) / f"shard-{index:06d}.tar"

    def record(self, index: int) -> Path:
        """Where the list of its samples and rejects goes."""
        return Path(self.out) / "records" / f"{index:06d}.json"

    def is_done(self, index: int) -> bool:
        """Whether both are in place; each appears only when it is whole."""
        return self.shard(index).is_file() and self.record(index).is_file()


def write_one_shard(
    job: Job,
    collection: Collection,
    index: int,
    announce: Callable[[str], None],
    killers: frozenset[str] = frozenset(),
) -> None:
    """Make one shard and its record; `announce` hears each item's id before the work on it, `killers` are left out."""
    written: list[str] = []
    rejected: list[dict[str, str]] = []

    def samples() -> Iterator[Sample]:
        for item in collection.items[index * job.shard_size : (index + 1) * job.shard_size]:
            announce(item.id)
            try:
                if item.id in killers:
                    raise BadInput("the process that worked on it died: it crashed, or was killed for want of memory")
                sample = make_sample(item, collection.read(item), job.size, job.views)
            except (AnyformError, ArithmeticError, LookupError, MemoryError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                rejected.append({"id": item.id, "name": item.name, "reason": reason})
            else:
                written.append(item.id)
                yield sample

    write_shard(job.shard(index), samples())
    with job.shard(index).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _write_json(job.record(index), {"samples": written, "rejected": rejected, "sha256": digest})


def _reporter(report: Report, step: int, total: int) -> Callable[[str], None]:
    return lambda item: report(Progress("prepare", step, total, item))


@dataclass(slots=True)
class _Worker:
    """A worker process and what it is busy with: a shard, and the item it announced last ("" before the first)."""

    process: BaseProcess
    connection: Connection
    index: int | None = None
    item: str = ""


def _run_workers(job: Job, waiting: list[int], count: int, report: Report) -> None:
    """Hand shards to `count` processes until all are made; replace the ones that die."""
    queue = waiting[::-1]
    killers: dict[int, frozenset[str]] = {}
    finished = 0
    workers = [_start_worker(job) for _ in range(count)]
    try:
        while finished < len(waiting):
            for worker in workers:
                if worker.index is None and queue:
                    worker.index, worker.item = queue.pop(), ""
                    worker.connection.send((worker.index, killers.get(worker.index, frozenset())))
            ready = wait([worker.connection for worker in workers if worker.index is not None])
            for worker in [worker for worker in workers if worker.connection in ready]:
                assert worker.index is not None
                try:
                    kind, text = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    workers[workers.index(worker)] = _replace(job, worker, queue, killers)
                    continue
                if kind == "failed":
                    raise BadInput(f"shard {worker.index} could not be written: {text}")
                if kind == "item":
                    worker.item = text
                    report(Progress("prepare", finished, len(waiting), text))
                else:
                    worker.index, finished = None, finished + 1
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()


def _replace(job: Job, dead: _Worker, queue: list[int], killers: dict[int, frozenset[str]]) -> _Worker:
    """A new worker for a dead one; its shard waits again, without the item it died on."""
    assert dead.index is not None
    dead.process.join()
    already = killers.get(dead.index, frozenset())
    if not dead.item or dead.item in already:
        raise BadInput(
            f"a worker ended with code {dead.process.exitcode} while no object was at work on shard {dead.index};"
            " try workers=0 to see why"
        )
    killers[dead.index] = already | {dead.item}
    queue.append(dead.index)
    return _start_worker(job)


def _start_worker(job: Job) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(job, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _work(job: Job, connection: Connection) -> None:
    """A worker's life: shards in; ("item", id), ("done", "") or ("failed", reason) out, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    # The processes share the cores already; these libraries are loaded later and read their settings then.
    os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    collection = open_collection(job.folder)
    try:
        while True:
            index, killers = connection.recv()
            try:
                write_one_shard(job, collection, index, lambda item: connection.send(("item", item)), killers)
            except BrokenPipeError:
                raise
            except OSError as error:
                connection.send(("failed", str(error)))
            else:
                connection.send(("done", ""))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone


def _agree_on_plan(path: Path, job: Job, collection: Collection) -> None:
    """Write what is asked for, or check that an earlier run asked for the same."""
    rows = json.dumps([asdict(item) for item in collection.items], sort_keys=True).encode("utf-8", "surrogateescape")
    plan = {
        "version": _VERSION,
        "size": job.size,
        "shard_size": job.shard_size,
        "views": {**asdict(job.views), "wala_ids": list(job.views.wala_ids)},
        "truncation": TRUNCATION,
        "items": len(collection.items),
        "items_sha256": hashlib.sha256(rows).hexdigest(),
    }
    if not path.is_file():
        _write_json(path, plan)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path.name} in the output folder is damaged ({error}); choose an empty folder") from error
    for key, value in plan.items():
        if not isinstance(before, dict) or before.get(key) != value:
            was = before.get(key) if isinstance(before, dict) else before
            raise BadInput(
                f"the output folder was begun with {key} {was} and {value} is asked for now; choose another folder"
            )


def _write_manifest(out: Path, job: Job, total: int) -> Prepared:
    """manifest.json and rejected.jsonl from the records of all shards."""
    records = [json.loads(job.record(index).read_text(encoding="utf-8")) for index in range(total)]
    rejected = [row for record in records for row in record["rejected"]]
    lines = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rejected)
    _write_text(out / "rejected.jsonl", lines)
    shards = [
        {"file": job.shard(index).name, "samples": len(record["samples"]), "sha256": record["sha256"]}
        for index, record in enumerate(records)
    ]
    prepared = Prepared(sum(shard["samples"] for shard in shards), len(rejected), len(shards))
    plan = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    _write_json(out / "manifest.json", {**plan, **asdict(prepared), "shards": shards})
    return prepared


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _write_text(path, json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


def _write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
