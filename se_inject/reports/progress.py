"""A bar on what takes long, where tqdm is installed."""

from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str) -> Iterable[Item]:
    """The items, with a bar on a terminal once they take more than a second.

    >>> list(progress([1, 2], "measure"))
    [1, 2]
    """
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    bar: Iterable[Item] = tqdm(items, what, leave=False, disable=None, delay=1)
    return bar
