"""What reaches a terminal is clean, and progress says stage, step and time left."""

from __future__ import annotations

import io
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyform.cli.terminal import Reporter, clean, say
from anyform.types.progress import Progress


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a wooden chair", "a wooden chair"),
        ("\x1b]0;title\x07chair", "]0;titlechair"),
        ("a\nb\r\tc", "a b  c"),
        ("a\u202eb\u2066c\ufeff", "abc"),
        ("\x9b31m\x00\x7f", "31m"),
        ("\ud800x", "x"),
        ("👩\u200d🚀 שלום ³", "👩\u200d🚀 שלום ³"),
        ("x" * 3000, "x" * 2000 + "…"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert clean(text) == expected


@given(st.text())
def test_clean_leaves_one_encodable_line_without_controls(text: str) -> None:
    line = clean(text)
    assert len(line.splitlines()) <= 1 or "\u2028" in line or "\u2029" in line
    assert not any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in line)
    assert clean(line) == line
    line.encode("utf-8")


def test_a_narrow_terminal_gets_replacements(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    say("Stuhl ³")
    stream.seek(0)
    assert stream.read() == "Stuhl ?\n"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_progress_has_stage_step_and_time_left(capsys: Any) -> None:
    clock = Clock()
    with Reporter(clock=clock) as report:
        for step in range(11):
            report(Progress("denoise", step, 10))
            clock.now += 3.0
        report(Progress("decode", preview=Path("/secret/folder/preview.webp")))
        report(Progress("decode", message="half the\nresolution\x1b[2J"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "anyform: denoise  0/10"
    assert "anyform: denoise  2/10  about 24 s left" in lines
    assert len([line for line in lines if "denoise" in line]) < 8, "one line every five seconds"
    assert lines[-2:] == ["anyform: decode  preview preview.webp", "anyform: decode  half the resolution[2J"]
    assert report.seconds == 33.0 and len(report.lines) == 3 and report.lines[1].startswith("   33.00 s  decode")


def test_a_terminal_gets_a_bar_and_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with Reporter() as report:
        report(Progress("denoise", 1, 4))
        report(Progress("denoise", 4, 4, message="[red]not markup"))
        report(Progress("decode"))
    shown = stream.getvalue()
    assert "denoise" in shown and "decode" in shown and "[red]not markup" in shown
