"""Do gates pay? ``python -m recipes evidence NAME --data DIR`` runs an experiment of the page docs/evidence.md.

Each training leaves a record, so that a command that was killed goes on where it was. The page is written anew from
all records at the end; without a name, that is all that is done, and the experiments are listed.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from joblib import Parallel, delayed
from tabulate import tabulate
from tqdm import tqdm

from ..errors import UnknownNameError
from ..evidence.grid import EXPERIMENTS, Experiment
from ..evidence.page import write_page
from ..evidence.paired import done, finalists
from ..evidence.records import Job, Record, Records
from ..evidence.tasks import FEWSHOT
from ..files import check_writable
from ..training.settings import at_least
from .flags import make_parser


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("evidence", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help='experiments, or "all" of them')
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="torchvision root with FashionMNIST (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=at_least(1), default=1, help="trainings at the same time (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("docs"), help="folder of evidence.md and evidence/ (default: %(default)s)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments, or the program's.

    Raises the errors of ``recipes.errors``.
    """
    flags = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    experiments = _named(flags.names)
    records = Records(flags.out / "evidence")
    for path in (flags.out / "evidence.md", records.folder / ".lock"):
        check_writable(path)
    _do(_choosing(experiments), records, flags)
    _do(_final(experiments, records), records, flags)
    write_page(records.folder, flags.out / "evidence.md")
    if not experiments:
        print(tabulate([_progress(one, records) for one in EXPERIMENTS.values()], ["name", "what", "trainings done"]))


def _named(names: Sequence[str]) -> list[Experiment]:
    if "all" in names:
        return list(EXPERIMENTS.values())
    for name in names:
        if name not in EXPERIMENTS:
            raise UnknownNameError(f"there is no experiment {name!r}; without a name, the command lists them")
    return [EXPERIMENTS[name] for name in dict.fromkeys(names)]


def _choosing(experiments: Iterable[Experiment]) -> list[Job]:
    """The trainings of all learning rates, with the first seed."""
    return [one.job(arm, 0, lr) for one in experiments for arm in one.compared for lr in one.rates]


def _final(experiments: Iterable[Experiment], records: Records) -> list[Job]:
    """Those with the other seeds, at the best of these rates."""
    rates = {(one, arm): finalists(records.of(one.setting), one, arm) for one in experiments for arm in one.compared}
    return [one.job(arm, seed, lr) for (one, arm), best in rates.items() for lr in best for seed in range(1, one.seeds)]


def _do(jobs: Sequence[Job], records: Records, flags: argparse.Namespace) -> None:
    """Those trainings that have no record yet, short ones first: a command that is killed has done more of them."""
    once = dict.fromkeys(jobs)  # experiments share trainings
    missing = sorted(
        (job for job in once if records.done(job) is None), key=lambda job: (job.images or 1e5) * job.epochs
    )
    threads = max(1, (os.cpu_count() or 1) // flags.jobs)
    trainings = Parallel(flags.jobs, return_as="generator_unordered")(
        delayed(_train)(job, flags.data, threads) for job in missing
    )
    for record in tqdm(trainings, "trainings", len(missing), disable=not missing):
        records.add(record)


def _train(job: Job, root: Path, threads: int) -> Record:
    from ..evidence.fewshot import train_fewshot  # here, where the process that only starts others needs no network
    from ..evidence.training import train

    torch.set_num_threads(threads)
    one = train_fewshot if job.data in FEWSHOT else train
    return one(job, root, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _progress(experiment: Experiment, records: Records) -> list[str]:
    return [
        experiment.name,
        experiment.title,
        f"{done(records.of(experiment.setting), experiment)} of {experiment.planned}",
    ]
