"""Meshes to multi-view training pictures: eight preset and eight free views an object. Run it again to go on."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from anyform.errors import BadInput
from anyform.types.progress import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `anyform data views`."""
    parser.add_argument("folder", help="the corpus, or any folder of meshes")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="where the pictures go")
    parser.add_argument("--size", type=int, default=64, metavar="N", help="pixels a side (default 64)")
    parser.add_argument("--ring", type=int, default=8, metavar="N", help="preset views an object (default 8)")
    parser.add_argument("--free", type=int, default=8, metavar="N", help="free views an object (default 8)")


def run(arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Do it; the record counts the objects."""
    from anyform.data.corpus import open_collection
    from anyform.data.multiview import MultiviewPlan, write_views

    if not 8 <= arguments.size <= 1024:
        raise BadInput(f"--size is {arguments.size}: pictures have 8 to 1024 pixels a side")
    plan = replace(MultiviewPlan(), size=arguments.size, num_ring=arguments.ring, num_free=arguments.free)
    return {**write_views(open_collection(arguments.folder), Path(arguments.output), plan, report)}
