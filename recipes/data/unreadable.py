"""Finding the images that cannot be read, before any time is spent on training."""

from dataclasses import replace
from multiprocessing.pool import ThreadPool
from typing import Literal

from accelerate import Accelerator
from accelerate.utils import gather_object
from PIL import Image
from tqdm import tqdm

from ..errors import DataError
from .datasets import Data, Images, check_enough


def drop_unreadable(data: Data, unreadable: Literal["error", "skip"], accelerator: Accelerator) -> Data:
    """``data`` without the image files that cannot be read, each of which is named, or an error that names them.

    Every file is decoded once, by one of the processes, at a low resolution where the format allows it.

    Raises ``DataError``.

    >>> from recipes.data import open_data
    >>> data = open_data(None)
    >>> drop_unreadable(data, "error", Accelerator()) is data  # no files
    True
    """
    train = _readable(data.train, "train", unreadable, accelerator)
    val = _readable(data.val, "val", unreadable, accelerator)
    left = data if train is data.train and val is data.val else replace(data, train=train, val=val)
    if data.train.labels and not left.train.labels:
        raise DataError("no image to train on can be read")
    check_enough(left, accelerator.num_processes)
    return left


def _readable(images: Images, name: str, unreadable: str, accelerator: Accelerator) -> Images:
    if not images.files:
        return images
    main, files = accelerator.is_main_process, images.files
    share = range(accelerator.process_index, len(files), accelerator.num_processes)
    with ThreadPool() as pool:
        found = pool.imap(lambda i: (i, _problem(files[i])), share, chunksize=16)
        mine = [one for one in tqdm(found, f"check {name} images", len(share), disable=not main) if one[1]]
    problems = sorted(gather_object(mine))
    if not problems:
        return images
    lines = [f"{files[i]}: {problem}" for i, problem in problems]
    if unreadable == "error":
        more = f"\nand {len(lines) - 20} more" if len(lines) > 20 else ""
        raise DataError(
            f"{len(lines)} image(s) cannot be read; repair or remove them, or skip them with --unreadable skip:\n"
            + "\n".join(lines[:20])
            + more
        )
    for line in lines if main else ():
        tqdm.write(f"skipped: {line}")
    bad = {i for i, _ in problems}
    return images.subset([i for i in range(len(files)) if i not in bad])


def _problem(file: str) -> str:
    try:
        with Image.open(file) as image:
            image.draft("RGB", (64, 64))
            image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
