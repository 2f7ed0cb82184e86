"""A submission as it streams in: multipart parts straight to files of our own names, JSON read strictly.

multipart/form-data: RFC 7578. A client's file name decides at most the suffix, out of the list of its field.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from anyform.errors import BadInput, MissingDependency
from anyform.server.problems import Problem
from anyform.server.prompts import FILES
from anyform.types.readers.limits import parse_json

MAX_JSON = 1 << 20
MAX_PART_HEADER = 16_384


@dataclass(slots=True)
class Upload:
    """What came: the prompt object, and a path a file field. digest: SHA-256 over all of it."""

    prompt: object
    files: dict[str, Path] = field(default_factory=dict)
    digest: str = ""


async def receive(content_type: str, body: AsyncIterator[bytes], folder: Path) -> Upload:
    """Read a submission into `folder`. Raises Problem for other media types, unknown fields, damaged bodies."""
    media, _, _ = content_type.partition(";")
    media = media.strip().lower()
    if media == "application/json":
        data = await _limited(body)
        return Upload(strict_json(data), digest=hashlib.sha256(b"json" + data).hexdigest())
    if media == "multipart/form-data":
        return await _multipart(content_type, body, folder)
    raise Problem(415, "unsupported_media", "a job is sent as application/json or multipart/form-data")


def strict_json(data: bytes) -> object:
    """JSON without duplicate keys, NaN or deep nesting. Raises Problem."""
    try:
        return parse_json(data, "the prompt")
    except BadInput as error:
        raise Problem(422, "bad_input", str(error), field="prompt") from error


async def _limited(body: AsyncIterator[bytes]) -> bytes:
    data = bytearray()
    async for chunk in body:
        data += chunk
        if len(data) > MAX_JSON:
            raise Problem(413, "too_large", f"a prompt has at most {MAX_JSON} bytes; files are sent as form fields")
    return bytes(data)


async def _multipart(content_type: str, body: AsyncIterator[bytes], folder: Path) -> Upload:
    try:
        from python_multipart.exceptions import FormParserError
        from python_multipart.multipart import MultipartParser, parse_options_header
    except ImportError as error:
        raise MissingDependency("python-multipart", extra="serve") from error

    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary or len(boundary) > 200:
        raise Problem(400, "bad_input", "the multipart body names no usable boundary")
    parts = _Parts(folder, parse_options_header)
    parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
    try:
        async for chunk in body:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise Problem(400, "bad_input", "the multipart body is damaged") from error
    except OSError as error:
        raise Problem(503, "storage_full", "the upload cannot be stored", retry_after=60) from error
    finally:
        parts.close()
    if not parts.is_whole:
        raise Problem(400, "bad_input", "the multipart body ends too early")
    prompt = strict_json(bytes(parts.prompt)) if parts.has_prompt else {}
    return Upload(prompt, parts.files, parts.digest.hexdigest())


class _Parts:
    """Takes the parser's callbacks: `prompt` into memory, files into the folder."""

    def __init__(self, folder: Path, parse_options: Any) -> None:
        self.prompt, self.files, self.digest = bytearray(), dict[str, Path](), hashlib.sha256()
        self.has_prompt, self.is_whole = False, False
        self._folder, self._parse_options = folder, parse_options
        self._name, self._value, self._disposition = bytearray(), bytearray(), b""
        self._file: IO[bytes] | None = None

    def callbacks(self) -> dict[str, Any]:
        """What python-multipart calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header(self._name, data[start:end]),
            "on_header_value": lambda data, start, end: self._header(self._value, data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._open,
            "on_part_data": lambda data, start, end: self._data(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._whole,
        }

    def close(self) -> None:
        """Let go of a file whose part never ended."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._name.clear()
        self._value.clear()
        self._disposition = b""

    def _header(self, into: bytearray, data: bytes) -> None:
        into += data
        if len(into) > MAX_PART_HEADER:
            raise Problem(400, "bad_input", "a part of the form has a header that is too long")

    def _header_end(self) -> None:
        if bytes(self._name).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _open(self) -> None:
        _, options = self._parse_options(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self.digest.update(f"\0{name[:80]}\0".encode())
        if name == "prompt":
            if self.has_prompt:
                raise Problem(422, "bad_input", "the form has two prompts: send one", field="prompt")
            self.has_prompt = True
            return
        if name not in FILES:
            known = ", ".join(["prompt", *FILES])
            raise Problem(422, "bad_input", f"the form has a field that is not known; there are {known}")
        if name in self.files:
            raise Problem(422, "bad_input", f"the form has two files {name}: send one", field=name)
        given = options.get(b"filename", b"").decode("utf-8", "replace").replace("\\", "/")
        suffix = PurePosixPath(given[-255:]).suffix.lower()
        if suffix not in FILES[name]:
            if len(FILES[name]) > 1 and name in ("points", "voxels", "audio"):
                known = ", ".join(FILES[name])
                raise Problem(415, "unsupported_media", f"the file name of {name} ends with one of {known}", field=name)
            suffix = FILES[name][0]  # the content tells the kind of picture
        self.digest.update(suffix.encode())
        self.files[name] = self._folder / f"{name}{suffix}"
        self._file = self.files[name].open("xb")

    def _data(self, data: bytes) -> None:
        self.digest.update(data)
        if self._file is not None:
            self._file.write(data)
            return
        self.prompt += data
        if len(self.prompt) > MAX_JSON:
            raise Problem(413, "too_large", f"a prompt has at most {MAX_JSON} bytes", field="prompt")

    def _end(self) -> None:
        self.close()

    def _whole(self) -> None:
        self.is_whole = True
