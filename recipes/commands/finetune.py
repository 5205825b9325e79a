"""Adapt a pretrained network: ``python -m recipes finetune --model timm/resnet50 --weights FILE --data DIR``.

It gets gates, and a new head where the data has other classes. Reports the plain network, the plain network trained as
long, and the one that was trained as --train says, side by side.
"""

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
from ..files import check_writable, replacing
from ..networks.any_model import check_input
from ..training.accelerator import make_accelerator
from ..training.loop import fit
from ..training.metrics import predict, score
from ..training.partial import Trained
from ..training.run import Run, add_run_flags, run_from_flags
from ..training.settings import PRESETS, add_flags, from_flags
from .flags import add_data_flags, add_subset_flags, data_from_flags, make_parser
from .transfer import add_pretrained_flags, pretrained_from_flags

Report = dict[str, dict[str, float]]
TITLES = {
    "head": "head, trained alone",
    "norm": "norms, trained alone",
    "gates": "with gates, trained alone",
    "gates+norm": "with gates, trained with norms",
    "all": "with gates",
}


def _validate(network: nn.Module, run: Run, accelerator: Accelerator) -> tuple[torch.Tensor, dict[str, float]]:
    inputs = Augmented(run.data.val, run.preprocess.evaluation())
    log_probability, labels = predict(network.to(accelerator.device), inputs, accelerator, workers=run.workers)
    return log_probability, score(log_probability, labels)


def finetune(plain: nn.Module, adapted: nn.Module, run: Run, accelerator: Accelerator) -> Report:
    """Train the pretrained ``plain`` and ``adapted``, a copy of it that may have gates, and compare.

    ``run`` describes the training of ``adapted``; ``plain`` is the control, which trains all its parameters as long.
    The two go to folders within the run's, the comparison to ``report.json``.

    Raises ``RecipeError`` if gates change any prediction before the first step, and what ``fit`` raises.
    """
    gated = run.model.gates != "none"
    folder, title = "gates" if gated else run.trained, TITLES[run.trained]
    control = replace(run, model=replace(run.model, gates="none"), trained="all", cache=False)
    runs = {"plain": replace(control, folder=run.folder / "plain"), folder: replace(run, folder=run.folder / folder)}
    for each in runs.values():
        each.saved()  # whether it can start
    main = accelerator.is_main_process
    before, result = _validate(plain, run, accelerator)
    if gated:
        after, with_gates = _validate(adapted, run, accelerator)
        if not torch.equal(before, after) or result != with_gates:
            raise RecipeError(
                f"{run.model.name}: the gates changed the predictions before the first step (top-1 error "
                f"{result['top1']:.3f} -> {with_gates['top1']:.3f} %); nothing was trained"
            )
        if main:
            print(f"validation error unchanged by the gates, to the bit: top-1 {result['top1']:.2f} %")
    if main:
        check_writable(run.folder / "report.json")
    report = {"plain": result}
    for name, what, network in (("plain", "plain, trained as long", plain), (folder, title, adapted)):
        last = fit(runs[name], network, accelerator)[-1]
        report[what] = {metric: last[f"val_{metric}"] for metric in ("loss", "top1", "top5")}
    if main:
        rows = [[name, *result.values()] for name, result in report.items()]
        print(tabulate(rows, ["model", "loss", "top-1 error %", "top-5 error %"], floatfmt=("", ".4f", ".2f", ".2f")))
        with replacing(run.folder / "report.json") as temporary:
            temporary.write_text(json.dumps(report, indent=1))
    return report


def main(arguments: Sequence[str] | None = None) -> Report:
    """Run the command with these arguments, or the program's; returns the report.

    Raises the errors of ``recipes.errors``.
    """
    parser = make_parser("finetune", __doc__)
    add_pretrained_flags(parser)
    parser.add_argument(
        "--train", choices=get_args(Trained), default="all", help="what learns, with a new head (default: %(default)s)"
    )
    parser.add_argument(
        "--preset", choices=PRESETS, default="transfer", help="settings to start from (default: %(default)s)"
    )
    parser.add_argument(
        "--cache", action="store_true", help="compute features before what learns once; needs --augmentation none"
    )
    add_data_flags(parser)
    add_subset_flags(parser)
    add_run_flags(parser)
    add_flags(parser)
    flags = parser.parse_args(arguments)

    settings = from_flags(PRESETS[flags.preset], flags)
    accelerator = make_accelerator(settings.mixed_precision)
    data = data_from_flags(flags, accelerator)
    pretrained = pretrained_from_flags(flags, data.classes)
    plain, origin = pretrained.load(settings.seed)
    model, adapted = pretrained.begin(flags.train, plain, settings.seed)
    name = f"finetune-{flags.model.replace('/', '-').replace(':', '-')}"
    run = run_from_flags(flags, model, data, settings, accelerator.num_processes, name)
    head = origin.new_head or (model.head_layers() if flags.train == "head" else ())
    run = replace(run, trained=flags.train, head=head, cache=flags.cache, start=pretrained.digest)
    check_input(adapted, model, run.preprocess.size, run.settings.device_batch or 2)
    if accelerator.is_main_process and origin.new_head:
        print(f"new head {', '.join(origin.new_head)}: {origin.why}")
    return finetune(plain, adapted, run, accelerator)
