"""Images to train and evaluate on: a folder tree, a torchvision root, or scikit-learn's digits."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR10, FashionMNIST

from ..errors import DataError
from .folders import ClassFolders, ImageFiles, find_images, read_image


@dataclass(frozen=True)
class Images:
    """Labelled images: ``load(i)`` is the i-th as a PIL image; ``files`` are theirs, where they have any.

    ``digest`` tells these images from others: of pixels, or of the files' names and sizes.
    """

    load: Callable[[int], Image.Image]
    labels: Sequence[int]
    files: ImageFiles | None = None
    digest: str = ""

    def subset(self, keep: Sequence[int]) -> "Images":
        """The images at these places alone.

        >>> Images(lambda i: Image.new("L", (1 + i, 1)), [0, 1, 1]).subset([2]).load(0).size
        (3, 1)
        """
        files = self.files and self.files.subset(keep)
        labels = [self.labels[i] for i in keep]
        return Images(partial(_picked, self.load, keep), labels, files, _digest(self.digest, list(keep)))


def _picked(load: Callable[[int], Image.Image], keep: Sequence[int], i: int) -> Image.Image:
    return load(keep[i])


def _digest(*parts: Any) -> str:
    return hashlib.sha256(
        b"".join(part if isinstance(part, bytes) else repr(part).encode() for part in parts)
    ).hexdigest()


@dataclass(frozen=True)
class Data:
    """Images to train on, images to validate on, the names of their classes, and the side of all images in pixels.

    ``size`` is ``None`` for photographs, which come in any size.
    """

    train: Images
    val: Images
    classes: Sequence[str]
    size: int | None
    name: str


class Augmented(Dataset[tuple[Tensor, int]]):
    """``images`` through ``transform``; item ``(i, position)`` is image ``i``, its randomness seeded by ``position``.

    So an input depends on the run's seed and on its place in the run alone, not on processes, workers or resumption.
    Item ``i``, without a position, is for transforms that draw nothing.

    >>> twice = Augmented(Images(lambda i: Image.new("L", (1, 1)), [7]), lambda image: torch.rand(()), seed=0)
    >>> twice[0, 3] == twice[0, 3], twice[0, 3] == twice[0, 4]
    (True, False)
    """

    def __init__(self, images: Images, transform: Callable[[Any], Tensor], seed: int = 0) -> None:
        self._images, self._transform, self._seed = images, transform, seed

    def __len__(self) -> int:
        return len(self._images.labels)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, int]:
        if not isinstance(item, tuple):
            return self._input(item)
        index, position = item
        generator = torch.default_generator  # torch.manual_seed also sees to all GPUs, 50 times as slowly
        state = generator.get_state()
        try:
            generator.manual_seed(_mixed(self._seed, position))
            return self._input(index)
        finally:
            generator.set_state(state)

    def _input(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._images.load(index)), self._images.labels[index]


def _mixed(seed: int, position: int) -> int:
    # the generator's seeds have 32 bits
    return int.from_bytes(hashlib.blake2b(f"{seed} {position}".encode(), digest_size=4).digest(), "little")


def open_data(root: str | Path | None, train: bool = True) -> Data:
    """The data in ``root``; the digits that come with scikit-learn if it is ``None``.

    ``root`` holds ``train/`` and ``val/`` with a folder of images a class, or is a torchvision root with
    FashionMNIST or CIFAR10 in it. Without ``train``, ``val/`` is enough.

    Raises ``DataError`` if there is no such data, a class has no image, or ``val/`` has other classes than ``train/``.

    >>> data = open_data(None)
    >>> len(data.train.labels), len(data.val.labels), len(data.classes), data.size
    (1347, 450, 10, 8)
    """
    if root is None:
        return _digits()
    try:
        return _in_directory(Path(root), train)
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error}") from error


def _in_directory(root: Path, train: bool) -> Data:
    if not root.is_dir():
        raise DataError(
            f"{root}: there is no such directory; --data needs a folder with train/ and val/, or a torchvision root"
        )
    if (root / "val").is_dir() and ((root / "train").is_dir() or not train):
        return _folders(root, train)
    for kind, folder, size in ((FashionMNIST, "FashionMNIST", 28), (CIFAR10, "cifar-10-batches-py", 32)):
        if (root / folder).is_dir():
            return _torchvision(kind, root, size)
    raise DataError(
        f"{root}: found no train/ and val/, no FashionMNIST/ and no cifar-10-batches-py/ in it; it has "
        f"{', '.join(sorted(path.name for path in root.iterdir())[:5]) or 'nothing'}"
    )


def _digits() -> Data:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).astype("uint8")
    labels = digits.target.tolist()
    both = Images(partial(_from_array, pixels), labels, digest=_digest(pixels.tobytes(), labels))
    train, val = train_test_split(range(len(pixels)), test_size=0.25, random_state=0, stratify=digits.target)
    return Data(
        both.subset(train), both.subset(val), [str(name) for name in digits.target_names], 8, "scikit-learn's digits"
    )


def _from_array(pixels: Any, i: int) -> Image.Image:
    return Image.fromarray(pixels[i])


def _torchvision(kind: Any, root: Path, size: int) -> Data:
    # CIFAR10 comes as pickles; torchvision compares their checksums with the published ones before it opens them
    try:
        splits = [kind(str(root), train=train) for train in (True, False)]
    except Exception as error:  # the readers make all kinds of errors of damaged files
        raise DataError(f"{root}: {kind.__name__} is incomplete or damaged: {error}") from error
    parts = []
    for split in splits:
        labels, pixels = [int(label) for label in split.targets], np.asarray(split.data)
        if len(labels) != len(pixels) or not {*labels} <= {*range(len(split.classes))}:
            raise DataError(f"{root}: {kind.__name__} is damaged: its labels do not fit its images or classes")
        parts.append(Images(partial(_first, split), labels, digest=_digest(pixels.tobytes(), labels)))
    return Data(parts[0], parts[1], splits[0].classes, size, kind.__name__)


def _first(pairs: Any, i: int) -> Image.Image:
    image: Image.Image = pairs[i][0]
    return image


def _folders(root: Path, train: bool) -> Data:
    found = find_images(root / "val")
    val, classes = _from_files(found), found.classes
    if not train:
        return Data(val.subset([]), val, classes, None, root.name)
    found = find_images(root / "train")
    if differ := sorted({*found.classes} ^ {*classes}):
        raise DataError(
            f"{root}: train/ and val/ must have the same class folders; only one has {', '.join(differ[:5])}"
        )
    return Data(_from_files(found), val, classes, None, root.name)


def _from_files(found: ClassFolders) -> Images:
    return Images(partial(_read, found.files.paths), found.labels, found.files, found.digest)


def _read(paths: Sequence[str], i: int) -> Image.Image:
    return read_image(paths[i])


def check_enough(data: Data, processes: int = 1) -> None:
    """Raise ``DataError`` if there is one class only or a class without images to train on, or too few to validate on.

    Each process needs one image to validate on. Data that were opened without images to train on are for validation
    alone.

    >>> check_enough(open_data(None))
    """
    count = Counter(data.train.labels)
    if count and len(data.classes) < 2:
        raise DataError(f"{data.classes[0]} is the only class, so there is nothing to learn; add folders of others")
    empty = [name for label, name in enumerate(data.classes) if not count[label]]
    if count and empty:
        raise DataError(f"no image to train on in class {', '.join(empty[:5])}; add images or remove the class folder")
    if len(data.val.labels) < processes:
        raise DataError(f"{len(data.val.labels)} images to validate on are too few for {processes} process(es)")
