"""Finding the images that cannot be read, before any time is spent on training."""

from dataclasses import replace
from typing import Literal

from PIL import Image
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from .data import Data, Images, check_classes
from .errors import DataError


def drop_unreadable(data: Data, unreadable: Literal["error", "skip"], progress: bool = True) -> Data:
    """``data`` without the image files that cannot be read, each of which is named, or an error that names them.

    Every file is decoded once, at a low resolution where the format allows it.

    Raises ``DataError``.

    >>> from recipes.data import open_data
    >>> data = open_data(None)
    >>> drop_unreadable(data, "error") is data  # no files
    True
    """
    train = _readable(data.train, "train", unreadable, progress)
    val = _readable(data.val, "val", unreadable, progress)
    if train is data.train and val is data.val:
        return data
    left = replace(data, train=train, val=val)
    if data.train.labels:
        check_classes(left)
    return left


def _readable(images: Images, name: str, unreadable: str, progress: bool) -> Images:
    if not images.files:
        return images
    problems = thread_map(
        _problem, images.files, desc=f"check {name} images", disable=not progress, unit="image", chunksize=1
    )
    bad = [f"{file}: {problem}" for file, problem in zip(images.files, problems, strict=True) if problem]
    if not bad:
        return images
    if unreadable == "error":
        more = f"\nand {len(bad) - 20} more" if len(bad) > 20 else ""
        raise DataError(
            f"{len(bad)} image(s) cannot be read; mend or remove them, or skip them with --unreadable skip:\n"
            + "\n".join(bad[:20])
            + more
        )
    for line in bad if progress else ():
        tqdm.write(f"skipped: {line}")
    return images.subset([i for i, problem in enumerate(problems) if not problem])


def _problem(file: str) -> str:
    try:
        with Image.open(file) as image:
            image.draft("RGB", (64, 64))
            image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
