"""Overriding frozen dataclass settings by dotted path: `--set phases.coarse.learning_rate=0.005`.

Only fields of the dataclass are reachable: names are looked up among `dataclasses.fields`, never as attributes. A
value has to fit the field's annotation; an int fits a float, a list fits a tuple. Ranges are the dataclass's own
business (`__post_init__` raising BadSetting).
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from anyform.errors import BadSetting

Settings = TypeVar("Settings")
_NO_FIT = object()


def parse(assignment: str) -> tuple[str, object]:
    """ "a.b=5e-3" -> ("a.b", 0.005): the right side is a Python literal (true, false and none too), else a string."""
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise BadSetting(f"--set takes path.to.field=value, got {assignment[:80]!r}")
    words: dict[str, object] = {"true": True, "false": False, "none": None, "null": None}
    text = text.strip()
    if text.lower() in words:
        return path.strip(), words[text.lower()]
    try:
        return path.strip(), ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return path.strip(), text


def override(config: Settings, path: str, value: object) -> Settings:
    """`config` (a frozen dataclass) with the dotted field `path` set to `value`.

    Raises BadSetting for an unknown name, saying the nearest one, and for a value that does not fit.
    """
    return _override(config, path, value, path)


def apply(config: Settings, values: Mapping[str, object]) -> Settings:
    """`config` with many settings: dotted paths, or nested mappings as `dataclasses.asdict` writes them."""
    for path, value in flatten(values).items():
        config = override(config, path, value)
    return config


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings -> {dotted path: value}."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _override(config: Any, path: str, value: object, whole: str) -> Any:
    head, _, rest = path.partition(".")
    names = [f.name for f in dataclasses.fields(config) if f.init]
    if head not in names:
        near = difflib.get_close_matches(head, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
        raise BadSetting(f"there is no setting {head[:80]!r} in {type(config).__name__}: {hint}")
    old = getattr(config, head)
    if rest:
        if not dataclasses.is_dataclass(old):
            raise BadSetting(f"{whole[:80]!r} goes too deep: {head!r} is a single value ({old!r})")
        return dataclasses.replace(config, **{head: _override(old, rest, value, whole)})
    if dataclasses.is_dataclass(old):
        inner = ", ".join(f.name for f in dataclasses.fields(old))
        raise BadSetting(f"{whole[:80]!r} is a group of settings: set one of {inner}")
    annotation = typing.get_type_hints(type(config))[head]
    fitted = _fit(value, annotation)
    if fitted is _NO_FIT:
        raise BadSetting(f"{whole}={str(value)[:80]!s}: expected {_name(annotation)}, got {type(value).__name__}")
    return dataclasses.replace(config, **{head: fitted})


def _fit(value: Any, annotation: Any) -> Any:
    """`value` as the annotation wants it, or _NO_FIT. Floats have to be finite."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        fits = [_fit(value, option) for option in arguments]
        return next((fit for fit in fits if fit is not _NO_FIT), _NO_FIT)
    if origin is Literal:
        return next((choice for choice in arguments if type(choice) is type(value) and choice == value), _NO_FIT)
    if origin is tuple:
        return _fit_tuple(value, arguments)
    if annotation is float and type(value) in (int, float):
        return float(value) if math.isfinite(value) else _NO_FIT
    if annotation is type(None) or annotation is None:
        return None if value is None else _NO_FIT
    return value if type(value) is annotation else _NO_FIT


def _fit_tuple(value: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(value, list | tuple):
        return _NO_FIT
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        return _NO_FIT
    fitted = tuple(_fit(item, argument) for item, argument in zip(value, arguments, strict=True))
    return _NO_FIT if any(item is _NO_FIT for item in fitted) else fitted


def _name(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return f"one of {', '.join(repr(choice) for choice in typing.get_args(annotation))}"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
