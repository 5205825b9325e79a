"""How to train: the numbers that make a run, the paper's as the default, and their command-line flags."""

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

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
class Range:
    """Numbers from ``least`` on, or all that are ``above`` another, and less than ``below``.

    >>> 0.5 in Range(0, below=1), 0 in Range(above=0), str(Range(above=0))
    (True, False, 'more than 0 and less than inf')
    """

    least: float = -math.inf
    below: float = math.inf
    above: float = -math.inf

    def __contains__(self, value: float) -> bool:
        return self.least <= value < self.below and value > self.above

    def __str__(self) -> str:
        low = f"more than {self.above:g}" if self.least == -math.inf else f"at least {self.least:g}"
        return f"{low} and less than {self.below:g}"


@dataclass(frozen=True)
class Settings:
    """The settings of a run, each with its flag's help; the defaults are the paper's (section 5.1).

    Raises ``SettingsError`` for a value of another type or out of range.

    >>> Settings(momentum=2)
    Traceback (most recent call last):
    ...
    recipes.errors.SettingsError: momentum must be at least 0 and less than 1, got 2
    """

    epochs: Annotated[int, "passes over as many images as there are", Range(1)] = 100
    batch: Annotated[int, "images in one optimizer step, over all processes", Range(1)] = 1024
    device_batch: Annotated[
        int | None, "images at once on a device, as batch norm sees them; gradients accumulate up to --batch", Range(1)
    ] = None
    optimizer: Annotated[Literal["sgd", "adamw"], "the optimizer"] = "sgd"
    lr: Annotated[float, "learning rate, also of gates and head unless they have their own", Range(0)] = 0.6
    gate_lr: Annotated[float | None, "learning rate of the gates", Range(0)] = None
    head_lr: Annotated[float | None, "learning rate of a new head", Range(0)] = None
    schedule: Annotated[Literal["step", "cosine"], "of learning rates: divided by 10 in steps, or a cosine"] = "step"
    lr_step: Annotated[int, "epochs from one step of the step schedule to the next", Range(1)] = 30
    warmup: Annotated[float, "epochs in which learning rates rise from nearly 0", Range(0)] = 0.0
    momentum: Annotated[float, "of SGD", Range(0, below=1)] = 0.9
    weight_decay: Annotated[float, "of everything but the gates' biases", Range(0)] = 1e-4
    clip: Annotated[float | None, "norm to which a step's gradients are scaled down", Range(above=0)] = None
    augmentation: Annotated[Augmentation, "the paper's, crop and mirror for small images, RandAugment, none"] = "paper"
    label_smoothing: Annotated[float, "share of each target that all classes get alike", Range(0, below=1)] = 0.0
    mixup: Annotated[float, "alpha of mixup, such as 0.2; 0 is without", Range(0)] = 0.0
    patience: Annotated[
        int | None, "stop after so many epochs without a better top-1 error or, if equal, loss in validation", Range(1)
    ] = None
    ema: Annotated[
        float | None,
        "decay, such as 0.9999, of an average of the weights to validate and save instead",
        Range(above=0, below=1),
    ] = None
    seed: Annotated[int, "of initial weights, the order of images and their augmentation", Range(0, below=2**63)] = 0
    mixed_precision: Annotated[Precision, "train in half precision"] = "no"
    channels_last: Annotated[bool, "channels-last memory format"] = False
    compile: Annotated[bool, "torch.compile the network"] = False

    def __post_init__(self) -> None:
        for name, (hint, _, *limits) in _settings().items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), hint, *limits))
        if self.warmup >= self.epochs:
            raise SettingsError(
                f"warmup must end before the run does, after {self.epochs} epoch(s), got {self.warmup:g}; "
                "choose a smaller --warmup, such as half an epoch, or more --epochs"
            )

    def share(self, processes: int) -> "Settings":
        """The same settings with ``device_batch`` set, checked for this many processes.

        The default is the largest part of 32 to 128 images that divides the batch, or a small batch whole: it must not
        depend on the processes, as results do depend on it, through batch norm.

        Raises ``SettingsError`` if the batch cannot be shared out evenly.

        >>> Settings(batch=1024).share(8).device_batch
        128
        """
        sizes = [self.batch] if self.batch <= 128 else [n for n in range(128, 31, -1) if self.batch % n == 0]
        part = min(self.device_batch, self.batch) if self.device_batch else next(iter(sizes), None)
        if part is None or self.batch % (part * processes):
            parts = "32 to 128" if part is None else str(part)
            raise SettingsError(
                f"a batch of {self.batch} does not divide into parts of {parts} images for each of {processes} "
                "process(es); choose another --batch or --device-batch"
            )
        return replace(self, device_batch=part)


def _settings() -> dict[str, tuple[Any, ...]]:
    """Of each setting: its type, its help and, if it has one, its range."""
    hints = get_type_hints(Settings, include_extras=True)
    return {one.name: get_args(hints[one.name]) for one in fields(Settings)}


def _kind(hint: Any) -> Any:
    """The type of a value that is not ``None``."""
    return next((kind for kind in get_args(hint) if kind is not NoneType), hint)


def _checked(name: str, value: Any, hint: Any, limits: Range | None = None) -> Any:
    """The value, as its setting's own type."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise SettingsError(f"{name} must be one of {', '.join(get_args(hint))}, got {value!r}")
        return value
    if value is None and NoneType in get_args(hint):
        return None
    kind = _kind(hint)
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
        what = {int: "a whole number", float: "a number", bool: "True or False"}[kind]
        raise SettingsError(f"{name} must be {what}, got {value!r}")
    if limits is not None and value not in limits:
        raise SettingsError(f"{name} must be {limits}, got {value}")
    return kind(value)


# 32 images a GPU: the paper's 1,024 on 4 servers of 8 GPUs, and the 256 on one server of the authors' published weights
# (section 5.1, https://github.com/hujie-frank/SENet).
PAPER = Settings(device_batch=32)
SMALL = Settings(epochs=30, batch=128, lr=0.1, lr_step=10, augmentation="small")
TRANSFER = Settings(
    epochs=10,
    batch=128,
    optimizer="adamw",
    lr=2e-4,
    gate_lr=2e-3,
    head_lr=2e-3,
    schedule="cosine",
    warmup=0.5,
    weight_decay=0.01,
    label_smoothing=0.1,
)
PRESETS = {"paper": PAPER, "small": SMALL, "transfer": TRANSFER}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; those that are not given stay out of the namespace.

    >>> parser = argparse.ArgumentParser()
    >>> add_flags(parser)
    >>> from_flags(Settings(), parser.parse_args(["--lr", "0.3"])).lr
    0.3
    """
    group = parser.add_argument_group("settings")
    for name, (hint, text, *_) in _settings().items():
        options: dict[str, Any] = {"type": _kind(hint)}
        if hint is bool:
            options = {"action": "store_true"}
        elif get_origin(hint) is Literal:
            options = {"choices": get_args(hint)}
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, default=argparse.SUPPRESS, help=text, **options)


def from_flags(base: Settings, flags: argparse.Namespace) -> Settings:
    """``base`` with the settings that ``flags`` has.

    Raises ``SettingsError`` for an invalid value.

    >>> from_flags(SMALL, argparse.Namespace(epochs=3, out="ignored")).epochs
    3
    """
    return Settings(**asdict(base) | {name: value for name, value in vars(flags).items() if name in _settings()})
