"""Photographs in folders: the image files that there are, and what is in one."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from ..errors import DataError

# where Pillow keeps the tags of a file, but for TIFF, which it turns itself
_WITH_ORIENTATION = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}

_THINNEST = 200  # one edge by the other; as a short edge of 256 pixels, others would take gigabytes


@dataclass(frozen=True)
class ImageFiles:
    """Paths of image files, and a stamp of each that changes when the file does; 0 for what is not a file.

    ``stamps`` are 64-bit digests ``(N,)`` of path, size and time of the last change, and of Pillow's version.
    """

    paths: Sequence[str]
    stamps: np.ndarray

    def subset(self, keep: Sequence[int]) -> "ImageFiles":
        """The files at these places alone.

        >>> ImageFiles(["a.png", "b.png"], np.array([3, 4], "uint64")).subset([1]).paths
        ['b.png']
        """
        return ImageFiles([self.paths[i] for i in keep], self.stamps[np.asarray(keep, dtype=np.int64)])


@dataclass(frozen=True)
class ClassFolders:
    """The image files in a folder for each class; ``digest`` is of their names and sizes, wherever they lie."""

    classes: list[str]
    labels: list[int]
    files: ImageFiles
    digest: str


def find_images(root: Path) -> ClassFolders:
    """All files in ``root/CLASS/``, and in folders in it, whose name ends as an image's; hidden ones are left out.

    Classes and files come in the order of their names. Everything with such a name is listed, also what cannot be read.

    Raises ``DataError`` if there is no class, or a class has no image, ``OSError`` if a folder cannot be read.

    >>> find_images(Path(__file__).parent.parent)
    Traceback (most recent call last):
    ...
    recipes.errors.DataError: ...: no image in commands, data, ...
    """
    root = root.absolute()
    classes = sorted(entry.name for entry in os.scandir(root) if _is_class(entry))
    labels, paths, stamps, sizes = [], [], [], []
    for label, name in enumerate(tqdm(classes, f"list {root.name} images", unit="class", delay=2, leave=False)):
        for entry in _images(str(root / name), {root.resolve(), (root / name).resolve()}):
            size, stamp = _size_and_stamp(entry)
            labels.append(label)
            paths.append(entry.path)
            stamps.append(stamp)
            sizes.append((root.name + entry.path[len(str(root)) :].replace(os.sep, "/"), size))
    if empty := [classes[label] for label in sorted(set(range(len(classes))) - set(labels))]:
        endings = ", ".join(IMG_EXTENSIONS)
        raise DataError(
            f"{root}: no image in {', '.join(empty[:5])}; add files that end in one of {endings}, or remove the folder"
        )
    if not classes:
        raise DataError(f"{root}: has no folder of images; it needs one for each class")
    digest = hashlib.sha256(repr(sizes).encode()).hexdigest()
    return ClassFolders(classes, labels, ImageFiles(paths, np.array(stamps, dtype="uint64")), digest)


def _is_class(entry: os.DirEntry[str]) -> bool:
    # a link to nothing counts, so that reading it fails: a class must not be missed
    return not entry.name.startswith(".") and (entry.is_dir() or not Path(entry.path).exists())


def _images(folder: str, above: set[Path]) -> Iterator[os.DirEntry[str]]:
    """``above``: the folders on the way here, lest a link among them leads in circles."""
    folders = []
    for entry in sorted(os.scandir(folder), key=attrgetter("name")):
        if entry.name.startswith("."):
            continue
        if entry.name.lower().endswith(IMG_EXTENSIONS):
            yield entry
        elif entry.is_dir():
            folders.append(entry.path)
    for path in folders:
        real = Path(path).resolve()
        if real not in above:
            yield from _images(path, above | {real})


def _size_and_stamp(entry: os.DirEntry[str]) -> tuple[int, int]:
    with suppress(OSError):  # such as a link to nothing
        status = entry.stat()
        if stat.S_ISREG(status.st_mode):
            text = f"{PIL.__version__}|{entry.path}|{status.st_size}|{status.st_mtime_ns}"
            digest = hashlib.blake2b(os.fsencode(text), digest_size=8).digest()
            return status.st_size, int.from_bytes(digest, "little")
    return -1, 0


def read_image(path: str, size: int | None = None) -> Image.Image:
    """The photograph in a file, 8-bit RGB, upright as its EXIF tag says; of animations the first picture.

    torchvision's ``ImageFolder`` leaves photographs lying, and makes 16-bit images all white. Transparency is dropped,
    as there. With ``size``, a JPEG is decoded, whole, at the lowest resolution that is not less, which is faster.

    Raises ``DataError`` if the file cannot be read.

    >>> read_image(__file__)
    Traceback (most recent call last):
    ...
    recipes.errors.DataError: ...folders.py: cannot be read (UnidentifiedImageError: ...)
    """
    try:
        with Image.open(path) as image:
            if max(image.size) > _THINNEST * min(image.size):
                raise ValueError(f"{image.width} x {image.height} pixels are too thin to be cut to a square")
            if size:
                image.draft("RGB", (size, size))
            image.load()
            if image.info.keys() & _WITH_ORIENTATION:
                with suppress(Exception):  # damaged tags leave the pixels good
                    ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)
    except Exception as error:  # damaged files make Pillow's readers raise all kinds
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error


def _rgb(image: Image.Image) -> Image.Image:
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")  # which Pillow scales
    if image.mode in ("I", "F") and not is_16_bit:
        raise ValueError("32-bit grey levels, whose white is not known")
    if is_16_bit:
        return Image.fromarray((np.asarray(image) >> 8).astype("uint8")).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # as Pillow asks for
    return image if image.mode == "RGB" else image.convert("RGB")
