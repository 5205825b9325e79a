"""The libraries' own SE networks: our gates on the plain network, with the twin's weights, must give its outputs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

import se_inject

from ..promises import assert_same
from .libraries import build, names


@dataclass(frozen=True)
class Twins:
    """A plain network, the same library's SE version of it, and what its gates are if they are not the paper's."""

    library: str
    plain: str
    gated: str
    gate: Callable[[int], nn.Module] | str = "se"


def twins() -> Iterator[Twins]:
    """All pairs of timm and pytorchcv that differ by their gates alone."""
    known = set(names("timm"))
    for plain in sorted(known):
        gated = plain.replace("resne", "seresne", 1)
        if plain.startswith(("resnet", "resnext")) and gated in known:
            yield Twins("timm", plain, gated)
    known = set(names("pytorchcv"))
    for gated in sorted(known):
        plain = gated.replace("sepreresnet", "preresnet", 1).replace("seresne", "resne", 1)
        if gated.startswith(("seresne", "sepreresnet")) and plain in known:
            yield Twins("pytorchcv", plain, gated, _pytorchcv_gate)


def _pytorchcv_gate(channels: int) -> nn.Module:
    from pytorchcv.models.common.att import SEBlock

    return SEBlock(channels)


def compare(pair: Twins) -> int:
    """Raise unless the outputs are equal, with random weights and statistics; returns the number of gates."""
    torch.manual_seed(0)
    plain, gated = build(pair.library, pair.plain).eval(), build(pair.library, pair.gated).eval()
    se_inject.apply(plain, gate=pair.gate, init="standard")
    with torch.no_grad():
        for tensor in gated.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 0.3) if tensor.ndim < 2 else tensor.normal_(0, 0.02)
    plain.load_state_dict(gated.state_dict())
    x = torch.randn(1, 3, *getattr(gated, "in_size", (64, 96)))
    with torch.no_grad():
        expected = gated(x)
        assert expected.isfinite().all() and expected.std() > 0
        assert_same(plain(x), expected)
    return len(list(se_inject.gates(plain)))
