"""The `anyform` command: verbs only. Each verb's work is imported when the verb runs, so that `--help` stays instant.

Exit codes: 0 done, 2 bad input or settings, 3 missing dependency, weights or device, 4 out of memory, 5 the result
failed its gate, 130 interrupted, 1 a mistake of ours. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

from anyform.cli.terminal import clean, say
from anyform.device import is_out_of_memory
from anyform.errors import AnyformError, BadInput, Interrupted, OutOfMemory


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; nothing but a mistake of ours leaves as an exception.

    argv None = this process is the command: then even a mistake of ours ends in one sentence, unless `--debug`.
    """
    if argv is None and "--debug" not in sys.argv:
        sys.excepthook = _one_sentence
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with _stoppable():
            return _dispatch(arguments)
    except SystemExit as done:  # argparse after --help and --version
        return int(done.code or 0)
    except BrokenPipeError:  # the reader of our output has gone: `anyform models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (AnyformError, OSError, MemoryError, RuntimeError, KeyboardInterrupt) as error:
        failure = _explain(error)
        if failure is None:
            raise
        if "--debug" in arguments:
            traceback.print_exc()
        return _fail(failure, as_json="--json" in arguments)


def _dispatch(arguments: list[str]) -> int:
    from anyform.cli.parser import build_parser

    parsed = build_parser().parse_args(arguments)
    return parsed.run(parsed)


def _explain(error: BaseException) -> AnyformError | None:
    """What the user is told; None for an exception that is a mistake of ours."""
    if isinstance(error, AnyformError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("stopped; nothing was saved")
    if is_out_of_memory(error):
        return OutOfMemory("memory ran out: close other programs, lower --quality, or use a machine with more")
    if isinstance(error, OSError):
        name = Path(str(error.filename)).name if error.filename else "a file"
        return BadInput(f"{name!r} cannot be used: {error.strerror or type(error).__name__}")
    return None


def _fail(error: AnyformError, *, as_json: bool) -> int:
    sentence = clean(str(error))
    say(f"anyform: {sentence}")
    if as_json:
        record = {"ok": False, "error": type(error).__name__, "message": sentence, "exit_code": error.exit_code}
        print(json.dumps(record), flush=True)
    return error.exit_code


def _one_sentence(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    say(clean(f"anyform: a mistake of ours, {kind.__name__}: {error}; --debug shows where, please report it"))


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM stops like Ctrl-C; a second signal of either kind ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
