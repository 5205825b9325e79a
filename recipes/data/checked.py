"""Which image files have been read and found good: remembered between runs, so that each is checked once.

The file in the user's cache folder is an array of the stamps of ``ImageFiles``, 8 bytes an image. Whatever happens to
it, also its removal, has one effect: images are checked again.
"""

from pathlib import Path

import numpy as np
import platformdirs
from filelock import FileLock

from se_inject.files.atomic import replacing


def cache_path() -> Path:
    """Where the stamps are kept.

    >>> cache_path().name
    'checked-images.bin'
    """
    return platformdirs.user_cache_path("se-inject") / "checked-images.bin"


def known_stamps() -> np.ndarray:
    """The stamps of all images that have been found good, ``(N,)``; none if they cannot be read.

    >>> known_stamps().dtype
    dtype('uint64')
    """
    try:
        return np.fromfile(cache_path(), "<u8").astype("uint64")
    except OSError:
        return np.empty(0, "uint64")


def remember(stamps: np.ndarray) -> None:
    """Add the stamps of images that have been found good; several processes may do so at once.

    Raises ``OSError`` if the folder cannot be written to.

    >>> remember(np.empty(0, "uint64"))
    """
    path = cache_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock"), timeout=60), replacing(path) as temporary:
        np.union1d(known_stamps(), stamps).astype("<u8").tofile(temporary)
