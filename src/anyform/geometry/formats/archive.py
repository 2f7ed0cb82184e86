"""ZIP containers written with fixed dates and read with limits on every member."""

from __future__ import annotations

import io
import zipfile

from anyform.errors import BadInput


def zipped(files: dict[str, bytes]) -> bytes:
    """A deflated ZIP whose bytes depend on the content alone: dates are 1980-01-01, permissions 0644."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, content in files.items():
            archive.writestr(_entry(name, zipfile.ZIP_DEFLATED), content)
    return out.getvalue()


def stored_aligned(files: dict[str, bytes], alignment: int) -> bytes:
    """An uncompressed ZIP where the content of every file starts at a multiple of `alignment` bytes, as USDZ asks."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = _entry(name, zipfile.ZIP_STORED)
            start = out.tell() + 30 + len(name.encode("utf-8")) + 4
            padding = -start % alignment
            entry.extra = b"\x86\x19" + padding.to_bytes(2, "little") + b"\0" * padding
            archive.writestr(entry, content)
    return out.getvalue()


def _entry(name: str, compression: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type, entry.create_system, entry.external_attr = compression, 3, 0o100644 << 16
    return entry


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """One member of at most `limit` bytes, whatever its header claims. Raises BadInput for a larger or locked one."""
    entry = archive.getinfo(name)
    if entry.flag_bits & 1:
        raise BadInput(f"its part {name[:80]!r} is encrypted; save it without a password")
    if entry.file_size > limit:
        raise BadInput(f"its part {name[:80]!r} unpacks to {entry.file_size >> 20} MiB; up to {limit >> 20} are read")
    with archive.open(entry) as member:
        content = member.read(limit + 1)
    if len(content) > limit:
        raise BadInput(f"its part {name[:80]!r} unpacks to more than {limit >> 20} MiB")
    return content
