"""What the terminal gets: cleaned text, and progress as a bar (terminal) or plain lines (anything else), on stderr."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from anyform.types.progress import Progress

_LONGEST = 2000
_LINE_EVERY_S = 5.0


def clean(text: str, longest: int = _LONGEST) -> str:
    """`text` on one line without control characters, escape sequences, direction overrides or lone surrogates.

    Other people's words (prompts, file names, metadata) pass through here before a terminal sees them.
    """
    cut = text if len(text) <= longest else f"{text[:longest]}…"
    kept = (" " if c in "\r\n\t" else c for c in cut)
    # Cc: control; Cs: surrogate; Cf: formatting, such as direction overrides, but also the joiner that emoji need.
    return "".join(c for c in kept if c == "\u200d" or unicodedata.category(c) not in {"Cc", "Cf", "Cs"})


def say(line: str) -> None:
    """One line to stderr, at once."""
    encoding = sys.stderr.encoding or "utf-8"
    print(line.encode(encoding, "replace").decode(encoding), file=sys.stderr, flush=True)


def print_out(text: str) -> None:
    """Results to stdout, with what its encoding cannot hold replaced."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)


class Reporter:
    """The `Report` of a command: `with Reporter() as report: work(report)`. `lines` keeps everything for log.txt."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.lines: list[str] = []
        self._clock = clock
        self._start = self._stage_start = self._last = clock()
        self._stage = ""
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            console = Console(stderr=True)
            self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the reporter was made."""
        return self._clock() - self._start

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        is_new = progress.stage != self._stage
        if is_new:
            self._stage, self._stage_start = progress.stage, now
        line = self._line(progress, now)
        if is_new or progress.message or progress.preview:
            self.lines.append(f"{now - self._start:8.2f} s  {line}")
        if self._bar is not None:
            self._draw(self._bar, progress, is_new)
        elif is_new or progress.message or now - self._last >= _LINE_EVERY_S:
            say(f"anyform: {line}")
            self._last = now

    def _line(self, progress: Progress, now: float) -> str:
        """stage step/total, time left, message, preview's name."""
        parts = [clean(progress.stage)]
        if progress.total:
            parts.append(f"{progress.step}/{progress.total}")
        if progress.total and 0 < progress.step < progress.total:
            left = (now - self._stage_start) / progress.step * (progress.total - progress.step)
            parts.append(f"about {left:.0f} s left")
        if progress.message:
            parts.append(clean(progress.message))
        if progress.preview is not None:
            parts.append(f"preview {clean(progress.preview.name)}")
        return "  ".join(parts)

    def _draw(self, bar: Bar, progress: Progress, is_new: bool) -> None:
        total = progress.total or None
        if is_new or self._task is None:
            if self._task is not None:
                bar.remove_task(self._task)
            self._task = bar.add_task(clean(progress.stage), total=total)
        bar.update(self._task, completed=progress.step, total=total)
        if progress.message:
            bar.console.print(clean(progress.message), markup=False, highlight=False)
