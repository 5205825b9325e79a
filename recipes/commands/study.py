"""A study of one pretrained network: every training of a comparison, each done once, however often it is killed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from tqdm import tqdm

from ..data.datasets import Data
from ..data.subsets import split
from ..errors import CheckpointError, NotCachedError, RecipeError, SettingsError
from ..files import replacing
from ..networks.any_model import check_input
from ..training.log import Row
from ..training.loop import fit
from ..training.run import Run
from ..training.settings import Settings
from ..training.step_costs import StepCosts, step_costs
from .comparison import Record
from .transfer import WAYS, Pretrained

HELD_OUT = 0.2  # of the training images of each class, to choose learning rates on


@dataclass(frozen=True)
class Study:
    """One pretrained network on one data set, adapted in several ways, with several seeds; all goes to ``folder``.

    Learning rates are those of ``settings``, all multiplied by one of ``factors``. ``seconds`` is the time of one
    training's steps, from which its number of epochs follows, if it is not to be that of ``settings``.
    """

    pretrained: Pretrained
    data: Data
    settings: Settings
    folder: Path
    accelerator: Accelerator
    ways: Sequence[str]
    factors: Sequence[float]
    seeds: int
    size: int | None = None
    seconds: float | None = None
    workers: int = 0
    cache: bool = False

    def __post_init__(self) -> None:
        if len(self.factors) > 1 and self.settings.batch > len(self.parts.train.labels):
            raise SettingsError(
                f"a batch of {self.settings.batch} is more than the {len(self.parts.train.labels)} training images "
                "that are left when some are held out to choose rates on; lower --batch, or give one of --factors"
            )

    @cached_property
    def parts(self) -> Data:
        """The training images alone, some held out to choose learning rates on."""
        return split(self.data, HELD_OUT, seed=0)

    def run(self, way: str) -> Run:
        """A run in one of the ways."""
        gated, trained = WAYS[way]
        model = self.pretrained.gated if gated else self.pretrained.plain
        return Run(
            model,
            self.data,
            model.preprocess(self.data.size, self.size),
            self.settings,
            self.folder / way,
            resume=True,
            workers=self.workers,
            trained=trained,
            head=self.new_head or (model.head_layers() if trained == "head" else ()),
            cache=self.cache and trained != "all",
            start=self.digest,
        )

    def network(self, way: str, seed: int) -> nn.Module:
        """What a run in one of the ways begins with."""
        return self.pretrained.begin(way, self.pretrained.load(seed)[0], seed)[1]

    @cached_property
    def digest(self) -> str:
        """It tells the pretrained weights from others."""
        return self.pretrained.digest

    @cached_property
    def new_head(self) -> tuple[str, ...]:
        """The layers of the head, if it is new."""
        return self.pretrained.load(self.settings.seed)[1].new_head

    def costs(self) -> dict[str, StepCosts]:
        """What a step costs in each way, measured once."""
        runs = {way: self.run(way) for way in self.ways}
        about = {way: run.identity() for way, run in runs.items()}  # and so of the whole comparison
        path = self.folder / "costs.json"
        saved = _read(path, about)
        if saved is None:
            arms = {way: (run, self.network(way, self.settings.seed)) for way, run in runs.items()}
            for run, network in arms.values():
                check_input(network, run.model, run.preprocess.size, run.settings.device_batch or 2)
            mine = {way: asdict(cost) for way, cost in step_costs(arms, self.accelerator).items()}
            saved = broadcast_object_list([mine])[0]  # processes must agree, as epochs may follow from it
            self._write(path, about, saved)
        return {way: StepCosts(**cost) for way, cost in saved.items()}

    def records(self, costs: dict[str, StepCosts]) -> tuple[list[Record], list[Record]]:
        """All trainings, or those that are not done yet: to choose learning rates, and with these, by seed."""
        choosing, final = [], []
        choices = len(self.factors) if len(self.factors) > 1 else 0
        total = len(self.ways) * (choices + self.seeds)
        lengths = {way: replace(self.settings, epochs=self._epochs(way, costs[way])) for way in self.ways}
        with tqdm(total=total, desc="compare", unit="training", disable=not self.accelerator.is_main_process) as bar:
            for way in self.ways:
                settings, tried = lengths[way], []
                for factor in self.factors[:choices]:
                    tried.append(self._train(way, self.parts, settings, factor, f"rates-{factor:g}"))
                    bar.update()
                best = min(tried, key=_quality).factor if tried else self.factors[0]
                if tried and all(record.loss is None for record in tried):
                    raise RecipeError(f"{way}: the loss is no number at any of the rates; give smaller --factors")
                for seed in range(self.settings.seed, self.settings.seed + self.seeds):
                    seeded = replace(settings, seed=seed)
                    final.append(self._train(way, self.data, seeded, best, f"seed-{seed}"))
                    bar.update()
                choosing += tried
        return choosing, final

    def describe(self) -> str:
        """The network, the data and the budget, in a sentence or two."""
        train, val = (len(images.labels) for images in (self.data.train, self.data.val))
        budget = f"{self.settings.epochs} epoch(s)" if self.seconds is None else f"{self.seconds:g} seconds of steps"
        return (
            f"`{self.pretrained.plain.name}` on {self.data.name}: {train:,} training images, {val:,} to validate on, "
            f"{budget} for each training, {self.seeds} seed(s)."
        )

    def _epochs(self, way: str, cost: StepCosts) -> int:
        if self.seconds is None:
            return self.settings.epochs
        of_one = len(self.data.train.labels) / cost.images * cost.seconds / self.accelerator.num_processes
        if of_one > self.seconds:
            raise SettingsError(
                f"{way}: an epoch takes {of_one:.3g} seconds of steps, more than --seconds {self.seconds:g}; give "
                "more, or fewer images with --per-class"
            )
        return int(self.seconds / of_one)

    def _train(self, way: str, data: Data, settings: Settings, factor: float, name: str) -> Record:
        """One training, or its record, if it is done."""
        run = self.run(way)
        rates = {
            name: factor * rate
            for name in ("lr", "gate_lr", "head_lr")
            if (rate := getattr(settings, name)) is not None
        }
        run = replace(run, data=data, settings=replace(settings, **rates), folder=self.folder / way / name)
        about = run.identity() | {"epochs": settings.epochs, "factor": factor}
        path = run.folder / "record.json"
        saved = _read(path, about)
        if saved is None:
            saved = asdict(self._record(way, run, self.network(way, settings.seed), factor))
            self._write(path, about, saved)
            if self.accelerator.is_main_process:
                run.checkpoint.unlink(missing_ok=True)  # the record is all that is needed of it
        return Record(**saved)

    def _record(self, way: str, run: Run, network: nn.Module, factor: float) -> Record:
        record = Record(way, run.settings.seed, factor, run.settings.epochs, None, 100.0, 100.0, 0.0)
        try:
            rows = self._rows(run, network)
        except RecipeError as error:
            if type(error) is not RecipeError:  # anything but a loss that is no longer a number
                raise
            tqdm.write(f"{run.folder}: {error}")
            return record
        last, seconds = rows[-1], sum(row["seconds"] for row in rows)
        loss, top1, top5 = (last[f"val_{name}"] for name in ("loss", "top1", "top5"))
        return replace(record, epochs=int(last["epoch"]), loss=loss, top1=top1, top5=top5, seconds=round(seconds, 1))

    def _rows(self, run: Run, network: nn.Module) -> list[Row]:
        try:
            return fit(run, network, self.accelerator)
        except NotCachedError as error:
            tqdm.write(f"{run.folder}: trains without --cache: {error}")
            return fit(replace(run, cache=False), network, self.accelerator)

    def _write(self, path: Path, about: Mapping[str, Any], content: Any) -> None:
        if self.accelerator.is_main_process:
            with replacing(path) as temporary:
                temporary.write_text(json.dumps({"of": _digest(about), "is": content}, indent=1))
        self.accelerator.wait_for_everyone()


def _read(path: Path, about: Mapping[str, Any]) -> Any:
    """What was written there about the same; ``None`` if nothing was."""
    if not path.exists():
        return None
    try:
        written = json.loads(path.read_text())
        of, content = written["of"], written["is"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: is damaged ({type(error).__name__}); remove it to measure again") from error
    if of != _digest(about):
        raise SettingsError(f"{path}: is of another comparison; give the same flags to go on, or another --out")
    return content


def _digest(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def _quality(record: Record) -> tuple[float, float]:
    return record.top1, float("inf") if record.loss is None else record.loss
