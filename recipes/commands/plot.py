"""The paper's pictures: ``python -m recipes plot curves RUN ...``, ``python -m recipes plot gates --checkpoint FILE``.

``curves`` draws training and validation error by epoch of several runs, such as a plain network and its SE twin.
``gates`` draws the mean activation of each channel's gate, by class, in blocks from the first to the last.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from accelerate import Accelerator
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from torch import Tensor, nn

import se_inject

from ..data.datasets import Augmented
from ..errors import SettingsError
from ..files import check_writable, replacing
from ..networks.any_model import check_input
from ..training.accelerator import make_accelerator
from ..training.log import read_log
from ..training.metrics import predict
from ..weights.described import check_origin, load_model
from .flags import add_data_flags, data_from_flags


def curves(runs: Sequence[Path]) -> Figure:
    """Top-1 error in per cent by epoch: dashed on training images, as augmented, solid on validation images.

    Raises ``DataError`` for a folder without a log.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="top-1 error (%)")
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    for run, name in zip(runs, names, strict=True):
        rows = read_log(run)
        epochs = [row["epoch"] for row in rows]
        (line,) = axes.plot(epochs, [row["val_top1"] for row in rows], label=f"{name}, validation")
        axes.plot(epochs, [row["train_top1"] for row in rows], "--", color=line.get_color(), label=f"{name}, training")
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


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
        hook = lambda _, __, out: seen.setdefault(name, []).append(scale * out.float().sigmoid().flatten(1).cpu())  # noqa: E731
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


def gate_figure(by_gate: dict[str, Tensor], names: Sequence[str], picked: Sequence[int], panels: int = 6) -> Figure:
    """Up to ``panels`` blocks from the first to the last: activation by channel, a line a class and one of all classes.

    >>> gate_figure({"layer1.0.se": torch.rand(2, 8)}, ["cat", "dog"], [0, 1]).axes[0].get_title()
    'layer1.0'
    """
    gates = list(by_gate)
    count = min(panels, len(gates))
    shown = [gates[round(i * (len(gates) - 1) / max(count - 1, 1))] for i in range(count)]
    columns = min(3, count)
    figure = Figure(figsize=(4.5 * columns, 3.2 * -(-count // columns)), layout="constrained")
    for i, name in enumerate(shown, 1):
        axes = figure.add_subplot(-(-count // columns), columns, i, title=name.removesuffix(".se"))
        axes.set(xlabel="channel", ylabel="mean gate activation")
        for label in picked:
            axes.plot(by_gate[name][label], linewidth=1, label=names[label])
        axes.plot(by_gate[name].nanmean(0), "k--", linewidth=1, label="mean of all classes")
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(picked) + 1)
    return figure


def _gates(flags: argparse.Namespace) -> Figure:
    accelerator = make_accelerator()
    network, description = load_model(flags.checkpoint)
    preprocess, classes = description.preprocess, list(description.classes)
    data = data_from_flags(flags, accelerator, train=False)
    unknown = sorted(set(flags.classes or ()) - set(classes))
    if unknown:
        raise SettingsError(f"{flags.checkpoint}: has no class {', '.join(unknown)}")
    check_origin(flags.checkpoint, description, description.model.name, data.classes)
    if not list(se_inject.gates(network)):
        raise SettingsError(f"{flags.checkpoint}: the network has no gates; plot one that was trained with gates")
    if flags.size:
        preprocess = preprocess.at(flags.size, data.size is not None)
    check_input(network, description.model, preprocess.size)
    inputs = Augmented(data.val, preprocess.evaluation())
    by_gate = activations(network.to(accelerator.device), inputs, len(classes), accelerator, flags.workers)
    return gate_figure(by_gate, classes, [classes.index(name) for name in flags.classes or classes[:4]])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments, or the program's.

    Raises the errors of ``recipes.errors``.
    """
    parser = argparse.ArgumentParser("python -m recipes plot", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    by_epoch = kinds.add_parser("curves", help="error by epoch")
    by_epoch.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    by_epoch.add_argument("--out", type=Path, default=Path("curves.png"), help="picture (default: %(default)s)")
    by_class = kinds.add_parser("gates", help="gate activations by class and block")
    by_class.add_argument("--checkpoint", type=Path, required=True, help="model.safetensors of a run")
    by_class.add_argument("--classes", nargs="+", help="names of classes to draw (default: the first four)")
    by_class.add_argument("--out", type=Path, default=Path("gates.png"), help="picture (default: %(default)s)")
    add_data_flags(by_class)
    flags = parser.parse_args(arguments)
    formats = FigureCanvasBase.get_supported_filetypes()
    if flags.out.suffix.lstrip(".") not in formats:
        raise SettingsError(f"{flags.out}: a picture's name ends in one of {', '.join(sorted(formats))}")
    check_writable(flags.out)
    figure = curves(flags.runs) if flags.kind == "curves" else _gates(flags)
    with replacing(flags.out) as temporary:
        figure.savefig(temporary, dpi=110)
    print(f"wrote {flags.out}")
