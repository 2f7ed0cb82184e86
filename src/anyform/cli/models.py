"""`anyform models`: every set of weights, with its licence, data, size, and what was measured of it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from anyform.cli.terminal import clean, print_out


def run(arguments: argparse.Namespace) -> int:
    """The verb. Raises WeightsError where the installation is incomplete."""
    rows = embedded_rows() + released_rows()
    if arguments.json:
        print(json.dumps({"ok": True, "models": rows}), flush=True)
        return 0
    for row in rows:
        head = f"{row['id']}  {row['kind']}  commercial use: {row['commercial_use']}  {row['licence']}"
        print_out(clean(head))
        if row["kind"] == "embedded":
            print_out(f"    {row['bytes'] / 1e6:.1f} MB  {row['parameters'] / 1e6:.1f} M parameters")
            for name, value in row["measured"].items():
                print_out(clean(f"    {name}: {value}"))
            continue
        print_out(clean(f"    {row['system']} from {row['prompt']}; licence accepted: {row['accepted']}"))
        print_out(_memory_line(row))
    print_out("Released weights are fetched only where named: --weights ID --accept-licence ID (once).")
    return 0


def _memory_line(row: dict[str, Any]) -> str:
    """Size and peak memory of a released checkpoint, and whether this machine has that much free now."""
    if not row["parameters"]:
        return "    size: not counted"
    known = {True: "measured", False: "computed"}
    peaks = ", ".join(
        f"{precision} {size / 1e9:.1f} GB ({known[precision in row['peak_measured']]})"
        for precision, size in row["peak_bytes"].items()
    )
    fits = {True: "fits here", False: "does NOT fit here", None: "whether it fits here is unknown"}[row["fits"]]
    return f"    {row['parameters'] / 1e6:.0f} M parameters  peak memory: {peaks}; {fits}"


def embedded_rows() -> list[dict[str, Any]]:
    """What ships with the package, from the pinned index."""
    from anyform.weights import embedded_index

    return [
        {
            "id": name,
            "kind": "embedded",
            "licence": entry["licence"],
            "commercial_use": entry["commercial_use"],
            "data": entry["data"],
            "bytes": entry["bytes"],
            "parameters": entry["parameters"],
            "sha256": entry["sha256"],
            "measured": entry["measured"],
        }
        for name, entry in embedded_index().items()
    ]


def released_rows() -> list[dict[str, Any]]:
    """What others published and anyform can read; whether its licence was accepted, and whether it fits, here."""
    from anyform.weights import RELEASED, accepted_licences
    from anyform.weights.memory import available

    accepted, free = accepted_licences(), available("cpu")
    return [
        {
            "id": entry.id,
            "kind": "released",
            "system": entry.system,
            "prompt": entry.prompt,
            "licence": entry.licence,
            "licence_url": entry.licence_url,
            "commercial_use": entry.commercial_use,
            "accepted": accepted.get(entry.id) == entry.licence,
            "files": list(entry.files),
            "gated": entry.gated,
            "needs": list(entry.needs),
            "parameters": entry.parameters,
            "peak_bytes": {name: entry.peak_bytes(name) for name in ("bfloat16", "float32")},
            "peak_measured": sorted(entry.measured_peak),
            "fits": None if free < 0 or not entry.parameters else entry.peak_bytes("bfloat16") <= free,
        }
        for entry in RELEASED.values()
    ]
