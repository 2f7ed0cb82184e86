"""Bombs cost no memory (expectations.md §4.3 rows 3, 7, 10-12, 14, 15): each runs in a process whose peak is read."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import textwrap
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import anyform

SOURCE = Path(anyform.__file__).resolve().parents[1]
GROWTH = 50 * 1024  # KiB
# Every bomb is opened in one process, the readers imported and used once before; the peak is reset before each.
PROGRAM = """
    import json, re, sys, warnings
    import PIL.Image, h5py, numpy, soundfile
    from anyform.errors import BadInput
    from anyform.types import prompt

    def memory(key):
        return int(re.search(key + r":\\s+(\\d+)", open("/proc/self/status", encoding="utf-8").read())[1])

    warnings.simplefilter("ignore")
    prompt.Image.open(sys.argv[1])
    report = {}
    for path, kind in json.loads(sys.argv[2]):
        open("/proc/self/clear_refs", "w", encoding="utf-8").write("5")
        before, said = memory("VmRSS"), ""
        try:
            getattr(prompt, kind).open(path)
        except BadInput as error:
            said = str(error)
        report[path] = memory("VmHWM") - before, said
    print(json.dumps(report))
"""


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, zeros: int) -> bytes:
    squeeze = zlib.compressobj(9)
    rows = b"".join([*(squeeze.compress(bytes(2**20)) for _ in range(zeros)), squeeze.flush()])
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def npy_head(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def zipped(path: Path, name: str, head: bytes, mebibytes: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as member:
        member.write(head)
        for _ in range(mebibytes):
            member.write(bytes(2**20))


def bombs(folder: Path) -> dict[str, str]:
    """Files that promise or unpack to far more than they hold -> the prompt type that opens them."""
    (folder / "wide.png").write_bytes(png(50_000, 50_000, 64))
    (folder / "wide.webp").write_bytes(b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3e\0\xff\x3e\0" + bytes(80))
    (folder / "wide.jpg").write_bytes(b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + bytes(99))
    form = struct.pack("<HHIIHH", 1, 96, 48_000, 48_000 * 192, 192, 16)
    (folder / "long.wav").write_bytes(
        b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", 2 * 10**9) + bytes(1000)
    )
    xyz = "property float x\nproperty float y\nproperty float z\nend_header\n"
    for form_name in ("ascii", "binary_little_endian"):
        head = f"ply\nformat {form_name} 1.0\nelement vertex 1000000000000\n{xyz}"
        (folder / f"{form_name}.ply").write_bytes(head.encode() + bytes(1000))
    (folder / "head.npy").write_bytes(npy_head("(1000000000, 3)"))
    zipped(folder / "bomb.npz", "points.npy", npy_head("(20, 1048576)"), 80)
    zipped(folder / "grid.npz", "occupancy.npy", npy_head("(512, 512, 80)"), 80)
    (folder / "line.xyz").write_bytes(b"1 " * 2**25)
    with (folder / "sparse.json").open("wb") as file:
        file.truncate(2**31)
    (folder / "deep.json").write_bytes(b'{"occupancy":' * 10**5)
    (folder / "size.json").write_text(json.dumps({"resolution": 10**6, "occupancy": [[0, 0, 0]]}), encoding="utf-8")
    (folder / "dims.binvox").write_bytes(b"#binvox 1\ndim 65535 65535 65535\ndata\n")
    size = b"SIZE\x0c\0\0\0\0\0\0\0" + struct.pack("<III", 65535, 65535, 65535)
    voxels = b"XYZI\x04\0\0\0\0\0\0\0" + struct.pack("<I", 2**31)
    inner = size + voxels
    (folder / "dims.vox").write_bytes(b"VOX \x96\0\0\0MAIN\0\0\0\0" + struct.pack("<I", len(inner)) + inner)
    kinds = {".png": "Image", ".webp": "Image", ".jpg": "Image", ".wav": "Audio", ".ply": "Points", ".npy": "Points"}
    kinds |= {".npz": "Points", ".xyz": "Points", ".json": "Voxels", ".binvox": "Voxels", ".vox": "Voxels"}
    found = {str(path): kinds[path.suffix] for path in sorted(folder.iterdir())}
    return found | {str(folder / "grid.npz"): "Voxels"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_bombs_are_refused_within_fifty_megabytes(tmp_path: Path) -> None:
    import PIL.Image

    (tmp_path / "bombs").mkdir()
    files = bombs(tmp_path / "bombs")
    PIL.Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3)).save(tmp_path / "warm.png")
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "warm.png"), json.dumps(list(files.items()))],
        env={"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    report = json.loads(run.stdout)
    assert len(report) == len(files) == 15
    for path, (grown, said) in report.items():
        assert said and "\n" not in said, path
        assert grown < GROWTH, f"{Path(path).name} took {grown} KiB: {said}"
