"""Weights: a hub id, folder, file or embedded name -> tensors, verified before anything is loaded.

safetensors first, with the header checked against the bytes present; SHA-256 compared with what is pinned or was
recorded first; pickles read by a locked-down child process that only says where tensors lie; tensors streamed one at a
time to where they are needed; the hub touched only where released weights are named.
"""

from __future__ import annotations

from anyform.weights.digest import sha256
from anyform.weights.embedded import EMBEDDED, embedded_file, embedded_index, embedded_path
from anyform.weights.hub import accept_licence, accepted_licences, published_as
from anyform.weights.released import RELEASED, Released
from anyform.weights.resolve import resolve
from anyform.weights.stream import InMemory, TensorFile, Tensors, convert_pickle, open_tensors, write_safetensors
from anyform.weights.tensors import read_header, read_safetensors

__all__ = [
    "EMBEDDED",
    "RELEASED",
    "InMemory",
    "Released",
    "TensorFile",
    "Tensors",
    "accept_licence",
    "accepted_licences",
    "convert_pickle",
    "embedded_file",
    "embedded_index",
    "embedded_path",
    "open_tensors",
    "published_as",
    "read_header",
    "read_safetensors",
    "resolve",
    "sha256",
    "write_safetensors",
]
