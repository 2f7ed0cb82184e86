"""Names of the tensors in released WaLa checkpoints, and ours (specs/wala.md §3.6, §4.5, §9).

A table holds (our pattern, their replacement), both up to the trailing `.weight` or `.bias`. The names a checkpoint
must have follow from the modules that its own shapes ask for, so that missing and unexpected ones are found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

WHAT = "this WaLa model"
KeyTable = tuple[tuple[str, str], ...]

# Wavelet filters that the public modules store; ours are constants of `wavelet_tree.py`. DINOv2's mask token is a
# leftover of its training.
IGNORED = re.compile(
    r"(autoencoder\.|network\.)?(dwt_sparse_composer|dwt_inverse_3d)\.(.*\.)?[hg][01]_(dep|col|row)"
    r"|clip_model\.dinov2\.mask_token"
)


def _vq_side(side: str, stages: Mapping[str, str]) -> list[tuple[str, str]]:
    rows = [(rf"{side}\.stem", f"{side}.in_conv")]
    for ours, theirs in stages.items():
        path = rf"{side}\.{ours}\."
        rows += [
            (path + "norm1", f"{side}.{theirs}.in_norm"),
            (path + "conv1", f"{side}.{theirs}.in_conv"),
            (path + "norm2", f"{side}.{theirs}.out_layers.0"),
            (path + "conv2", f"{side}.{theirs}.out_layers.3"),
            (path + "skip", f"{side}.{theirs}.skip_connection"),
        ]
    block = rf"{side}\.tblocks\.blocks\.(\d+)\."
    names = {
        "mlp_norm": "mlp.norm", "mlp_in": "mlp.dense1", "mlp_out": "mlp.out",
        "q_norm": "att.norm_q", "k_norm": "att.norm_k",
        "q": "att.to_q.1", "k": "att.to_k.1", "v": "att.to_v.1", "o": "att.to_out.1",
    }  # fmt: skip
    rows += [(block + ours, rf"{side}.t_blocks.\1.{theirs}") for ours, theirs in names.items()]
    rows += [(rf"{side}\.tblocks\.pos", f"{side}.pos_emb")]
    rows += [(rf"{side}\.head_norm", f"{side}.out_conv.0"), (rf"{side}\.head", f"{side}.out_conv.2")]
    return rows


_STAGES = {rf"stages\.{stage}\.{block}": f"res_{stage + 1}{'_1' * block}" for stage in range(3) for block in range(2)}

VQVAE_KEYS: KeyTable = (
    *_vq_side("encoder", {**_STAGES, "last": "res_out"}),
    *_vq_side("decoder", {**_STAGES, "first": "res_in"}),
    (r"codebook\.embedding", "quantize.embedding.weight"),
)

UVIT_KEYS: KeyTable = (
    (r"time\.first", "unet.t_embedder.mlp.0"),
    (r"time\.second", "unet.t_embedder.mlp.2"),
    (r"context\.first", "unet.context_mlp.0"),
    (r"context\.second", "unet.context_mlp.2"),
    *(
        row
        for ours, theirs in (("pool_residual", "unet.res_cond_proj_layer"), ("pool_block", "unet.global_proj"))
        for row in (
            (rf"{ours}\.linear1", f"{theirs}.proj_layer.0"),
            (rf"{ours}\.norm1", f"{theirs}.proj_layer.1"),
            (rf"{ours}\.linear2", f"{theirs}.proj_layer.3"),
            (rf"{ours}\.norm2", f"{theirs}.proj_layer.4"),
            (rf"{ours}\.out1", f"{theirs}.mlp.0"),
            (rf"{ours}\.out2", f"{theirs}.mlp.2"),
        )
    ),
    (r"stem", "unet.conv_in"),
    *(
        (rf"{ours}\.(\d+)\.{own_part}", rf"unet.{theirs}.\1.{their_part}")
        for ours, theirs in (("down", "input_blocks"), ("up", "output_blocks"))
        for own_part, their_part in (
            ("norm1", "in_norm"),
            ("conv1", "in_conv"),
            ("time", "emb_layers.1"),
            ("norm2", "out_layers.0"),
            ("conv2", "out_layers.3"),
            ("factor", "linear_res_emb"),
            ("skip_norm", "skip_norm"),
            (r"skip_weight\.first", "skip_learn_f.0"),
            (r"skip_weight\.second", "skip_learn_f.2"),
        )
    ),
    (r"patch_in\.norm", "unet.to_patch_att_embedding_input.1"),
    (r"patch_in\.linear", "unet.to_patch_att_embedding_input.2"),
    (r"positions", "unet.pos_emb"),
    (r"registers", "unet.register_emb"),
    *(
        (rf"blocks\.(\d+)\.{ours}", rf"unet.blocks.\1.{theirs}")
        for ours, theirs in (
            (r"modulation", "adaLN_modulation.1"),
            (r"self_attention\.qkv", "attn.qkv"),
            (r"self_attention\.q_norm\.norm", "attn.q_norm"),
            (r"self_attention\.k_norm\.norm", "attn.k_norm"),
            (r"self_attention\.out", "attn.proj"),
            (r"cross_attention\.q", "cross_attn.q"),
            (r"cross_attention\.kv", "cross_attn.kv"),
            (r"cross_attention\.q_norm\.norm", "cross_attn.q_norm"),
            (r"cross_attention\.k_norm\.norm", "cross_attn.k_norm"),
            (r"cross_attention\.out", "cross_attn.proj"),
            (r"mlp\.first", "mlp.fc1"),
            (r"mlp\.second", "mlp.fc2"),
        )
    ),
    (r"patch_out\.norm", "unet.to_patch_att_embedding_output.0"),
    (r"patch_out\.linear", "unet.to_patch_att_embedding_output.1"),
    (r"head_norm", "unet.out.0"),
    (r"head", "unet.out.2"),
)

_DINOV2 = (
    (r"class_token", "cls_token"),
    (r"registers", "register_tokens"),
    (r"positions", "pos_embed"),
    (r"patch", "patch_embed.proj"),
    (r"blocks\.(\d+)\.(norm[12])", r"blocks.\1.\2"),
    (r"blocks\.(\d+)\.scale([12])", r"blocks.\1.ls\2.gamma"),
    (r"blocks\.(\d+)\.attention\.qkv", r"blocks.\1.attn.qkv"),
    (r"blocks\.(\d+)\.attention\.out", r"blocks.\1.attn.proj"),
    (r"blocks\.(\d+)\.mlp\.first", r"blocks.\1.mlp.fc1"),
    (r"blocks\.(\d+)\.mlp\.second", r"blocks.\1.mlp.fc2"),
    (r"norm", "norm"),
)
_POINTNET = (
    *((rf"points\.linears\.{n}", f"linear{n + 1}") for n in range(4)),
    *((rf"points\.norms\.{n}", f"ln{n + 1}") for n in range(4)),
    (r"pooling\.queries", "pooling.I"),
    (r"pooling\.attention\.(q|kv)", r"pooling.mab0.\1"),
    (r"pooling\.attention\.([qk]_norm)\.norm", r"pooling.mab0.\1"),
    (r"pooling\.attention\.out", "pooling.mab0.proj"),
    (r"widen\.first", "pooling.mlp.fc1"),
    (r"widen\.second", "pooling.mlp.fc2"),
    (r"blocks\.(\d+)\.attention\.qkv", r"t_blocks.\1.attn.qkv"),
    (r"blocks\.(\d+)\.attention\.([qk]_norm)\.norm", r"t_blocks.\1.attn.\2"),
    (r"blocks\.(\d+)\.attention\.out", r"t_blocks.\1.attn.proj"),
    (r"blocks\.(\d+)\.mlp\.first", r"t_blocks.\1.mlp.fc1"),
    (r"blocks\.(\d+)\.mlp\.second", r"t_blocks.\1.mlp.fc2"),
    (r"linear([123])", r"linear_f\1"),
    (r"norm([12])", r"ln_f\1"),
)
_VOXELS = (
    (r"stem", "in_conv"),
    *(
        (rf"{ours}\.{n}\.{own_part}", f"res_{start + n}.{their_part}")
        for ours, start in (("fine", 1), ("coarse", 4))
        for n in range(3)
        for own_part, their_part in (
            ("norm1", "in_norm"),
            ("conv1", "in_conv"),
            ("norm2", "out_layers.0"),
            ("conv2", "out_layers.3"),
            ("skip", "skip_connection"),
        )
    ),
    (r"head_norm", "out_conv.0"),
    (r"head", "out_conv.2"),
)
CONDITION_KEYS: dict[str, KeyTable] = {
    kind: (
        *((rf"encoder\.{ours}", prefix + theirs) for ours, theirs in table),
        (r"positions", "network.cond_pos_emb"),
        (r"cameras", "network.camera_emb.weight"),
        (r"mapping\.(\d+)", r"network.cond_mapping_network.\1.0"),
    )
    for kind, prefix, table in (
        ("image", "clip_model.dinov2.", _DINOV2),
        ("points", "encoder.", _POINTNET),
        ("voxels", "encoder.", _VOXELS),
    )
}


def released_names(module: nn.Module, table: KeyTable, prefix: str) -> dict[str, str]:
    """Our name -> the released one, for every tensor of the module."""
    patterns = [(re.compile(ours + r"(\.weight|\.bias)?"), theirs) for ours, theirs in table]
    names = {}
    for name in module.state_dict():
        for pattern, theirs in patterns:
            match = pattern.fullmatch(name)
            if match is not None:
                names[name] = prefix + match.expand(theirs) + (match.group(match.re.groups) or "")
                break
        else:
            raise KeyError(f"no released name is known for {name}")
    return names
