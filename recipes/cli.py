"""What the commands share: flags for data and the run's folder, and errors without a traceback."""

import argparse
import sys
from collections.abc import Callable, Sequence

from se_inject.errors import SEInjectError

from .data import Data, open_data
from .errors import SettingsError
from .unreadable import drop_unreadable


def run_command(main: Callable[[], object]) -> None:
    """Call ``main``; an error that the project raises on purpose ends the program with its message alone.

    >>> run_command(lambda: None)
    """
    try:
        main()
    except SEInjectError as error:
        sys.exit(f"error: {error}")


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that ``data_from_flags`` reads.

    >>> add_data_flags(argparse.ArgumentParser())
    """
    parser.add_argument(
        "--data", help="folder with train/ and val/, or torchvision root with FashionMNIST or CIFAR10 (default: digits)"
    )
    parser.add_argument("--size", type=int, help="side of an input in pixels (default: the data's or the network's)")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    parser.add_argument(
        "--unreadable", choices=["error", "skip"], default="error", help="what to do with images that cannot be read"
    )


def data_from_flags(flags: argparse.Namespace, progress: bool = True, train: bool = True) -> Data:
    """The data that the flags name, every image file checked; without ``train``, images to evaluate on are enough.

    Raises ``DataError``.

    >>> parser = argparse.ArgumentParser()
    >>> add_data_flags(parser)
    >>> len(data_from_flags(parser.parse_args([])).classes)
    10
    """
    return drop_unreadable(open_data(flags.data, train), flags.unreadable, progress)


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
