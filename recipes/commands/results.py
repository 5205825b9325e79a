"""Does it learn? ``python -m recipes results --data DIR`` trains plain and SE twins, and fine-tunes, over seeds.

Writes ``RESULTS.md`` with its tables and pictures. Killed and called again, it goes on where it was.
"""

import copy
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from tabulate import tabulate

import se_inject

from ..data.datasets import Data, open_data
from ..data.subsets import limit_per_class
from ..data.unreadable import drop_unreadable
from ..files import check_writable, replacing
from ..networks.any_model import Model
from ..training.accelerator import make_accelerator
from ..training.loop import fit
from ..training.run import Run
from ..training.settings import SMALL, Settings, at_least
from ..weights.described import load_model
from . import plot
from .finetune import finetune
from .flags import PACKAGE, make_parser

SCRATCH = ("plain", "SE")
TUNED = ("plain", "plain, trained as long", "with gates", "with gates, trained alone")


@dataclass(frozen=True)
class Experiment:
    """One network on one data set; runs go to ``folder`` and are resumed if they have begun."""

    network: str
    data: Data
    scratch: Settings
    tuning: Settings
    folder: Path

    def _run(self, name: str, seed: int, gates: str, settings: Settings) -> Run:
        model = Model(self.network, gates, len(self.data.classes))  # type: ignore[arg-type]
        settings = replace(settings, seed=seed).share(1)
        folder = self.folder / f"{name}-{seed}"
        return Run(model, self.data, model.preprocess(self.data.size), settings, folder, resume=True)

    def from_scratch(self, seed: int, accelerator: Accelerator) -> list[float]:
        """Top-1 errors in per cent after the last epoch: of the plain network and of its SE twin."""
        errors = []
        for name, gates in zip(SCRATCH, ("none", "standard"), strict=True):
            run = self._run(name, seed, gates, self.scratch)
            torch.manual_seed(seed)
            errors.append(fit(run, run.model.build(), accelerator)[-1]["val_top1"])
        return errors

    def fine_tuned(self, seed: int, accelerator: Accelerator) -> list[float]:
        """Top-1 errors in per cent, as in ``TUNED``, of the plain network from scratch after more training."""
        start = self.folder / f"plain-{seed}" / "model.safetensors"
        plain, run = load_model(start)[0], self._run("finetune", seed, "identity", self.tuning)
        report = finetune(plain, run.model.add_gates(copy.deepcopy(plain)), run, accelerator)
        alone = replace(self._run("finetune-gates-alone", seed, "identity", self.tuning), trained="gates")
        torch.manual_seed(seed)
        network = se_inject.apply(load_model(start)[0])
        return [report[name]["top1"] for name in TUNED[:3]] + [fit(alone, network, accelerator)[-1]["val_top1"]]

    def describe(self, command: str, machine: str, errors: Sequence[tuple[list[float], list[float]]]) -> str:
        """The page of results: ``errors`` of each seed, from scratch and fine-tuned."""
        return TEXT.format(
            command=command,
            network=self.network,
            source=self.data.name,
            train=len(self.data.train.labels),
            val=len(self.data.val.labels),
            size=self._run("plain", 0, "none", self.scratch).preprocess.size,
            torch=torch.__version__,
            machine=machine,
            scratch=self.scratch,
            tuning=self.tuning,
            scratch_table=table(SCRATCH, [row for row, _ in errors]),
            tuned_table=table(TUNED, [row for _, row in errors]),
        )


def table(names: Sequence[str], errors: Sequence[Sequence[float]]) -> str:
    """Markdown: a row a seed, their mean, and the mean difference to the first column with its standard deviation.

    >>> print(table(["plain", "SE"], [[20.0, 19.0], [22.0, 20.0]]))
    | seed            | plain   | SE           |
    |-----------------|---------|--------------|
    | 0               | 20.00   | 19.00        |
    | 1               | 22.00   | 20.00        |
    | mean            | 21.00   | 19.50        |
    | to first column |         | -1.50 ± 0.71 |
    """
    rows = [[str(seed), *(f"{error:.2f}" for error in row)] for seed, row in enumerate(errors)]
    columns = list(zip(*errors, strict=True))
    rows.append(["mean", *(f"{statistics.mean(column):.2f}" for column in columns)])
    last = ["to first column", ""]
    for column in columns[1:]:
        differences = [b - a for a, b in zip(columns[0], column, strict=True)]
        spread = f" ± {statistics.stdev(differences):.2f}" if len(errors) > 1 else ""
        last.append(f"{statistics.mean(differences):+.2f}{spread}")
    text: str = tabulate([*rows, last], ["seed", *names], tablefmt="github", disable_numparse=True)
    return text


TEXT = """# Does it learn?

Generated by this command, whatever the numbers say; killed and called again, it goes on where it was:

```sh
{command}
```

`{network}` and its plain twin on {source}: {train:,} training images (class-balanced sampling), {val:,} test
images, inputs of {size} pixels. Errors are top-1, in per cent, on the test images after the last epoch; nothing was
selected on them. "±" is the standard deviation, over the seeds, of the difference to the first column.
torch {torch} on {machine}.

## From scratch

Batch {scratch.batch}, {scratch.epochs} epochs, learning rate {scratch.lr}, divided by 10 every {scratch.lr_step}.

{scratch_table}

![training curves of seed 0](pictures/curves.png)

## Fine-tuning

Starts from the plain networks above; {tuning.epochs} more epochs, learning rate {tuning.lr}, of gates {tuning.gate_lr},
divided by 10 every {tuning.lr_step}. The injection of gates was verified to change no prediction, to the bit.
"Trained as long" is the control: what more epochs alone bring.

{tuned_table}

## What the gates do

Mean gate activation by class on the test images, SE network of seed 0.

![gate activations](pictures/gates.png)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments, or the program's.

    Raises the errors of ``recipes.errors``.
    """
    parser = make_parser("results", __doc__)
    parser.add_argument("--data", help="as for recipes.train")
    parser.add_argument("--network", default="se_resnet20", help="(default: %(default)s)")
    parser.add_argument("--seeds", type=at_least(1), default=3, help="number of seeds (default: %(default)s)")
    parser.add_argument("--epochs", type=at_least(1), default=10, help="from scratch (default: %(default)s)")
    parser.add_argument("--finetune-epochs", type=at_least(1), default=4, help="(default: %(default)s)")
    parser.add_argument("--per-class", type=at_least(1), help="training images of each class (default: all)")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs", "results"), help="folder of runs (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("recipes"), help="folder of RESULTS.md (default: %(default)s)")
    flags = parser.parse_args(arguments)

    accelerator = make_accelerator()
    check_writable(flags.out / "RESULTS.md")
    data = drop_unreadable(open_data(flags.data), "error", accelerator)
    data = limit_per_class(data, flags.per_class)
    small = replace(SMALL, batch=min(SMALL.batch, len(data.train.labels)))
    scratch = replace(small, epochs=flags.epochs, lr_step=max(1, 2 * flags.epochs // 5))
    epochs = flags.finetune_epochs
    tuning = replace(small, epochs=epochs, lr=0.01, gate_lr=0.1, lr_step=max(1, epochs // 2))
    experiment = Experiment(flags.network, data, scratch, tuning, flags.runs)
    both = [
        (experiment.from_scratch(seed, accelerator), experiment.fine_tuned(seed, accelerator))
        for seed in range(flags.seeds)
    ]
    _pictures(flags.runs, flags.data, flags.out / "pictures")
    command = shlex.join(["python", "-m", PACKAGE, "results", *(sys.argv[1:] if arguments is None else arguments)])
    cpu = accelerator.device.type == "cpu"
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()})" if cpu else torch.cuda.get_device_name()
    with replacing(flags.out / "RESULTS.md") as temporary:
        temporary.write_text(experiment.describe(command, machine, both))


def _pictures(runs: Path, data: str | None, out: Path) -> None:
    plot.main(["curves", str(runs / "plain-0"), str(runs / "SE-0"), "--out", str(out / "curves.png")])
    checkpoint = ["--checkpoint", str(runs / "SE-0" / "model.safetensors")]
    plot.main(["gates", *checkpoint, *(["--data", data] if data else []), "--out", str(out / "gates.png")])
