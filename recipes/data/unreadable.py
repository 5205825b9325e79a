"""Finding the images that cannot be read, before any time is spent on training."""

import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from tqdm import tqdm

from ..errors import DataError
from .checked import cache_path, known_stamps, remember
from .datasets import Data, Images, check_enough
from .folders import ImageFiles, read_image

Unreadable = Literal["error", "skip", "unchecked"]
_BLOCK = 50_000  # images; a check that is killed goes on from the last block


def drop_unreadable(data: Data, unreadable: Unreadable, accelerator: Accelerator) -> Data:
    """``data`` without the image files that cannot be read, each of which is named, or an error that names them.

    Every file is decoded once, by one of the processes, at a low resolution where the format allows it; the good ones
    are remembered in ``checked.cache_path()`` until they change. ``"unchecked"`` decodes none, and is an error only for
    what is not a file.

    Raises ``DataError``, also if too few images are left.

    >>> from recipes.data import open_data
    >>> data = open_data(None)
    >>> drop_unreadable(data, "error", Accelerator()) is data  # no files
    True
    """
    check_enough(data, accelerator.num_processes)
    images = {"train": data.train, "val": data.val}
    problems = {name: _check(name, images[name], unreadable, accelerator) for name in images}
    lines = [found[i] for found in problems.values() for i in sorted(found)]
    if not lines:
        return data
    if unreadable != "skip":
        more = f"\nand {len(lines) - 20} more" if len(lines) > 20 else ""
        raise DataError(
            f"{len(lines)} image(s) cannot be read; repair or remove them, or skip them with --unreadable skip:\n"
            + "\n".join(lines[:20])
            + more
        )
    for line in lines if accelerator.is_main_process else ():
        tqdm.write(f"skipped: {line}", file=sys.stderr)
    train, val = (_without(images[name], problems[name]) for name in images)
    if data.train.labels and not train.labels:
        raise DataError("no image to train on can be read")
    left = replace(data, train=train, val=val)
    check_enough(left, accelerator.num_processes)
    return left


def _check(name: str, images: Images, unreadable: Unreadable, accelerator: Accelerator) -> dict[int, str]:
    """What is wrong with each image that cannot be read, by its place; the same in all processes."""
    problems: dict[int, str] = {}
    if images.files is None:
        return problems
    main = accelerator.is_main_process
    (pending,) = broadcast_object_list([_pending(images.files, unreadable) if main else None])  # one cache decides
    with tqdm(total=len(pending), desc=f"check {name} images", disable=not (main and len(pending))) as bar:
        for block in np.array_split(pending, len(pending) // _BLOCK + 1):
            mine = block[accelerator.process_index :: accelerator.num_processes]
            found = dict(gather_object(list(_problems(images.files, mine, bar, accelerator.num_processes))))
            if main:
                _remember(images.files.stamps[np.setdiff1d(block, list(found))])
            problems |= found
    return problems


def _without(images: Images, problems: dict[int, str]) -> Images:
    return images.subset([i for i in range(len(images.labels)) if i not in problems]) if problems else images


def _pending(files: ImageFiles, unreadable: Unreadable) -> np.ndarray:
    unknown = files.stamps == 0 if unreadable == "unchecked" else ~np.isin(files.stamps, known_stamps())
    return np.flatnonzero(unknown)


def _problems(files: ImageFiles, places: np.ndarray, bar: Any, processes: int) -> Iterator[tuple[int, str]]:
    with ThreadPool(max(1, joblib.cpu_count() // processes)) as pool:
        found = pool.imap(_problem, (files.paths[i] for i in places), chunksize=16)
        for i, problem in zip(places.tolist(), found, strict=True):
            bar.update(processes)  # the others are as far
            if problem:
                yield i, problem


def _problem(path: str) -> str:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # to open a named pipe would be to wait for ever
            return f"{path}: cannot be read (not a file)"
        read_image(path, size=64)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    except DataError as error:
        return str(error)
    return ""


def _remember(stamps: np.ndarray) -> None:
    if not len(stamps):
        return
    try:
        remember(stamps[stamps != 0])
    except OSError as error:
        tqdm.write(f"{cache_path()}: these images will be checked again next time ({error})", file=sys.stderr)
