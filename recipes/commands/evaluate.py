"""Evaluate at the paper's protocols: ``python -m recipes evaluate --checkpoint FILE [FILE ...] --data DIR``.

The single centre crop by default; --size 320 or 299, --ten-crop. Several checkpoints are also evaluated as an ensemble,
as in the paper's challenge entry.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tabulate import tabulate
from torch import nn

from ..data.datasets import Augmented, Data
from ..data.transforms import Preprocess
from ..errors import SettingsError
from ..files import check_writable, replacing
from ..networks.any_model import Model, check_input
from ..training.accelerator import make_accelerator
from ..training.metrics import mean_probability, predict, score
from ..training.settings import at_least
from ..weights.described import check_origin, describe, load_model
from ..weights.load import load_weights, read_weights
from .flags import add_data_flags, data_from_flags


def _open(path: Path, name: str | None, data: Data) -> tuple[nn.Module, Model, Preprocess]:
    description = describe(path)
    if description is None and name is not None:
        model = Model(name, "standard", len(data.classes))
        network = model.build().eval()
        load_weights(network, read_weights(path), str(path))
        return network, model, model.preprocess(data.size)
    network, description = load_model(path, name)
    check_origin(path, description, name or description.model.name, data.classes)
    return network, description.model, description.preprocess


def _protocol(preprocess: Preprocess, flags: argparse.Namespace, data: Data) -> Preprocess:
    if flags.size:
        preprocess = preprocess.at(flags.size, data.size is not None)
    if flags.resize:
        preprocess = replace(preprocess, resize=flags.resize)
    if preprocess.resize < preprocess.size:
        raise SettingsError(f"--resize {preprocess.resize} is smaller than the crop of {preprocess.size} pixels")
    if flags.ten_crop and data.size and preprocess.resize == preprocess.size:
        raise SettingsError(f"ten crops of {preprocess.size} pixels need a larger --resize; these images are square")
    return preprocess


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run the command with these arguments, or the program's; returns the JSON report's rows.

    Raises the errors of ``recipes.errors``.
    """
    parser = argparse.ArgumentParser("python -m recipes evaluate", description=__doc__)
    parser.add_argument("--checkpoint", nargs="+", type=Path, required=True, help="model.safetensors of runs")
    parser.add_argument("--network", help="network of the files, if they do not say, as timm's published ones")
    parser.add_argument("--resize", type=at_least(1), help="shorter edge before the crop (default: the paper's)")
    parser.add_argument("--ten-crop", action="store_true", help="corners and centre, mirrored and not")
    parser.add_argument("--out", type=Path, default=Path("evaluation.json"), help="JSON report (default: %(default)s)")
    add_data_flags(parser)
    flags = parser.parse_args(arguments)

    accelerator = make_accelerator()
    check_writable(flags.out)
    data = data_from_flags(flags, accelerator, train=False)
    members = [_open(path, flags.network, data) for path in flags.checkpoint]
    if len({model.num_classes for _, model, _ in members}) > 1:
        raise SettingsError("the checkpoints have different numbers of outputs, so they cannot form an ensemble")
    protocols = [_protocol(preprocess, flags, data) for *_, preprocess in members]
    for (network, model, _), protocol in zip(members, protocols, strict=True):
        check_input(network, model, protocol.size)
    rows: list[dict[str, Any]] = []
    predictions = []
    for path, (network, model, _), protocol in zip(flags.checkpoint, members, protocols, strict=True):
        inputs = Augmented(data.val, protocol.evaluation(flags.ten_crop))
        log_probability, labels = predict(network.to(accelerator.device), inputs, accelerator, workers=flags.workers)
        predictions.append(log_probability)
        rows.append({"checkpoint": str(path), "network": model.name, "gates": model.gates})
        rows[-1] |= {"size": protocol.size, "resize": protocol.resize, "crops": 10 if flags.ten_crop else 1}
        rows[-1] |= score(log_probability, labels)
    if len(rows) > 1:
        rows.append({"checkpoint": f"ensemble of {len(rows)}"} | score(mean_probability(predictions), labels))
    if accelerator.is_main_process:
        with replacing(flags.out) as temporary:
            temporary.write_text(json.dumps({"images": len(data.val.labels), "results": rows}, indent=1))
        print(_table(rows))
    return rows


def _table(rows: list[dict[str, Any]]) -> Any:
    headers = {"top1": "top-1 error %", "top5": "top-5 error %"} | {name: name for name in rows[0] if "top" not in name}
    return tabulate([{headers[k]: v for k, v in row.items()} for row in rows], "keys", floatfmt=".2f")
