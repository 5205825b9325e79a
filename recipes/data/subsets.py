"""Parts of the training images: fewer of each class, or some held out to choose settings on."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import DataError, SettingsError
from .datasets import Data


def by_class(labels: Sequence[int]) -> dict[int, np.ndarray]:
    """The images of each class, in their order; in one pass, whatever the number of classes.

    >>> {label: members.tolist() for label, members in by_class([1, 0, 1]).items()}
    {0: [1], 1: [0, 2]}
    """
    array = np.asarray(labels, dtype=np.int64)
    present, starts = np.unique(np.sort(array), return_index=True)
    members = np.split(np.argsort(array, kind="stable"), starts[1:])
    return dict(zip(present.tolist(), members, strict=False))  # without labels, split leaves an empty part


def limit_per_class(data: Data, count: int | None) -> Data:
    """``data`` with only the first ``count`` training images of each class; all of them if ``count`` is ``None``.

    Raises ``SettingsError`` if ``count`` is less than 1.

    >>> from recipes.data import open_data
    >>> len(limit_per_class(open_data(None), 3).train.labels)
    30
    """
    if count is None:
        return data
    if count < 1:
        raise SettingsError(f"at least 1 training image of each class is needed, got {count}")
    first = [i for members in by_class(data.train.labels).values() for i in members[:count].tolist()]
    return replace(data, train=data.train.subset(sorted(first)))


def split(data: Data, fraction: float, seed: int) -> Data:
    """The training images alone, ``fraction`` of each class held out to validate on, drawn by ``seed``.

    For choosing settings without a look at ``data.val``. Of each class at least one image is held out, and one is left.

    Raises ``DataError`` if a class has a single image, ``SettingsError`` unless ``fraction`` is between 0 and 1.

    >>> from recipes.data import open_data
    >>> halves = split(open_data(None), 0.5, seed=0)
    >>> len(halves.train.labels), len(halves.val.labels)
    (674, 673)
    """
    if not 0 < fraction < 1:
        raise SettingsError(f"the fraction to hold out must be between 0 and 1, got {fraction}")
    rng, held_out = np.random.default_rng(seed), np.zeros(len(data.train.labels), dtype=bool)
    for label, members in by_class(data.train.labels).items():
        if len(members) < 2:
            raise DataError(
                f"class {data.classes[label]} has a single training image; one is held out: add images, or remove it"
            )
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out[rng.permutation(members)[:count]] = True
    return replace(
        data,
        train=data.train.subset(np.flatnonzero(~held_out).tolist()),
        val=data.train.subset(np.flatnonzero(held_out).tolist()),
    )
