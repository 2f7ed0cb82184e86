"""Write docs/security.md: every attack and fault we know of, the tests that show it is survived, their last result.

    python docs/make_security.py [pytest arguments]     default: tests/faults

Runs those tests, keeps the earlier result of all others in docs/security.json, and writes the page. A test belongs to a
row by its name (`test_row_44_…`), by its parameter ("row 44 …"), or by the list of rows in its file's first line.
"""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "security.md", ROOT / "docs" / "security.json"
FOLDER = ROOT / "tests" / "faults"
ROWS = """
1 texts: empty, 1 MB, NUL, right-to-left, emoji, half surrogates
2 pictures: 0 bytes, cut off, text renamed
3 picture bombs: 50,000² pixels, animations
4 pictures: CMYK, 16-bit, palette and alpha, EXIF rotation, ICC
5 SVG, PSD, FITS, EPS, PDF, HEIC sent as a picture
6 pictures: fully transparent, one colour, 1 x 1
7 sound: lying headers, no samples, NaN, 96 channels, 3 hours
8 sound bombs; a reader that dies or hangs
9 sketches: polarity, no stroke
10 PLY: 10¹² vertices declared, NaN, huge lists
11 points: too few, on a line, all equal, too many
12 NPY and NPZ: pickles, bombs, names that lead out, orders
13 HDF5: external links, filter plug-ins
14 voxel JSON: nesting, counts, indices, NaN, duplicate keys
15 binvox and vox: 65535³ in 40 bytes
16 GLB: lying lengths, outside files, links, cycles
17 OBJ: outside materials, indices, endless lines
18 zips: slip, links, counts, nesting, passwords
19 depth maps: all background, negative, units, sizes
20 views: repeats, no rigid cameras
21 JSON: duplicate keys, 1e400, NaN, 50,000 keys, wrong types
22 settings: unknown, mistyped, out of range, `__class__`
23 output paths: folders, devices, lengths, the input itself
24 disk full while an asset is written
25 disk full for the job database
26 `kill -9` of a run on the command line
27 `kill -9` of the server in the middle of a job
28 `kill -9` of a worker
29 SIGTERM and Ctrl-C
30 two servers on one data folder
31 the port is taken
32 a client leaves during an upload
33 a client leaves during events
34 500 jobs, 50 listeners
35 the same Idempotency-Key in a race
36 cancelling: queued, running, done, twice, unknown
37 NaN in sampler, distance field or texture
38 out of memory
39 damaged or foreign checkpoints
40 safetensors that lie
41 pickles that run code
42 hubs that fail
43 two processes fetch the same weights
44 ids that lead elsewhere
45 links planted in the data folder
46 file names of clients
47 links instead of files (SSRF)
48 fetching by the command line
49 bodies too long, chunked, compressed
50 slow headers, slow bodies, idle connections
51 request smuggling, huge and many headers
52 requests from other pages (CSRF)
53 DNS rebinding
54 CORS preflights
55 web sockets
56 an open address without a token
57 tokens: wrong, absent, in the address
58 framing, sniffing
59 markup in prompts, names and errors
60 log injection
61 terminal injection
62 secrets and paths in logs and errors
63 clock, time zone, locale, hash seed, umask
64 seeds out of range
65 assets over 4 GiB
66 soak: memory, files, disk
67 data of older and newer versions
68 a damaged database
69 a GPU that is not there
70 Windows paths
""".strip().splitlines()
# rows whose tests live elsewhere, or that the code answers by having no such thing
ELSEWHERE = {
    24: ["tests/server/test_worker.py::test_a_full_disk_is_said"],
    26: [
        "tests/faults/test_cli.py::test_killed_run_leaves_nothing_and_can_be_repeated",
        "tests/training/test_loop.py::test_kill_9_then_resume_equals_an_uninterrupted_run",
    ],
    27: [
        "tests/server/test_jobs.py::test_after_a_kill_the_job_is_interrupted_and_runs_again",
        "tests/server/test_jobs.py::test_a_job_that_kills_the_server_twice_has_failed",
        "benchmarks/serve.py kill",
    ],
    37: [
        "tests/server/test_worker.py::test_a_failed_job_leaves_no_result",
        "tests/systems/wala/test_system.py::test_injected_nan_and_memory_end_as_the_right_error",
    ],
    38: ["tests/server/test_worker.py::test_after_memory_ran_out_the_process_ends"],
    42: ["tests/weights/test_hub.py::test_a_bad_answer_is_one_sentence_with_advice"],
    43: ["tests/weights/test_hub.py::test_two_processes_fetch_each_file_once_and_then_need_no_network"],
    59: ["tests/page/test_journeys.py::test_nothing_typed_becomes_markup"],
    25: ["tests/server/test_store.py::test_a_full_disk_refuses_writing_and_goes_on_reading"],
    28: [
        "tests/server/test_jobs.py::test_a_worker_that_dies_fails_its_job_alone",
        "tests/server/test_jobs.py::test_a_worker_killed_from_outside_fails_its_job_alone",
    ],
    34: ["tests/server/test_jobs.py::test_a_full_queue_refuses_and_leaves_nothing", "benchmarks/serve.py load"],
    35: ["tests/server/test_store.py::test_a_key_makes_one_job_even_in_a_race"],
    36: ["tests/server/test_http.py::test_cancel_and_delete"],
    48: ["there is no --allow-url: nothing is fetched"],
    66: ["benchmarks/serve.py soak"],
    67: ["tests/server/test_store.py::test_a_newer_database_is_left_alone"],
    68: [
        "tests/server/test_store.py::test_a_damaged_database_is_moved_aside",
        "tests/server/test_jobs.py::test_jobs_are_rebuilt_from_folders",
    ],
}


def run(arguments: list[str]) -> dict[str, str]:
    """{test without parameters: "passed" | "failed" | "skipped"}; the worst of its parameters counts."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            f"--junitxml={report}",
            "-o",
            "junit_family=xunit1",
            *arguments,
        ]
        subprocess.run(command, cwd=ROOT, check=False)
        tree = ElementTree.parse(report)
    order = ["failed", "skipped", "passed"]
    found: dict[str, str] = {}
    for case in tree.iter("testcase"):
        name = f"{case.get('file')}::{str(case.get('name')).partition('[')[0]}"
        state = "passed"
        if case.find("failure") is not None or case.find("error") is not None:
            state = "failed"
        elif case.find("skipped") is not None:
            state = "skipped"
        found[name] = min(state, found.get(name, state), key=order.index)
    return found


def numbers(text: str) -> set[int]:
    """Rows of "§4.3: 1, 21-24, 29"."""
    listed = re.search(r"§4\.3(?:: rows?|:| rows?) ([\d, –-]+)", text)
    found: set[int] = set()
    for part in re.split(r",\s*", listed.group(1).strip(" ,") if listed else ""):
        first, _, last = part.replace("–", "-").partition("-")
        if first.strip().isdigit():
            found |= set(range(int(first), int(last or first) + 1))
    return found


def tests_by_row() -> dict[int, list[str]]:
    """Row -> tests, named ones first, then the files that list the row and have no named one."""
    named: dict[int, list[str]] = {row: [] for row in range(1, len(ROWS) + 1)}
    files: dict[int, list[str]] = {row: [] for row in named}
    for path in sorted(FOLDER.rglob("test_*.py")):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        for test, row in re.findall(r"^def (test_row_(\d+)\w*)", text, re.MULTILINE):
            named[int(row)].append(f"{name}::{test}")
        for row in {int(row) for row in re.findall(r'\("row (\d+)', text)}:
            named[row].append(f"{name}::test_bad_files_are_refused_in_one_sentence")
        for row in numbers(text.partition("\n")[0]):
            files[row].append(name)
    whole = {row: [*found, *ELSEWHERE.get(row, [])] for row, found in named.items()}
    return {
        row: [*found, *(name for name in files[row] if not any(test.startswith(name) for test in found))]
        for row, found in whole.items()
    }


def page(results: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# Attacks and faults, and what shows that they are survived",
        "",
        f"Made by `python docs/make_security.py`, last run {results['date']}. A test is named with its last result;",
        "where only a file is named, its tests together cover the row. What is promised and what is not:",
        "[SECURITY.md](../SECURITY.md).",
        "",
        "| # | attack or fault | shown by | last result |",
        "|---|---|---|---|",
    ]
    for line in ROWS:
        number, _, what = line.partition(" ")
        shown = tests_by_row()[int(number)]
        names = "<br>".join(f"`{name.removeprefix('tests/')}`" if "/" in name else name for name in shown)
        states = sorted({state(name, results["tests"]) for name in shown} or {"no test"})
        lines.append(f"| {number} | {what} | {names or '—'} | {', '.join(states)} |")
    return "\n".join(lines) + "\n"


def state(name: str, results: dict[str, str]) -> str:
    """The last result of a test, or of a whole file."""
    if not name.startswith("tests/"):
        return "by command" if name.startswith("benchmarks/") else "by design"
    found = [result for test, result in results.items() if test == name or test.startswith(f"{name}::")]
    return next((one for one in ("failed", "passed", "skipped") if one in found), "not run")


def main(arguments: list[str]) -> None:
    """Run, remember, write."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"tests": {}}
    tests = {**kept["tests"], **run(arguments or [str(FOLDER.relative_to(ROOT)), *elsewhere()])}
    results = {"date": datetime.date.today().isoformat(), "tests": dict(sorted(tests.items()))}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")


def elsewhere() -> list[str]:
    """The tests of ELSEWHERE."""
    return [name for names in ELSEWHERE.values() for name in names if name.startswith("tests/")]


if __name__ == "__main__":
    main(sys.argv[1:])
