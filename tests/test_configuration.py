"""Settings by dotted path: only fields, only values that fit."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyform import configuration
from anyform.errors import BadSetting


@dataclass(frozen=True, kw_only=True)
class Phase:
    learning_rate: float = 0.01
    steps: int = 3


@dataclass(frozen=True, kw_only=True)
class Config:
    coarse: Phase = field(default_factory=Phase)
    mode: Literal["fast", "fine"] = "fast"
    size: int | None = None
    sides: tuple[float, float] = (1.0, 2.0)
    views: tuple[int, ...] = ()
    name: str = "x"
    is_on: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise BadSetting(f"size is at least 1, got {self.size}")


@pytest.mark.parametrize(
    "assignment, path, expected",
    [
        ("coarse.learning_rate=5e-3", ("coarse", "learning_rate"), 0.005),
        ("coarse.learning_rate=1", ("coarse", "learning_rate"), 1.0),
        ("coarse.steps = 7", ("coarse", "steps"), 7),
        ("mode=fine", ("mode",), "fine"),
        ("size=8", ("size",), 8),
        ("size=none", ("size",), None),
        ("sides=[3, 4.5]", ("sides",), (3.0, 4.5)),
        ("views=(1,2,3)", ("views",), (1, 2, 3)),
        ("views=[]", ("views",), ()),
        ("name=a=b", ("name",), "a=b"),
        ("is_on=TRUE", ("is_on",), True),
    ],
)
def test_values_that_fit(assignment: str, path: tuple[str, ...], expected: object) -> None:
    changed: Any = configuration.override(Config(), *configuration.parse(assignment))
    for name in path:
        changed = getattr(changed, name)
    assert changed == expected and type(changed) is type(expected)


@pytest.mark.parametrize(
    "assignment, words",
    [
        ("coarse.learning_rte=1", "did you mean 'learning_rate'"),
        ("zzz=1", "it has coarse, mode"),
        ("coarse=1", "group of settings: set one of learning_rate, steps"),
        ("name.x=1", "too deep"),
        ("coarse.steps=many", "expected int, got str"),
        ("coarse.steps=1.5", "expected int, got float"),
        ("coarse.steps=True", "expected int, got bool"),
        ("coarse.learning_rate=1e999", "expected float"),
        ("coarse.learning_rate=False", "expected float"),
        ("mode=slow", "one of 'fast', 'fine'"),
        ("size=0", "at least 1"),
        ("sides=(1,2,3)", "expected"),
        ("views=(1,2.5)", "expected"),
        ("is_on=1", "expected bool"),
        ("name=3", "expected str"),
        ("__class__=3", "no setting"),
        ("coarse.__dict__=3", "no setting"),
        ("=3", "path.to.field=value"),
        ("nothing", "path.to.field=value"),
    ],
)
def test_values_that_do_not(assignment: str, words: str) -> None:
    with pytest.raises(BadSetting, match=words):
        configuration.override(Config(), *configuration.parse(assignment))


@given(st.text(max_size=40), st.text(max_size=40))
def test_nothing_but_bad_setting_comes_out(path: str, text: str) -> None:
    try:
        changed = configuration.override(Config(), *configuration.parse(f"{path}={text}"))
    except BadSetting:
        return
    assert dataclasses.is_dataclass(changed)


def test_a_stored_configuration_comes_back() -> None:
    config = Config(coarse=Phase(steps=9), size=4, views=(1, 2), mode="fine")
    stored = asdict(config) | {"views": [1, 2], "sides": [1.0, 2.0]}
    assert configuration.apply(Config(), stored) == config
    assert configuration.flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}
