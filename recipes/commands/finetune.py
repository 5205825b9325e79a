"""Adapt a pretrained network: ``python -m recipes finetune --model timm/resnet50 --weights FILE --data DIR``.

It gets gates, and a new head where the data has other classes. Reports the plain network, the plain network trained as
long, and the one that was trained as --train says, side by side.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import torch
from accelerate import Accelerator
from tabulate import tabulate
from torch import nn

from ..data.datasets import Augmented
from ..errors import RecipeError
from ..files import replacing
from ..networks.any_model import Model, check_input
from ..training.accelerator import make_accelerator
from ..training.loop import fit
from ..training.metrics import predict, score
from ..training.partial import Trained
from ..training.run import Run, add_run_flags, run_from_flags
from ..training.settings import PRESETS, add_flags, from_flags
from .flags import add_data_flags, data_from_flags
from .transfer import CONTROL, WAYS, add_pretrained_flags, pretrained_from_flags

Report = dict[str, dict[str, float]]
TITLES = {
    "head": "head alone trained",
    "norm": "norms trained",
    "gates": "with gates, trained alone",
    "gates+norm": "with gates, trained with norms",
    "all": "with gates",
}


def _validate(network: nn.Module, run: Run, accelerator: Accelerator) -> tuple[torch.Tensor, dict[str, float]]:
    inputs = Augmented(run.data.val, run.preprocess.evaluation())
    log_probability, labels = predict(network.to(accelerator.device), inputs, accelerator, workers=run.workers)
    return log_probability, score(log_probability, labels)


def finetune(
    plain: nn.Module, model: Model, adapted: nn.Module, run: Run, accelerator: Accelerator, way: Trained = "all"
) -> Report:
    """Train the pretrained ``plain`` and ``adapted``, a copy of it with gates if ``way`` has any, and compare.

    ``run`` describes the plain network, ``model`` the adapted one. The two trainings go to ``plain/`` and ``gates/``
    (or ``head/``, ``norm/``, where there are no gates) in the run's folder, the comparison to ``report.json``. Of
    ``adapted`` that is trained which ``way`` says; ``plain`` trains all its parameters.

    Raises ``RecipeError`` if the gates change any prediction before the first step, and what ``fit`` raises.
    """
    folder = "gates" if WAYS[way][0] else way
    runs = {
        folder: replace(run, model=model, folder=run.folder / folder, trained=way),
        CONTROL: replace(run, folder=run.folder / CONTROL, cache=False),
    }
    for each in runs.values():
        each.saved()  # whether it can start
    before, result = _validate(plain, run, accelerator)
    main = accelerator.is_main_process
    if WAYS[way][0]:
        after, with_gates = _validate(adapted, run, accelerator)
        if not torch.equal(before, after) or result != with_gates:
            raise RecipeError(
                f"{run.model.name}: the gates changed the predictions before the first step (top-1 error "
                f"{result['top1']:.3f} -> {with_gates['top1']:.3f} %); nothing was trained"
            )
        if main:
            print(f"validation error unchanged by the gates, to the bit: top-1 {result['top1']:.2f} %")
    report = {"plain": result}
    for name, title, network in ((CONTROL, "plain, trained as long", plain), (folder, TITLES[way], adapted)):
        last = fit(runs[name], network, accelerator)[-1]
        report[title] = {metric: last[f"val_{metric}"] for metric in ("loss", "top1", "top5")}
    if main:
        with replacing(run.folder / "report.json") as temporary:
            temporary.write_text(json.dumps(report, indent=1))
    return report


def main(arguments: Sequence[str] | None = None) -> Report:
    """Run the command with these arguments, or the program's; returns the report.

    Raises the errors of ``recipes.errors``.
    """
    parser = argparse.ArgumentParser("python -m recipes finetune", description=__doc__)
    add_pretrained_flags(parser)
    parser.add_argument(
        "--train", choices=get_args(Trained), default="all", help="what learns, with a new head (default: %(default)s)"
    )
    parser.add_argument(
        "--preset", choices=PRESETS, default="transfer", help="settings to start from (default: %(default)s)"
    )
    add_data_flags(parser)
    add_run_flags(parser)
    add_flags(parser)
    flags = parser.parse_args(arguments)

    settings = from_flags(PRESETS[flags.preset], flags)
    accelerator = make_accelerator(settings.mixed_precision)
    data = data_from_flags(flags, accelerator)
    pretrained = pretrained_from_flags(flags, data.classes)
    plain, origin = pretrained.load(settings.seed)
    name = f"finetune-{flags.model.replace('/', '-').replace(':', '-')}"
    run = run_from_flags(flags, pretrained.plain, data, settings, accelerator.num_processes, name)
    head = origin.new_head or (pretrained.plain.head_layers() if flags.train == "head" else ())
    run = replace(run, start=pretrained.digest, head=head)
    check_input(plain, run.model, run.preprocess.size, run.settings.device_batch or 2)
    model, adapted = pretrained.begin(flags.train, plain, settings.seed)
    if accelerator.is_main_process and origin.new_head:
        print(f"new head {', '.join(origin.new_head)}: {origin.why}")
    report = finetune(plain, model, adapted, run, accelerator, flags.train)
    if accelerator.is_main_process:
        rows = [[name, *result.values()] for name, result in report.items()]
        print(tabulate(rows, ["model", "loss", "top-1 error %", "top-5 error %"], floatfmt=("", ".4f", ".2f", ".2f")))
    return report
