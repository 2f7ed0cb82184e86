"""`anyform weights convert FILE -o OUT`: a pickled checkpoint to safetensors, without running code of it."""

from __future__ import annotations

import argparse
import json

from anyform.cli.terminal import clean, print_out


def run(arguments: argparse.Namespace) -> int:
    """The verb. Raises WeightsError for a checkpoint that is refused; then no file appears."""
    from anyform.weights import convert_pickle, read_header, sha256

    out = convert_pickle(arguments.file, arguments.output, force=arguments.force)
    tensors, _ = read_header(out)
    record = {"ok": True, "file": str(arguments.output), "tensors": len(tensors), "sha256": sha256(out)}
    if arguments.json:
        print(json.dumps(record), flush=True)
    else:
        print_out(clean(f"{record['file']}: {record['tensors']} tensors, SHA-256 {record['sha256']}"))
    return 0
