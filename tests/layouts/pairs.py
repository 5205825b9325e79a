"""Every pair of a plain network and its SE twin of timm, pytorchcv and torchvision, and how close outputs are."""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import se_inject
from se_inject.errors import LayoutError, NoSiteError

from ..zoo.libraries import build, names
from ..zoo.twins import twins


@dataclass(frozen=True)
class Pair:
    """An SE network and the same library's plain one; without one, it is the SE network without its gates."""

    library: str
    gated: str
    plain: str | None
    plain_library: str = ""  # where it is another one

    def __str__(self) -> str:
        plain = f"{self.plain_library or self.library}/{self.plain}" if self.plain else "the same without its gates"
        return f"{self.library}/{self.gated} on {plain}"


_ACROSS = [
    *(Pair("timm", f"seresnet{depth}", f"resnet{depth}", "torchvision") for depth in (18, 34, 50, 101, 152)),
    *(Pair("timm", f"seresnext{name}", f"resnext{name}", "torchvision") for name in ("50_32x4d", "101_64x4d")),
    *(Pair("pytorchcv", f"seresnet{name}", f"resnet{name}", "torchvision") for name in ("18", "34")),
    *(Pair("pytorchcv", f"seresnet{depth}b", f"resnet{depth}", "torchvision") for depth in (50, 101, 152)),
    *(Pair("pytorchcv", f"seresnext{name}", f"resnext{name}", "timm") for name in ("50_32x4d", "101_64x4d")),
    Pair("timm", "seresnet50", "resnet50b", "pytorchcv"),
]


def pairs() -> Iterator[Pair]:
    """By name: without its ``se``, or with the ``x`` of RegNetX for the ``y``, it is another network's."""
    yield from _ACROSS
    without = {(twin.library, twin.gated) for twin in twins() if twin.plain is None}
    for library in ("timm", "pytorchcv", "torchvision"):
        known = names(library)
        for gated in known:
            plain = next((name for name in _plain_names(gated) if name in known), None)
            if plain or (library, gated) in without:
                yield Pair(library, gated, plain)


def _plain_names(gated: str) -> Iterator[str]:
    for found in re.finditer("se", gated):
        yield gated[: found.start()] + gated[found.end() :]
    if "regnety" in gated or "regnet_y" in gated:
        yield gated.replace("regnety", "regnetx").replace("regnet_y", "regnet_x")


def randomize(network: nn.Module, x: Tensor) -> nn.Module:
    """Affine parts that are not those of a new network, and statistics of ``x``, so that every tensor counts."""
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.numel() in (1, len(tensor) if tensor.ndim else 1):
            low, high = (-0.2, 0.2) if key.endswith("bias") else (0.7, 1.3)
            tensor.uniform_(low, high)
    momenta = {module: module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    for module in momenta:
        module.momentum = 1.0  # statistics of this batch: without them, a deep network overflows
    with torch.no_grad():
        network.train()(x)
    for module, momentum in momenta.items():
        module.momentum = momentum
    return network.eval()


def gated_base(plain: nn.Module, state: Mapping[str, Tensor]) -> tuple[nn.Module, str]:
    """The plain network with the twin's weights, and what was asked of ``apply`` besides ``init="standard"``."""
    model = se_inject.apply(plain, init="standard")
    try:
        return se_inject.load_se_weights(model, state), "reduction=16"
    except LayoutError as error:
        advice = re.search(r"reduction=(\d+$|lambda.*)|gate=lambda.*channels // 16\)", str(error))
        if advice is None:
            raise
        options: dict[str, Any] = eval(f"dict({advice[0]})", {"torchvision": torchvision})
        model = se_inject.apply(se_inject.remove(model), init="standard", **options)
        return se_inject.load_se_weights(model, state), advice[0].removeprefix("gate=lambda channels: ")


def _plain(pair: Pair) -> nn.Module:
    plain = build(pair.plain_library or pair.library, pair.plain or pair.gated).eval()
    if pair.plain is None:
        for name, module in list(plain.named_modules()):
            if type(module).__name__ in ("SEModule", "SEBlock"):
                plain.set_submodule(name, nn.Sequential())  # nn.Identity is an author's place for a gate
    return plain


def compare(pair: Pair) -> dict[str, Any]:
    """A row of the table: the difference of outputs, as a share of the largest, or the reason for none."""
    torch.manual_seed(0)
    twin, plain = build(pair.library, pair.gated), _plain(pair)
    x = torch.randn(2, 3, *getattr(plain, "in_size", getattr(twin, "in_size", (64, 96))))
    randomize(twin, x)
    row: dict[str, Any] = {"pair": str(pair)}
    try:
        model, gates = gated_base(plain, shuffled(twin.state_dict()))
    except (LayoutError, NoSiteError) as error:
        return {**row, "refused": str(error)}
    state = se_inject.to_layout(model, twin.state_dict())
    assert state.keys() == twin.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in twin.state_dict().items())
    with torch.no_grad():
        expected = twin(x)
        wrong = difference(exchanged(twin)(x), expected)
        row |= {"gates": gates, "difference": difference(model(x), expected), "exchanged": wrong}
    if pair.plain and not pair.plain_library:
        row["named"] = se_inject.to_layout(model, pair.library).keys() == state.keys()
    return row


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest output."""
    assert expected.isfinite().all()
    return ((found - expected).abs().max() / expected.abs().max()).item()


def shuffled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    keys = list(state)
    return {keys[i]: state[keys[i]] for i in torch.randperm(len(keys)).tolist()}


def exchanged(network: nn.Module) -> nn.Module:
    """A copy in which two convolutions of equal shapes, if any, took each other's places, as in a wrong assignment."""
    network = copy.deepcopy(network)
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for value in network.state_dict().values():
        if value.ndim == 4 and value.numel() > len(value):
            by_shape.setdefault(value.shape, []).append(value)
    one, other = next((values[-2:] for values in reversed(by_shape.values()) if len(values) > 1), (None, None))
    if one is not None and other is not None:
        kept = one.clone()
        one.copy_(other)
        other.copy_(kept)
    return network
