"""A run: what to train, on what, how, and the folder that keeps it."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..data.datasets import Data
from ..data.transforms import Preprocess
from ..errors import SettingsError
from ..files import check_writable, remove_partial
from ..networks.any_model import Model
from .checkpoint import check_identity, load_checkpoint
from .settings import Settings, at_least


@dataclass(frozen=True)
class Run:
    """What to train, on what, how, and where to keep it.

    ``checkpoint_steps`` asks for a checkpoint also within epochs; ``gates_only`` says that the backbone is frozen,
    ``start`` is a digest of the weights that the network starts from, if they are not random.

    >>> from ..data import open_data
    >>> model, data = Model("se_resnet20", "standard", 10), open_data(None)
    >>> run = Run(model, data, model.preprocess(data.size), Settings(), Path("runs/try"))
    >>> run.checkpoint.name, run.identity()["settings.lr"], run.saved()
    ('last.pt', 0.6, None)
    """

    model: Model
    data: Data
    preprocess: Preprocess
    settings: Settings
    folder: Path
    resume: bool = False
    workers: int = 0
    checkpoint_steps: int | None = None
    tensorboard: bool = False
    gates_only: bool = False
    start: str | None = None

    @property
    def checkpoint(self) -> Path:
        """The file that the run resumes from."""
        return self.folder / "last.pt"

    def identity(self) -> dict[str, Any]:
        """All that decides the run's result, flat and comparable."""
        train, val = self.data.train, self.data.val
        parts = {
            "model": asdict(self.model),
            "preprocess": asdict(self.preprocess),
            "data": {
                "train": len(train.labels),
                "val": len(val.labels),
                "classes": list(self.data.classes),
                "digest": f"{train.digest} {val.digest}",
            },
            "settings": asdict(self.settings) | {"gates_only": self.gates_only},
            "weights": {"start": self.start},
        }
        return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}

    def saved(self) -> dict[str, Any] | None:
        """The checkpoint to resume from, if there is one.

        Raises ``CheckpointError`` or ``SettingsError`` if the folder holds what cannot be continued as this run.
        """
        if not self.checkpoint.exists():
            return None
        if not self.resume:
            raise SettingsError(
                f"{self.folder}: holds a run already; continue it with --resume, or choose another --out"
            )
        state = load_checkpoint(self.checkpoint)
        check_identity(self.checkpoint, state["identity"], self.identity())
        return state

    @contextmanager
    def held(self, main: bool) -> Iterator[None]:
        """The folder, for this run alone, until the block ends or the process is killed; ``main`` holds it for all.

        Raises ``SettingsError`` if it cannot be written to, now rather than after an epoch, or another run holds it.
        """
        if not main:
            yield
            return
        check_writable(self.checkpoint)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                remove_partial(self.folder)
                yield
        except Timeout as error:
            raise SettingsError(f"{self.folder}: another process is training there; choose another --out") from error


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for a run's folder and its checkpoints.

    >>> add_run_flags(argparse.ArgumentParser())
    """
    parser.add_argument("--out", type=Path, help="the run's folder (default: under runs/)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out, or start it if there is none")
    parser.add_argument("--checkpoint-steps", type=at_least(1), help="write a checkpoint also every so many steps")
    parser.add_argument("--tensorboard", action="store_true", help="log for TensorBoard as well")


def run_from_flags(
    flags: argparse.Namespace, model: Model, data: Data, settings: Settings, processes: int, name: str
) -> Run:
    """The run that the flags describe, in ``runs/name`` unless they say where.

    Raises ``SettingsError`` if the batch cannot be shared out over the processes.
    """
    return Run(
        model,
        data,
        model.preprocess(data.size, flags.size),
        settings.share(processes),
        flags.out or Path("runs", name),
        resume=flags.resume,
        workers=flags.workers,
        checkpoint_steps=flags.checkpoint_steps,
        tensorboard=flags.tensorboard,
    )
