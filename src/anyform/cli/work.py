"""`anyform data|train|evaluate TASK …`: long work; a module for each task names its options and does it.

Such a module has two functions: `add_arguments(parser)` and `run(arguments, report) -> dict`, the record that `--json`
prints. It is imported when its task is named.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

from anyform.cli.terminal import Reporter, clean, print_out
from anyform.errors import BadInput


def _prepare() -> ModuleType:
    from anyform.cli import prepare

    return prepare


def _views() -> ModuleType:
    from anyform.cli import views

    return views


def _train_wala() -> ModuleType:
    import anyform.systems.wala.train as task

    return task


def _train_tunemv3d() -> ModuleType:
    import anyform.systems.tunemv3d.train as task

    return task


def _evaluate_tunemv3d() -> ModuleType:
    import anyform.systems.tunemv3d.evaluate as task

    return task


def _evaluate_wala() -> ModuleType:
    import anyform.systems.wala.evaluate as task

    return task


def _evaluate_xbind() -> ModuleType:
    import anyform.systems.xbind.evaluate as task

    return task


DATA = {"prepare": _prepare, "views": _views}
TRAIN = {"wala": _train_wala, "tunemv3d": _train_tunemv3d}
EVALUATE = {"wala": _evaluate_wala, "tunemv3d": _evaluate_tunemv3d, "xbind": _evaluate_xbind}


def data(arguments: argparse.Namespace) -> int:
    """`anyform data TASK …`."""
    return _run("data", DATA, arguments)


def train(arguments: argparse.Namespace) -> int:
    """`anyform train SYSTEM …`."""
    return _run("train", TRAIN, arguments)


def evaluate(arguments: argparse.Namespace) -> int:
    """`anyform evaluate SYSTEM …`."""
    return _run("evaluate", EVALUATE, arguments)


def _run(verb: str, tasks: dict[str, Callable[[], ModuleType]], arguments: argparse.Namespace) -> int:
    """Find the task, parse its own options (`--json` and `--debug` may stand among them), do it, print its record."""
    from anyform.cli.parser import Parser

    if arguments.task not in tasks:
        raise BadInput(f"there is nothing to {verb} called {clean(arguments.task, 40)!r}; there is {', '.join(tasks)}")
    module = tasks[arguments.task]()
    parser = Parser(prog=f"anyform {verb} {arguments.task}", description=module.__doc__)
    parser.add_argument("--json", action="store_true", default=arguments.json, help="one record on stdout")
    parser.add_argument("--debug", action="store_true", default=arguments.debug, help="show the traceback of an error")
    module.add_arguments(parser)
    parsed = parser.parse_args(arguments.rest)
    with Reporter() as report:
        record: dict[str, Any] = module.run(parsed, report)
    if parsed.json:
        print(json.dumps({"ok": True, **record}), flush=True)
        return 0
    for key, value in record.items():
        print_out(clean(f"{key}: {value}"))
    return 0
