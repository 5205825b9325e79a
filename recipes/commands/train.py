"""Train one of the paper's networks from scratch: ``python -m recipes train --network se_resnet50 --data DIR``.

The defaults are the paper's training. On several GPUs or servers: ``accelerate launch -m recipes.train``, same flags.
"""

from collections.abc import Sequence

import torch

from .. import networks
from ..networks.any_model import Model, check_input
from ..training.accelerator import make_accelerator
from ..training.log import Row
from ..training.loop import fit
from ..training.run import add_run_flags, run_from_flags
from ..training.settings import PRESETS, add_flags, from_flags
from .flags import add_data_flags, count_classes, data_from_flags, make_parser


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the command with these arguments, or the program's; returns the log, one row an epoch.

    Raises the errors of ``recipes.errors``.
    """
    parser = make_parser("train", __doc__)
    parser.add_argument(
        "--network", default="se_resnet20", help="a name of recipes.list_networks() (default: %(default)s)"
    )
    parser.add_argument("--plain", action="store_true", help="train the plain base instead, without gates")
    parser.add_argument("--num-classes", type=int, help="outputs of the network (default: the data's classes)")
    parser.add_argument("--reduction", type=int, default=16, help="of the gates (default: %(default)s)")
    parser.add_argument(
        "--preset", choices=PRESETS, default="paper", help="settings to start from (default: %(default)s)"
    )
    add_data_flags(parser)
    add_run_flags(parser)
    add_flags(parser)
    flags = parser.parse_args(arguments)

    settings = from_flags(PRESETS[flags.preset], flags)
    recipe = networks.get(flags.network)
    accelerator = make_accelerator(settings.mixed_precision)
    data = data_from_flags(flags, accelerator)
    outputs = count_classes(flags.num_classes, data.classes)
    model = Model(recipe.name, "none" if flags.plain else "standard", outputs, flags.reduction)
    name = f"{recipe.name}-plain" if flags.plain else recipe.name
    run = run_from_flags(flags, model, data, settings, accelerator.num_processes, name)
    run.saved()  # whether it can start, before anything is built
    torch.manual_seed(settings.seed)
    network = model.build()
    check_input(network, model, run.preprocess.size, run.settings.device_batch or 2)
    return fit(run, network, accelerator)
