"""Give a trained model gates: ``python -m recipes finetune --model timm/resnet50 --weights FILE --data DIR``.

Reports the plain model, the plain model trained as long, and the model with gates, side by side.
"""

import argparse
import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from tabulate import tabulate
from torch import nn

import se_inject

from ..data.datasets import Augmented
from ..errors import RecipeError
from ..files import replacing
from ..networks.any_model import Model, check_input
from ..training.accelerator import make_accelerator
from ..training.loop import fit
from ..training.metrics import predict, score
from ..training.run import Run, add_run_flags, run_from_flags
from ..training.settings import TRANSFER, add_flags, from_flags
from ..weights.described import check_origin, describe
from ..weights.load import load_weights, read_weights
from .flags import add_data_flags, data_from_flags


def _validate(network: nn.Module, run: Run, accelerator: Accelerator) -> tuple[torch.Tensor, dict[str, float]]:
    inputs = Augmented(run.data.val, run.preprocess.evaluation())
    log_probability, labels = predict(network.to(accelerator.device), inputs, accelerator, workers=run.workers)
    return log_probability, score(log_probability, labels)


def finetune(
    plain: nn.Module, run: Run, accelerator: Accelerator, reduction: int = 16, gates_only: bool = False
) -> dict[str, dict[str, float]]:
    """Inject gates into a copy of the trained ``plain``, train both as ``run`` says, and compare.

    ``run`` describes the plain model; the two trainings go to ``plain/`` and ``gates/`` in its folder, the comparison
    to ``report.json``. With ``gates_only``, the copy's backbone stays as it is; ``plain`` trains all its parameters.

    Raises ``RecipeError`` if the gates change any prediction before the first step, and what ``fit`` raises.
    """
    gated_model = replace(run.model, gates="identity", reduction=reduction)
    gated = se_inject.apply(copy.deepcopy(plain), reduction)
    runs = {
        "gates": replace(run, model=gated_model, folder=run.folder / "gates", trained="gates" if gates_only else "all"),
        "plain": replace(run, folder=run.folder / "plain"),
    }
    for each in runs.values():
        each.saved()  # whether it can start
    before, result = _validate(plain, run, accelerator)
    after, with_gates = _validate(gated, run, accelerator)
    if not torch.equal(before, after) or result != with_gates:
        raise RecipeError(
            f"{run.model.name}: the gates changed the predictions before the first step (top-1 error "
            f"{result['top1']:.3f} -> {with_gates['top1']:.3f} %); nothing was trained"
        )
    report = {"plain": result}
    if accelerator.is_main_process:
        print(f"validation error unchanged by the gates, to the bit: top-1 {result['top1']:.2f} %")
    for name, title, network in (("plain", "plain, trained as long", plain), ("gates", "with gates", gated)):
        last = fit(runs[name], network, accelerator)[-1]
        report[title] = {metric: last[f"val_{metric}"] for metric in ("loss", "top1", "top5")}
    if accelerator.is_main_process:
        with replacing(run.folder / "report.json") as temporary:
            temporary.write_text(json.dumps(report, indent=1))
    return report


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Run the command with these arguments, or the program's; returns the report.

    Raises the errors of ``recipes.errors``.
    """
    parser = argparse.ArgumentParser("python -m recipes finetune", description=__doc__)
    parser.add_argument(
        "--model", required=True, help="timm/NAME, torchvision/NAME or a name of recipes.list_networks()"
    )
    parser.add_argument("--weights", type=Path, required=True, help="its weights, trained on the classes of the data")
    parser.add_argument("--reduction", type=int, default=16, help="of the gates (default: %(default)s)")
    parser.add_argument("--gates-only", action="store_true", help="train only the gates and freeze the rest")
    add_data_flags(parser)
    add_run_flags(parser)
    add_flags(parser)
    flags = parser.parse_args(arguments)

    settings = from_flags(TRANSFER, flags)
    state = read_weights(flags.weights)
    accelerator = make_accelerator(settings.mixed_precision)
    data = data_from_flags(flags, accelerator)
    description = describe(flags.weights)
    if description is not None:
        check_origin(flags.weights, description, flags.model, data.classes)
    model = Model(flags.model, "none", description.model.num_classes if description else len(data.classes))
    torch.manual_seed(settings.seed)
    plain = model.build()
    load_weights(plain, state, str(flags.weights))
    name = f"finetune-{flags.model.replace('/', '-')}"
    run = run_from_flags(flags, model, data, settings, accelerator.num_processes, name)
    run = replace(run, start=hashlib.sha256(flags.weights.read_bytes()).hexdigest())
    check_input(plain, model, run.preprocess.size, run.settings.device_batch or 2)
    report = finetune(plain, run, accelerator, flags.reduction, flags.gates_only)
    if accelerator.is_main_process:
        rows = [[name, *result.values()] for name, result in report.items()]
        print(tabulate(rows, ["model", "loss", "top-1 error %", "top-5 error %"], floatfmt=("", ".4f", ".2f", ".2f")))
    return report
