"""The small networks behind grid encodings."""

from __future__ import annotations

from itertools import pairwise

from torch import nn


def perceptron(width_in: int, hidden: int, hidden_layers: int, width_out: int) -> nn.Sequential:
    """Linear layers without biases, ReLU between them; hidden_layers >= 1."""
    widths = [width_in, *[hidden] * hidden_layers]
    layers: list[nn.Module] = []
    for one, next_one in pairwise(widths):
        layers += [nn.Linear(one, next_one, bias=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, width_out, bias=False))
