"""The libraries' own SE networks: our gates on the plain network, with the twin's weights, must give its outputs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

import se_inject

from ..support.promises import assert_same
from .libraries import build, names

# Their gates are in the branch, before its last convolution, and so no twins of the paper's.
_GATED_INSIDE = {"seresnet33ts", "seresnext26ts"}


@dataclass(frozen=True)
class Twins:
    """A network with gates, and the same library's plain one; where it has none, that is the twin without its gates."""

    library: str
    gated: str
    plain: str | None


def twins() -> Iterator[Twins]:
    """All SE networks of timm and pytorchcv whose gates are where the paper puts them."""
    for library in ("timm", "pytorchcv"):
        known = set(names(library))
        for gated in sorted(known - _GATED_INSIDE):
            if gated.startswith(("seresne", "sepreresnet", "senet", "legacy_se")):
                plain = gated.replace("sepreresnet", "preresnet", 1).replace("seresne", "resne", 1)
                yield Twins(library, gated, plain if plain in known - {gated} and not _other_stem(gated) else None)


def _other_stem(gated: str) -> bool:
    """pytorchcv's pre-activation networks for small images: the plain ones begin and end in another way."""
    return gated.startswith("sepreresnet") and gated.endswith(("_cifar10", "_cifar100", "_svhn"))


def _gate(pair: Twins) -> Callable[[int], nn.Module] | str:
    """Ours, or the library's where ours has other keys or widths."""
    if pair.library == "pytorchcv":
        from pytorchcv.models.common.att import SEBlock

        return SEBlock
    from timm.models.senet import SEModule

    return (lambda channels: SEModule(channels, 16)) if pair.gated.startswith("legacy") else "se"


def _without_gates(model: nn.Module) -> dict[str, str]:
    """Replace the library's gates; returns where each was by the block that it was in."""
    found = {name: m for name, m in model.named_modules() if type(m).__name__ in ("SEModule", "SEBlock")}
    for name in found:
        model.set_submodule(name, nn.Identity())
    return {name.rpartition(".")[0]: name for name in found}


def compare(pair: Twins) -> int:
    """Raise unless the outputs are equal, with random weights and statistics; returns the number of gates."""
    torch.manual_seed(0)
    gated = build(pair.library, pair.gated).eval()
    plain = build(pair.library, pair.plain or pair.gated).eval()
    theirs = {} if pair.plain else _without_gates(plain)
    se_inject.apply(plain, gate=_gate(pair), init="standard")
    with torch.no_grad():
        for tensor in gated.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 0.3) if tensor.ndim < 2 else tensor.normal_(0, 0.02)
    state = gated.state_dict()
    for path, _ in se_inject.gates(plain):
        if was := theirs.get(path.rpartition(".")[0]):
            state = {key.replace(f"{was}.", f"{path}.", 1): value for key, value in state.items()}
    plain.load_state_dict(state)
    x = torch.randn(1, 3, *getattr(gated, "in_size", (64, 96)))
    with torch.no_grad():
        expected = gated(x)
        assert expected.isfinite().all() and expected.std() > 0
        assert_same(plain(x), expected)
    return len(list(se_inject.gates(plain)))
