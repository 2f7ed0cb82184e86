"""Meshes to training shards: distance grids, views, points. Run it again to go on after an interruption."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anyform.types.progress import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `anyform data prepare`."""
    parser.add_argument("folder", help="the corpus, or any folder of meshes")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="where the shards go")
    parser.add_argument("--size", type=int, default=64, metavar="N", help="samples a side of the distance grid")
    parser.add_argument("--shard-size", type=int, default=64, metavar="N", help="objects a shard")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes; 0 = this one")


def run(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Do it; the record counts what was written and what was rejected."""
    from anyform.data.prepare import prepare

    done = prepare(
        Path(arguments.folder),
        Path(arguments.output),
        size=arguments.size,
        shard_size=arguments.shard_size,
        workers=arguments.workers,
        report=report,
    )
    return asdict(done)
