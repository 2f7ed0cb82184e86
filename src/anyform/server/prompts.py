"""The prompt object of a submission: what a client may send, checked field by field before anything else happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anyform import api, configuration
from anyform.errors import BadInput, BadSetting
from anyform.types.prompt import Audio, Image, Points, Sketch, Text, Views, Voxels

KINDS: dict[str, type] = {
    "text": Text,
    "image": Image,
    "sketch": Sketch,
    "audio": Audio,
    "points": Points,
    "voxels": Voxels,
    "views": Views,
    "depths": Views,
}
# field of a submission -> the file suffixes it takes; the mask belongs to the image
FILES: dict[str, tuple[str, ...]] = {
    "image": (".png", ".jpg", ".jpeg", ".webp"),
    "mask": (".png", ".jpg", ".jpeg", ".webp"),
    "sketch": (".png", ".jpg", ".jpeg", ".webp"),
    "audio": (".wav", ".flac", ".ogg", ".mp3"),
    "points": (".ply", ".npy", ".npz", ".xyz", ".txt", ".csv", ".h5df", ".obj", ".stl", ".glb"),
    "voxels": (".json", ".npy", ".npz", ".binvox", ".vox"),
    "views": (".zip",),
    "depths": (".zip",),
}
FIELDS: dict[str, type | tuple[type, ...]] = {
    "text": str,
    "job": str,
    "system": str,
    "refine": str,
    "quality": str,
    "seed": int,
    "settings": dict,
    "faces": int,
    "texture_size": int,
    "size": str,
    "print": bool,
    "background": str,
    "keep_prompt": bool,
}
_MAX_SETTINGS = 100


class BadField(BadInput):
    """A submission is wrong in one place: `field` is its path."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def check_request(given: object, files: tuple[str, ...]) -> dict[str, Any]:
    """The prompt object of a submission with everything settled: system, quality and seed are always there.

    files: names of the file fields that came with it. Raises BadField for the first thing wrong.
    """
    request = _typed(given)
    if "mask" in files and "image" not in files:
        raise BadField("mask", "a mask says what of an image is the object: send the image too")
    kinds = (["text"] if request.get("text") is not None else []) + [name for name in files if name != "mask"]
    if not kinds and "job" not in request:
        raise BadField("prompt.text", "there is no prompt: send a text, a file, or the id of a finished job")
    if kinds and "job" in request:
        raise BadField("prompt.job", "a finished job is refined by itself: send no other prompt with it")
    if "text" in kinds:
        request["text"] = _named("prompt.text", lambda: Text(request["text"])).text
    request["kind"] = kinds[0] if len(kinds) == 1 else "mix" if kinds else "asset"
    request["kinds"] = kinds
    request["system"] = _named("prompt.system", lambda: _system(request, kinds))
    request["seed"] = _named("prompt.seed", lambda: api.check_seed(request.get("seed")))
    request.setdefault("quality", "standard")
    if request["quality"] not in api.QUALITIES:
        raise BadField("prompt.quality", f"there is no such quality: there are {', '.join(api.QUALITIES)}")
    if request.get("background", "auto") not in ("auto", "keep"):
        raise BadField("prompt.background", "the background is 'auto' (cut the object out) or 'keep'")
    _named("prompt.settings", lambda: _check_settings(request))
    _named("prompt.size", lambda: metres_of(request))
    _named("prompt.refine", lambda: _check_refine(request.get("refine")))
    return request


def settings_of(request: Mapping[str, Any]) -> dict[str, object]:
    """Dotted settings of a checked request: its own, then faces and texture_size."""
    settings = configuration.flatten(request.get("settings", {}))
    for name in ("faces", "texture_size"):
        if name in request:
            settings[name] = request[name]
    return settings


def metres_of(request: Mapping[str, Any]) -> float | None:
    """The length of the longest side a request asks for; None = the default."""
    from anyform.cli.generate import PRINT_METRES, parse_length

    if "size" in request:
        return parse_length(request["size"])
    return PRINT_METRES if request.get("print") else None


def _typed(given: object) -> dict[str, Any]:
    """A table with known keys of the right JSON types; null counts as absent."""
    if not isinstance(given, dict):
        raise BadField("prompt", 'the prompt is a JSON object such as {"text": "a mug"}')
    for name, value in given.items():
        if name not in FIELDS:
            where = "files are sent as form fields, never as links: " if name in FILES else ""
            raise BadField(f"prompt.{name[:60]}", f"{where}there is no such field; there are {', '.join(FIELDS)}")
        kind = FIELDS[name]
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            wanted = {str: "a string", int: "a whole number", bool: "true or false", dict: "an object"}[kind]
            raise BadField(f"prompt.{name}", f"{name} has to be {wanted}")
    return {name: value for name, value in given.items() if value is not None}


def _system(request: Mapping[str, Any], kinds: list[str]) -> str:
    """The system named, or the first that accepts what was sent. Raises BadInput, also where the named one does not."""
    from anyform.geometry.asset import Asset

    name, table = request.get("system"), api.SYSTEMS
    if name is not None and name not in table:
        raise BadInput(f"there is no system {name[:80]!r}; there are {', '.join(table)}")
    wanted = {KINDS[kind] for kind in kinds} or {Asset}
    able = [key for key, entry in table.items() if wanted <= set(entry.accepts)] if len(kinds) < 2 else []
    if name in able or (name is None and able):
        return name or able[0]
    what = "a mix of prompts" if len(kinds) > 1 else f"a prompt of the kind {kinds[0] if kinds else 'asset'}"
    who = "no system" if name is None else f"the system {name!r}"
    raise BadInput(f"{who} accepts {what}; systems that do: {', '.join(able) or 'none yet'}")


def _check_settings(request: Mapping[str, Any]) -> None:
    settings = settings_of(request)
    if len(settings) > _MAX_SETTINGS:
        raise BadSetting(f"there are {len(settings)} settings, at most {_MAX_SETTINGS} are read")
    system = request["system"]
    flat = {key.removeprefix(f"{system}."): value for key, value in settings.items()}
    configuration.apply(api.SYSTEMS[system].settings(request["quality"]), flat)


def _check_refine(name: str | None) -> None:
    from anyform.geometry.asset import Asset

    able = [key for key, entry in api.SYSTEMS.items() if Asset in entry.accepts]
    if name is not None and name not in able:
        raise BadInput(f"{name[:40]!r} cannot refine an asset; systems that can: {', '.join(able) or 'none yet'}")


def _named(field: str, check: Any) -> Any:
    """The result of `check`; its BadInput says which field it was about."""
    try:
        return check()
    except (BadInput, RecursionError) as error:
        message = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadField(field, message) from error
