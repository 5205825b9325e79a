"""Evaluate any network, plain or with gates: ``python -m recipes evaluate --checkpoint FILE [FILE ...] --data DIR``.

The single centre crop by default; --size 320 or 299, --flip, --ten-crop. Several checkpoints and several sizes are also
fused into an ensemble, as in the paper's challenge entry. Files that do not say what they are need --network.
"""

import argparse
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tabulate import tabulate
from torch import Tensor, nn

from ..data.datasets import Augmented, Data
from ..data.transforms import Preprocess, check_memory
from ..errors import SettingsError
from ..files import check_writable, replacing
from ..networks.any_model import Model, check_input
from ..training.accelerator import make_accelerator
from ..training.metrics import mean_probability, predict, score
from ..training.settings import at_least
from ..weights.open import open_network
from .flags import add_data_flags, data_from_flags, make_parser


@dataclass(frozen=True)
class Evaluation:
    """One network at one size of its inputs."""

    path: Path
    network: nn.Module
    model: Model
    preprocess: Preprocess
    ten_crop: bool = False
    flip: bool = False

    def check(self) -> None:
        """Raise ``SettingsError`` unless the network takes such inputs."""
        check_memory(self.batch * self.crops, self.preprocess.size)
        check_input(self.network, self.model, self.preprocess.size, training=False)

    @property
    def crops(self) -> int:
        """How many of each image are averaged."""
        return 10 if self.ten_crop else 1 + self.flip

    @property
    def batch(self) -> int:
        """How many images are evaluated at once: 128 inputs."""
        return max(1, 128 // self.crops)

    def predict(self, data: Data, accelerator: Accelerator, workers: int) -> tuple[Tensor, Tensor]:
        """Log probabilities ``(N, classes)`` of the validation images, and their labels ``(N,)``."""
        inputs = Augmented(data.val, self.preprocess.evaluation(self.ten_crop, self.flip))
        network = self.network.to(accelerator.device)
        return predict(network, inputs, accelerator, self.batch, workers)


def papers_inputs(preprocess: Preprocess, native: bool) -> Preprocess:
    """The inputs that the paper makes for a network that has these: its shorter edge for the crop, bilinear.

    >>> papers_inputs(Preprocess(299, 341, "bicubic"), native=False)
    Preprocess(size=299, resize=352, interpolation='bilinear', ...
    """
    return replace(preprocess.at(preprocess.size, native), interpolation="bilinear")


def check_ensemble(evaluations: Collection[Evaluation]) -> None:
    """Raise ``SettingsError`` unless each can be evaluated, and all together.

    >>> check_ensemble([])
    """
    outputs = sorted({one.model.num_classes for one in evaluations})
    if len(outputs) > 1:
        raise SettingsError(
            f"the networks have different numbers of outputs ({', '.join(map(str, outputs))}), so they cannot form an "
            "ensemble; evaluate them by themselves"
        )
    for one in evaluations:
        one.check()


def _evaluations(path: Path, name: str | None, flags: argparse.Namespace, data: Data) -> list[Evaluation]:
    """The network of one file at each size that is asked for."""
    network, about = open_network(path, data, name, flags.plain)
    preprocess, native = about.preprocess, data.size is not None
    if flags.protocol == "paper":
        preprocess = papers_inputs(preprocess, native)
    sizes = [preprocess.at(size, native) for size in flags.size] if flags.size else [preprocess]
    if flags.resize:
        sizes = [replace(one, resize=flags.resize) for one in sizes]
    for one in sizes:
        if one.resize < one.size:
            raise SettingsError(f"--resize {one.resize} is smaller than the crop of {one.size} pixels")
        if flags.ten_crop and native and one.resize == one.size:
            raise SettingsError(f"ten crops of {one.size} pixels need a larger --resize; these images are square")
    return [Evaluation(path, network, about.model, one, flags.ten_crop, flags.flip) for one in sizes]


def _names(flags: argparse.Namespace) -> list[str | None]:
    names, files = flags.network or [None], flags.checkpoint
    if len(names) not in (1, len(files)):
        raise SettingsError(f"--network has {len(names)} names for {len(files)} files; give one, or one for each file")
    return list(names) if len(names) == len(files) else names * len(files)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run the command with these arguments, or the program's; returns the JSON report's rows.

    Raises the errors of ``recipes.errors``.
    """
    parser = make_parser("evaluate", __doc__)
    parser.add_argument("--checkpoint", nargs="+", type=Path, required=True, help="files of weights")
    parser.add_argument(
        "--network",
        nargs="+",
        help="networks of files that do not say: a name of recipes.list_networks(), timm/NAME, torchvision/NAME or "
        "pytorchcv/NAME; one for all files or one for each",
    )
    parser.add_argument("--plain", action="store_true", help="the files hold plain networks; refuse others")
    parser.add_argument(
        "--protocol",
        choices=["own", "paper"],
        default="own",
        help="shorter edge and interpolation of the weights' library, or the SE paper's (default: %(default)s)",
    )
    parser.add_argument("--resize", type=at_least(1), help="shorter edge before the crop")
    parser.add_argument("--flip", action="store_true", help="average with the mirror image")
    parser.add_argument("--ten-crop", action="store_true", help="corners and centre, mirrored and not")
    parser.add_argument("--out", type=Path, default=Path("evaluation.json"), help="JSON report (default: %(default)s)")
    add_data_flags(parser, several_sizes=True)
    flags = parser.parse_args(arguments)

    names = _names(flags)
    accelerator = make_accelerator()
    check_writable(flags.out)
    data = data_from_flags(flags, accelerator, train=False)
    evaluations = [
        one for path, name in zip(flags.checkpoint, names, strict=True) for one in _evaluations(path, name, flags, data)
    ]
    check_ensemble(evaluations)
    rows: list[dict[str, Any]] = []
    predictions = []
    for one in evaluations:
        log_probability, labels = one.predict(data, accelerator, flags.workers)
        predictions.append(log_probability)
        rows.append({"checkpoint": str(one.path), "network": one.model.name, "gates": one.model.gates})
        rows[-1] |= {"size": one.preprocess.size, "resize": one.preprocess.resize, "crops": one.crops}
        rows[-1] |= score(log_probability, labels)
    if len(rows) > 1:
        rows.append({"checkpoint": f"ensemble of {len(rows)}"} | score(mean_probability(predictions), labels))
    if accelerator.is_main_process:
        print(_table(rows))  # first, as the disk may be full
        with replacing(flags.out) as temporary:
            temporary.write_text(json.dumps({"images": len(data.val.labels), "results": rows}, indent=1))
    return rows


def _table(rows: list[dict[str, Any]]) -> Any:
    headers = {"top1": "top-1 error %", "top5": "top-5 error %"} | {name: name for name in rows[0] if "top" not in name}
    return tabulate([{headers[k]: v for k, v in row.items()} for row in rows], "keys", floatfmt=".2f")
