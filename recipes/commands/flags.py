"""What the commands share: flags for data and the run's folder, and errors without a traceback."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

import torch
from accelerate import Accelerator

from se_inject.errors import SEInjectError

from ..data.datasets import Data, open_data
from ..data.subsets import limit_per_class
from ..data.transforms import SMALLEST
from ..data.unreadable import Unreadable, drop_unreadable
from ..errors import SettingsError
from ..training.settings import at_least

PACKAGE = __name__.partition(".")[0]  # the package has another name where it is installed


def make_parser(command: str, about: str | None) -> argparse.ArgumentParser:
    """A parser of a command's flags, whose help says how the command is called here.

    >>> make_parser("train", None).prog
    'python -m recipes train'
    """
    about = (about or "").replace("python -m recipes", f"python -m {PACKAGE}")
    return argparse.ArgumentParser(f"python -m {PACKAGE} {command}".rstrip(), description=about)


def run_command(main: Callable[[], object]) -> None:
    """Call ``main``; an error that the project raises on purpose ends the program with its message alone.

    >>> run_command(lambda: None)
    """
    try:
        main()
        if torch.distributed.is_initialized():  # or its threads may abort the process as it ends
            torch.distributed.destroy_process_group()
    except SEInjectError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on where it was, train and finetune with --resume")


def add_data_flags(parser: argparse.ArgumentParser, several_sizes: bool = False) -> None:
    """Add the flags that ``data_from_flags`` reads, and the size of inputs, of which there may be several.

    >>> add_data_flags(argparse.ArgumentParser())
    """
    parser.add_argument(
        "--data", help="folder with train/ and val/, or torchvision root with FashionMNIST or CIFAR10 (default: digits)"
    )
    sizes = {"nargs": "+", "help": "sides of an input in pixels, each by itself and all fused"}
    one = {"help": "side of an input in pixels"}
    parser.add_argument("--size", type=at_least(SMALLEST), **(sizes if several_sizes else one))  # type: ignore[arg-type]
    parser.add_argument("--workers", type=at_least(0), default=0, help="processes that load images")
    parser.add_argument(
        "--unreadable",
        choices=get_args(Unreadable),
        default="error",
        help="what to do with images that cannot be read: stop, leave them out, or not look for them (default: error)",
    )


def add_subset_flags(parser: argparse.ArgumentParser) -> None:
    """Add flags for a part of the data, which ``data_from_flags`` reads too.

    >>> add_subset_flags(argparse.ArgumentParser())
    """
    parser.add_argument("--per-class", type=at_least(1), help="train only on the first so many images of each class")
    parser.add_argument("--val-per-class", type=at_least(1), help="validate only on the first so many of each class")


def data_from_flags(flags: argparse.Namespace, accelerator: Accelerator, train: bool = True) -> Data:
    """The data that the flags name, every image file checked; without ``train``, images to evaluate on are enough.

    Raises ``DataError``.

    >>> parser = argparse.ArgumentParser()
    >>> add_data_flags(parser)
    >>> len(data_from_flags(parser.parse_args([]), Accelerator()).classes)
    10
    """
    data = open_data(flags.data, train)
    if "per_class" in flags:
        few = limit_per_class(replace(data, train=data.val), flags.val_per_class).train
        data = replace(limit_per_class(data, flags.per_class), val=few)
    return drop_unreadable(data, flags.unreadable, accelerator)


def count_classes(wanted: int | None, classes: Sequence[str]) -> int:
    """The number of a network's outputs: as many as there are classes, unless more are wanted.

    Raises ``SettingsError`` if there are more classes than outputs.

    >>> count_classes(None, ["cat", "dog"])
    2
    """
    if wanted is not None and wanted < len(classes):
        raise SettingsError(
            f"the data has {len(classes)} classes, the network only {wanted} outputs; raise --num-classes"
        )
    return wanted or len(classes)
