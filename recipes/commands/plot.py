"""The paper's pictures: ``python -m recipes plot curves RUN ...``, ``python -m recipes plot gates --checkpoint FILE``.

``curves`` draws training and validation error by epoch of several runs, such as a plain network and its SE twin; with
``--pairs``, each such pair in a panel. ``gates`` draws the mean activation of each channel's gate, by class, in blocks
from the first to the last.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

import se_inject

from ..data.datasets import Augmented
from ..errors import SettingsError
from ..figures.curves import curves
from ..figures.gates import activations, gate_figure
from ..files import check_writable, replacing
from ..networks.any_model import check_input
from ..training.accelerator import make_accelerator
from ..weights.described import check_origin, load_model
from .flags import add_data_flags, data_from_flags, make_parser

FORMATS = (".jpg", ".pdf", ".png", ".svg", ".webp")


def _gates(flags: argparse.Namespace) -> Figure:
    accelerator = make_accelerator()
    network, description = load_model(flags.checkpoint, flags.network)
    preprocess, classes = description.preprocess, list(description.classes)
    data = data_from_flags(flags, accelerator, train=False)
    picked = list(dict.fromkeys(flags.classes or classes[:4]))
    unknown = sorted(set(picked) - set(classes))
    if unknown:
        raise SettingsError(f"{flags.checkpoint}: has no class {', '.join(unknown)}")
    check_origin(flags.checkpoint, description, description.model.name, data.classes)
    if not any(isinstance(gate, se_inject.SqueezeExcitation) for _, gate in se_inject.gates(network)):
        raise SettingsError(f"{flags.checkpoint}: the network has no Squeeze-and-Excitation gates; plot one that has")
    if flags.size:
        preprocess = preprocess.at(flags.size, data.size is not None)
    check_input(network, description.model, preprocess.size)
    inputs = Augmented(data.val, preprocess.evaluation())
    by_gate = activations(network.to(accelerator.device), inputs, len(classes), accelerator, flags.workers)
    return gate_figure(by_gate, classes, [classes.index(name) for name in picked])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments, or the program's.

    Raises the errors of ``recipes.errors``.
    """
    parser = make_parser("plot", __doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    by_epoch = kinds.add_parser("curves", help="error by epoch")
    by_epoch.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    by_epoch.add_argument(
        "--pairs", action="store_true", help="a panel for every two runs: a plain network's, and its twin's with gates"
    )
    by_epoch.add_argument("--out", type=Path, default=Path("curves.png"), help="picture (default: %(default)s)")
    by_class = kinds.add_parser("gates", help="gate activations by class and block")
    by_class.add_argument("--checkpoint", type=Path, required=True, help="model.safetensors of a run")
    by_class.add_argument("--network", help="package.module:function of yours that makes the network, if one does")
    by_class.add_argument("--classes", nargs="+", help="names of classes to draw (default: the first four)")
    by_class.add_argument("--out", type=Path, default=Path("gates.png"), help="picture (default: %(default)s)")
    add_data_flags(by_class)
    flags = parser.parse_args(arguments)
    if flags.out.suffix not in FORMATS:
        raise SettingsError(f"{flags.out}: a picture's name ends in one of {', '.join(FORMATS)}")
    check_writable(flags.out)
    figure = curves(flags.runs, flags.pairs) if flags.kind == "curves" else _gates(flags)
    with replacing(flags.out) as temporary:
        figure.savefig(temporary, dpi=110)
    print(f"wrote {flags.out}")
