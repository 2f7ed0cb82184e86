"""Write src/anyform/embedded/index.json: what is pinned about every embedded safetensors file.

Run after any change of a file there: `python runs/index_weights.py`. What a file says about itself is its own metadata
(strings): `licence`, `commercial_use` (yes, no or unknown; derived from the licence where absent), `data`; everything
else except `config` is shown by `anyform models` as measured.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from anyform.licensing import allows_sale
from anyform.weights import EMBEDDED, read_header, sha256

FOLDER = Path(__file__).resolve().parent.parent / "src" / "anyform" / "embedded"


def entry(path: Path) -> dict[str, Any]:
    """The index row of one file. Raises SystemExit where its metadata does not name a licence."""
    tensors, metadata = read_header(path)
    if "licence" not in metadata:
        raise SystemExit(f"{path.name} names no licence in its metadata")
    known = {"licence", "commercial_use", "data", "config", "credits"}
    return {
        "file": path.name,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "parameters": sum(math.prod(tensor["shape"]) for tensor in tensors.values()),
        "licence": metadata["licence"],
        "commercial_use": metadata.get("commercial_use", allows_sale(metadata["licence"])),
        "data": metadata.get("data", ""),
        "measured": {key: metadata[key] for key in sorted(metadata.keys() - known)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the index is up to date")
    arguments = parser.parse_args()
    unknown = {path.name for path in FOLDER.glob("*.safetensors")} - set(EMBEDDED.values())
    if unknown:
        raise SystemExit(f"not in anyform.weights.EMBEDDED: {', '.join(sorted(unknown))}")
    index = {name: entry(FOLDER / file) for name, file in EMBEDDED.items() if (FOLDER / file).is_file()}
    text = json.dumps(index, indent=1, ensure_ascii=False) + "\n"
    target = FOLDER / "index.json"
    if arguments.check:
        raise SystemExit(0 if target.is_file() and target.read_text(encoding="utf-8") == text else "run this again")
    target.write_text(text, encoding="utf-8")
    print(f"{target.name}: {', '.join(index)}")


if __name__ == "__main__":
    main()
