"""Write docs/cli.md from the command line's own grammar; `--check` only says whether it is current."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from anyform.cli import work
from anyform.cli.parser import Parser, build_parser

PAGE = Path(__file__).resolve().parent / "cli.md"
HEAD = """# The command line

Made by `make docs` from the parser itself; a test keeps it true.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 2 bad input or settings, 3 missing
dependency, weights or device, 4 out of memory, 5 the result failed its gate (nothing is saved as a success),
130 interrupted.
"""


def verbs(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all verbs below this one, and of the tasks that read their own options."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield verb
                yield from verbs(verb)
    if parser.prog == "anyform":
        for verb_name, tasks in (("data", work.DATA), ("train", work.TRAIN), ("evaluate", work.EVALUATE)):
            for name, load in tasks.items():
                module = load()
                task = Parser(prog=f"anyform {verb_name} {name}", description=(module.__doc__ or "").partition("\n")[0])
                module.add_arguments(task)
                yield task


def option(action: argparse.Action) -> str:
    """How an option or argument is written."""
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    if not action.option_strings:
        return str(action.metavar or action.dest)
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")


def cell(text: str) -> str:
    """Text inside a table."""
    return text.replace("|", "\\|")


def section(parser: argparse.ArgumentParser) -> str:
    """One verb: its sentence and a table of what it takes."""
    rows = [
        f"| `{cell(option(action))}` | {cell(action.help or '')} |\n"
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
    ]
    table = "\n| argument | meaning |\n|---|---|\n" + "".join(rows) if rows else ""
    return f"\n## `{parser.prog}`\n\n{parser.description or ''}\n{table}"


def page() -> str:
    """The whole page."""
    return HEAD + "".join(map(section, verbs(build_parser())))


def main() -> int:
    """Write the page, or with `--check` return 1 where it would change."""
    if "--check" in sys.argv:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
