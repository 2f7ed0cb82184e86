"""Weights: a hub id, folder, file or embedded name -> tensors, verified before anything is loaded.

safetensors first, with the header checked against the bytes present; SHA-256 compared with what is pinned; pickles only
converted, with `weights_only=True`, in a child process; the hub touched only where released weights are named.
"""

from __future__ import annotations

from anyform.weights.digest import sha256
from anyform.weights.embedded import EMBEDDED, embedded_file, embedded_index
from anyform.weights.hub import RELEASED, Released, accept_licence, accepted_licences
from anyform.weights.pickles import convert_pickle
from anyform.weights.resolve import resolve
from anyform.weights.tensors import read_header, read_safetensors

__all__ = [
    "EMBEDDED",
    "RELEASED",
    "Released",
    "accept_licence",
    "accepted_licences",
    "convert_pickle",
    "embedded_file",
    "embedded_index",
    "read_header",
    "read_safetensors",
    "resolve",
    "sha256",
]
