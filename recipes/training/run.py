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
from .partial import Trained
from .settings import Settings, at_least


@dataclass(frozen=True)
class Run:
    """What to train, on what, how, and where to keep it.

    ``checkpoint_steps`` asks for a checkpoint also within epochs; ``trained`` says which part of the network learns,
    and ``head`` names the modules of a new head, which always does; ``cache`` asks that the features of
    what is frozen be computed once; ``start`` is a digest of the weights that the network starts from, if they are not
    random.

    Raises ``SettingsError`` if there are fewer images to train on than in a batch.

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
    trained: Trained = "all"
    head: tuple[str, ...] = ()
    cache: bool = False
    start: str | None = None

    def __post_init__(self) -> None:
        if self.cache and (self.trained == "all" or self.settings.augmentation != "none" or self.settings.mixup):
            why = "--train all leaves nothing frozen" if self.trained == "all" else "they need --augmentation none"
            raise SettingsError(f"features cannot be cached: {why}; leave out --cache, or change that")
        batch, images = self.settings.batch, len(self.data.train.labels)
        if batch > images:
            raise SettingsError(f"a batch of {batch} is more than the {images} images to train on; lower --batch")

    @property
    def checkpoint(self) -> Path:
        """The file that the run resumes from."""
        return self.folder / "last.pt"

    def identity(self) -> dict[str, Any]:
        """All that decides the run's course, flat and comparable; not how long it goes on."""
        train, val = self.data.train, self.data.val
        settings = asdict(self.settings) | {"trained": self.trained, "head": list(self.head)}
        del settings["epochs"], settings["patience"]
        parts = {
            "model": asdict(self.model),
            "preprocess": asdict(self.preprocess),
            "data": {
                "train": len(train.labels),
                "val": len(val.labels),
                "classes": list(self.data.classes),
                "digest": f"{train.digest} {val.digest}",
            },
            "settings": settings,
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
        if self.settings.epochs < state["ends"][-1]:
            raise SettingsError(
                f"{self.checkpoint}: is of a run of {state['ends'][-1]} epochs, which --epochs {self.settings.epochs} "
                "cannot shorten; give the same number or a larger one"
            )
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
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise SettingsError(f"{self.folder}: another process is training there; choose another --out") from error
        except (OSError, NotImplementedError) as error:  # such as another user's lock, or a disk that has none
            raise SettingsError(
                f"{lock.lock_file}: cannot be locked ({error}); remove it, or choose another --out"
            ) from error
        try:
            remove_partial(self.folder)
            yield
        finally:
            lock.release()


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
