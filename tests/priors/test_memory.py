"""Memory plans: what fits is chosen, slices and offloading change nothing but the place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anyform.errors import BadSetting, OutOfMemory
from anyform.nn.unet2d import Attention, UNet2D, UNet2DConfig
from anyform.priors import memory


def unet() -> UNet2D:
    torch.manual_seed(0)
    sizes = {"widths": (8, 16), "attends": (False, True), "heads": (1, 2)}
    return UNet2D(UNet2DConfig(layers=1, groups=4, token_width=6, **sizes))  # type: ignore[arg-type]


@pytest.mark.parametrize("text, number", [("6GB", 6 * 10**9), (" 800 mb", 8 * 10**8), ("0.5 TB", 5 * 10**11)])
def test_amounts(text: str, number: int) -> None:
    assert memory.parse_memory(text) == number


@pytest.mark.parametrize("text", ["6", "GB", "-1GB", "0GB", "6 GiB", "1e3GB"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(BadSetting, match="no amount of memory"):
        memory.parse_memory(text)


def test_the_fastest_plan_that_fits() -> None:
    networks = [nn.Linear(1000, 250, bias=False), nn.Linear(1000, 750, bias=False)]  # 1 MB and 3 MB
    plans = [memory.plan(networks, limit) for limit in (6_000_000, 5_000_000, 4_000_000)]
    assert [(one.slice_attention, one.offload) for one in plans] == [(False, False), (True, False), (True, True)]
    assert [one.needed for one in plans] == [5_800_000, 4_750_000, 3_750_000]
    with pytest.raises(OutOfMemory, match=r"needs 0\.00 GB at the least"):
        memory.plan(networks, 1_000)


def test_sliced_and_offloaded_is_exact_and_ends_on_the_cpu() -> None:
    x, t, tokens = torch.randn(2, 4, 16, 16), torch.tensor([3, 900]), torch.randn(2, 3, 6)
    network = unet()
    expected = network(x, t, tokens)
    memory.apply([network], memory.MemoryPlan(slice_attention=True, offload=True, needed=0), "cpu")
    assert {one.slice for one in network.modules() if isinstance(one, Attention)} == {memory.SLICE}
    assert torch.equal(network(x, t, tokens), expected)
    embedding = network.embed(t)
    assert torch.equal(network.decode(network.encode(x, embedding, tokens), embedding, tokens), expected)


def test_every_part_arrives_on_the_device_and_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network, moves = unet(), []
    real = nn.Module.to
    memory.offload(network, "cpu:0")

    def to(self: nn.Module, place: object) -> nn.Module:
        moves.append((id(self), str(place)))
        return real(self, "cpu")

    monkeypatch.setattr(nn.Module, "to", to)
    network(torch.randn(1, 4, 8, 8), torch.tensor([3]), torch.randn(1, 3, 6))
    arrived = [part for part, place in moves if place == "cpu:0"]
    assert len(arrived) == len(moves) / 2 and [place for _, place in moves[1::2]] == ["cpu"] * len(arrived)
    held = {id(one) for part in network.modules() if id(part) in set(arrived) for one in part.parameters()}
    assert held == {id(one) for one in network.parameters()}
