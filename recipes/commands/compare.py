"""Which way to adapt a pretrained network? ``python -m recipes compare --model NAME --weights FILE --data DIR``.

Trains a new head, norms, gates, gates and norms, everything with gates and, as the control, everything without, at the
same budget: the same epochs or, with --seconds, the same time. The learning rates of each are chosen on a part of the
training images that is held out. Writes compare.md, compare.json and compare.png. Killed and called again, it goes on
where it was.

With ``--evaluate`` as the first flag: the paper's tables of several networks, as ``python -m recipes tables``.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..errors import SettingsError
from ..files import check_writable, replacing
from ..training.accelerator import make_accelerator
from ..training.settings import PRESETS, add_flags, at_least, from_flags
from . import tables
from .comparison import Record, page, picture
from .flags import PACKAGE, add_data_flags, add_subset_flags, data_from_flags, make_parser
from .study import Study
from .transfer import CONTROL, WAYS, add_pretrained_flags, pretrained_from_flags


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("compare", __doc__)
    add_pretrained_flags(parser)
    parser.add_argument(
        "--train",
        nargs="+",
        choices=[way for way in WAYS if way != CONTROL],
        default=[way for way in WAYS if way != CONTROL],
        help="ways to compare with the control (default: all)",
    )
    parser.add_argument("--seeds", type=at_least(1), default=3, help="trainings in each way (default: %(default)s)")
    parser.add_argument(
        "--factors",
        nargs="+",
        type=float,
        default=[0.3, 1.0, 3.0],
        help="of all learning rates, to choose from for each way (default: 0.3 1 3)",
    )
    parser.add_argument("--seconds", type=float, help="time of one training's steps, instead of --epochs")
    parser.add_argument("--cache", action="store_true", help="compute features before what learns once, where possible")
    parser.add_argument("--out", type=Path, help="folder (default: under runs/)")
    parser.add_argument(
        "--preset", choices=PRESETS, default="transfer", help="settings to start from (default: %(default)s)"
    )
    add_data_flags(parser)
    add_subset_flags(parser)
    add_flags(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> list[Record]:
    """Run the command with these arguments, or the program's; returns the records of the trainings by seed.

    Raises the errors of ``recipes.errors``.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--evaluate" in arguments[:1]:
        tables.main(arguments[1:])
        return []
    flags = _parser().parse_args(arguments)

    settings = from_flags(PRESETS[flags.preset], flags)
    if not all(0 < factor < float("inf") for factor in flags.factors) or len(set(flags.factors)) < len(flags.factors):
        raise SettingsError(f"--factors must be different numbers above 0, got {flags.factors}")
    if flags.seconds is not None and not (0 < flags.seconds < float("inf") and "epochs" not in flags):
        raise SettingsError(f"--seconds must be above 0, and instead of --epochs, got {flags.seconds}")
    if flags.seconds is not None and flags.cache:
        raise SettingsError("--seconds is of steps as they are without --cache; give one of the two")
    if settings.patience is not None:
        raise SettingsError("--patience would choose each training's length on the validation images; leave it out")
    accelerator = make_accelerator(settings.mixed_precision)
    folder = flags.out or Path("runs", f"compare-{flags.model.replace('/', '-').replace(':', '-')}")
    check_writable(folder / "compare.md")
    data = data_from_flags(flags, accelerator)
    study = Study(
        pretrained_from_flags(flags, data.classes),
        data,
        settings.share(accelerator.num_processes),
        folder,
        accelerator,
        ways=[CONTROL, *dict.fromkeys(flags.train)],
        factors=flags.factors,
        seeds=flags.seeds,
        size=flags.size,
        seconds=flags.seconds,
        workers=flags.workers,
        cache=flags.cache,
    )
    costs = study.costs()
    choosing, final = study.records(costs)
    if accelerator.is_main_process:
        command = shlex.join(["python", "-m", PACKAGE, "compare", *arguments])
        text = page(command, study.describe(), final, costs)
        content = {"costs": costs, "choosing": choosing, "trainings": final}
        with replacing(folder / "compare.png") as temporary:
            picture(final, costs).savefig(temporary, dpi=110)
        with replacing(folder / "compare.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1, default=asdict))
        with replacing(folder / "compare.md") as temporary:
            temporary.write_text(text)
        print(text)
    return final
