"""The mean activation of each channel's gate, by class, in blocks from the first to the last (figure 2)."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from matplotlib.figure import Figure
from torch import Tensor, nn

import se_inject

from ..training.metrics import predict
from .layout import legend, panels, write


def activations(
    network: nn.Module, inputs: Any, classes: int, accelerator: Accelerator, workers: int = 0
) -> dict[str, Tensor]:
    """The mean gate activations ``(classes, channels)`` of each gate, by its name.

    ``inputs`` are crops ``(crops, 3, H, W)`` with a label.

    >>> gate = se_inject.SqueezeExcitation(8)
    >>> data = [(torch.randn(1, 8, 4, 4), label) for label in (0, 1, 1)]
    >>> activations(nn.Sequential(gate, nn.Flatten()), data, 2, Accelerator())["0"].shape
    torch.Size([2, 8])
    """
    seen: dict[str, list[Tensor]] = {}

    def record(name: str, gate: se_inject.SqueezeExcitation) -> Any:
        scale = 2 if gate.init == "identity" else 1

        def hook(module: nn.Module, inputs: Any, out: Tensor) -> None:
            activation = accelerator.gather_for_metrics(scale * out.float().sigmoid().flatten(1))
            seen.setdefault(name, []).append(activation.cpu())

        return gate.fc2.register_forward_hook(hook)

    gates = [(name, gate) for name, gate in se_inject.gates(network) if isinstance(gate, se_inject.SqueezeExcitation)]
    handles = [record(name, gate) for name, gate in gates]
    try:
        _, labels = predict(network, inputs, accelerator, workers=workers)
    finally:
        for handle in handles:
            handle.remove()
    one_hot = nn.functional.one_hot(labels.cpu(), classes).float()
    weights = one_hot / one_hot.sum(0)  # NaN, which is not drawn, for a class without images
    return {name: weights.T @ torch.cat(parts) for name, parts in seen.items()}


def gate_figure(by_gate: dict[str, Tensor], names: Sequence[str], picked: Sequence[int], most: int = 6) -> Figure:
    """Up to ``most`` blocks from the first to the last: activation by channel, a line a class and one of all classes.

    >>> gate_figure({"layer1.0.se": torch.rand(2, 8)}, ["cat", "dog"], [0, 1]).axes[0].get_title()
    'layer1.0'
    """
    gates = list(by_gate)
    count = min(most, len(gates))
    shown = [gates[round(i * (len(gates) - 1) / max(count - 1, 1))] for i in range(count)]
    figure, all_axes = panels(count, "channel", "mean gate activation", share=True)
    for name, axes in zip(shown, all_axes, strict=True):
        lines = [axes.plot(by_gate[name][label], linewidth=1)[0] for label in picked]
        lines += axes.plot(by_gate[name].nanmean(0), "k--", linewidth=1)
        write(axes.title, name.removesuffix(".se"), 45)
    empty = by_gate[gates[0]].isnan().all(1)
    titles = [names[label] + (" (no images)" if empty[label] else "") for label in picked]
    legend(figure, lines, [*titles, "mean of all classes"])
    return figure
