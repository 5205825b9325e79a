"""How to train: the numbers that make a run, the paper's as the default, and their command-line flags."""

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args

from ..data.transforms import Augmentation
from ..errors import SettingsError
from .accelerator import Precision


def at_least(minimum: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers from ``minimum`` on.

    >>> at_least(1)("3")
    3
    """

    def whole_number(text: str) -> int:
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, got {text}")
        return int(text)

    return whole_number


@dataclass(frozen=True)
class Settings:
    """The settings of a run; the defaults are the paper's (section 5.1).

    ``batch`` images make one step of SGD, in parts of ``device_batch`` (``None``: 128 or a little less); ``lr`` is
    divided by 10 every ``lr_step`` epochs. ``gate_lr`` is the gates' own learning rate, ``ema`` the decay of an
    averaged copy that is validated and saved instead.
    """

    epochs: int = 100
    batch: int = 1024
    device_batch: int | None = None
    lr: float = 0.6
    lr_step: int = 30
    gate_lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    augmentation: Augmentation = "paper"
    seed: int = 0
    ema: float | None = None
    mixed_precision: Precision = "no"
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "device_batch", "lr_step"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "gate_lr", "weight_decay", "momentum", "seed"):
            value, end = getattr(self, name), {"momentum": 1, "seed": 2**63}.get(name, math.inf)
            if value is not None and not 0 <= value < end:
                raise SettingsError(f"{name} must be at least 0 and less than {end}, got {value}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise SettingsError(f"ema is a decay between 0 and 1, such as 0.9999, got {self.ema}")

    def share(self, processes: int) -> "Settings":
        """The same settings with ``device_batch`` set, checked for this many processes.

        The default is the largest part of 32 to 128 images that divides the batch, or a small batch whole: it must not
        depend on the processes, as results do depend on it, through batch norm.

        Raises ``SettingsError`` if the batch cannot be shared out evenly.

        >>> Settings(batch=1024).share(8).device_batch
        128
        """
        sizes = [self.batch] if self.batch <= 128 else [n for n in range(128, 31, -1) if self.batch % n == 0]
        part = self.device_batch or next(iter(sizes), None)
        if part is None or self.batch % (part * processes):
            parts = "32 to 128" if part is None else str(part)
            raise SettingsError(
                f"a batch of {self.batch} does not divide into parts of {parts} images for each of {processes} "
                "process(es); choose another --batch or --device-batch"
            )
        return replace(self, device_batch=part)


SMALL = Settings(epochs=30, batch=128, lr=0.1, lr_step=10, augmentation="small")
PRESETS = {"paper": Settings(), "small": SMALL}
FINETUNE = Settings(epochs=10, batch=128, lr=0.01, gate_lr=0.1, lr_step=4)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; those that are not given stay out of the namespace.

    >>> parser = argparse.ArgumentParser()
    >>> add_flags(parser)
    >>> from_flags(Settings(), parser.parse_args(["--lr", "0.3"])).lr
    0.3
    """
    group = parser.add_argument_group("settings")

    def add(name: str, text: str, **options: Any) -> None:
        group.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=text, **options)

    add("epochs", "passes over as many images as there are", type=int)
    add("batch", "images in one optimizer step, over all processes", type=int)
    add("device_batch", "images at once on a device; gradients accumulate up to --batch", type=int)
    add("lr", "learning rate of all but the gates, and of the gates unless --gate-lr is given", type=float)
    add("lr_step", "epochs after which the learning rate is divided by 10, again and again", type=int)
    add("gate_lr", "learning rate of the gates", type=float)
    add("momentum", "of SGD", type=float)
    add("weight_decay", "of everything but the gates' biases", type=float)
    add("augmentation", "the paper's list, or crop and mirror for small images", choices=get_args(Augmentation))
    add("seed", "of the initial weights, the order of images and their augmentation", type=int)
    add("ema", "decay of an exponential moving average of the weights, such as 0.9999", type=float)
    add("mixed_precision", "train in half precision", choices=get_args(Precision))
    add("channels_last", "channels-last memory format", action="store_true")
    add("compile", "torch.compile the network", action="store_true")


def from_flags(base: Settings, flags: argparse.Namespace) -> Settings:
    """``base`` with the settings that ``flags`` has.

    Raises ``SettingsError`` for an invalid value.

    >>> from_flags(SMALL, argparse.Namespace(epochs=3, out="ignored")).epochs
    3
    """
    names = {field.name for field in fields(Settings)}
    return Settings(**asdict(base) | {name: value for name, value in vars(flags).items() if name in names})
