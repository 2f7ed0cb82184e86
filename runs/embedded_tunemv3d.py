"""The recipe of the embedded TuneMV3D branch, top to bottom. It needs the foundation of runs/embedded_foundation.py.

    python runs/embedded_tunemv3d.py CORPUS OUT [--foundation FILE] [--device cuda] [--set joint.steps=6000]

1. Views of the whole corpus (8 preset and 8 free ones, 64 pixels): half an hour on two cores, 720 MB in OUT/views.
2. The field alone, then everything on the frozen foundation; objects of a tenth of the nouns are held out.
3. The branch as int8 with its licence, for src/anyform/embedded/tunemv3d.safetensors; then `runs/index_weights.py`.
4. `anyform evaluate tunemv3d --data OUT/views --weights OUT/run`, whose figures go to docs/results.md.

Every part goes on where it was stopped: run the same command again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from anyform.cli.terminal import Reporter
from anyform.data.corpus import open_collection
from anyform.data.multiview import MultiviewPlan, write_views
from anyform.systems.tunemv3d import train
from anyform.systems.tunemv3d.branch_file import read_branch, write_branch
from anyform.systems.tunemv3d.foundations import load_foundation

NAME = "tunemv3d.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--foundation", default="embedded", metavar="FILE")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    options = parser.parse_args()
    views, run = options.out / "views", options.out / "run"
    with Reporter() as report:
        print(json.dumps(write_views(open_collection(options.corpus), views, MultiviewPlan(), report)))
        plan = argparse.ArgumentParser()
        train.add_arguments(plan)
        command = [str(views), "--out", str(run), "--foundation", options.foundation, "--device", options.device]
        for assignment in options.set:
            command += ["--set", assignment]
        record = train.run(plan.parse_args([*command, *(["--resume"] if (run / "run.json").is_file() else [])]), report)
    print(json.dumps(record))
    foundation = load_foundation(options.foundation)
    metadata = {
        "licence": "Apache-2.0",
        "commercial_use": "yes",
        "data": "anyform corpus, train split without held-out nouns; licences in ATTRIBUTION.md",
        "recipe": "runs/embedded_tunemv3d.py, seed 0",
        "held_out": "0.1",
        "steps": f"{record['field']['step']} field, {record['joint']['step']} joint",
    }
    scores = {key: str(value) for key, value in record["joint"].items() if key != "step"}
    write_branch(
        options.out / NAME, read_branch(run / train.BRANCH, foundation), foundation, metadata | scores, small=True
    )
    print(options.out / NAME)


if __name__ == "__main__":
    main()
