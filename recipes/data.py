"""Images to train and evaluate on: a folder tree, a torchvision root, or scikit-learn's digits."""

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
from torchvision.datasets import CIFAR10, FashionMNIST, ImageFolder

from .errors import DataError


@dataclass(frozen=True)
class Images:
    """Labelled images: ``load(i)`` is the i-th as a PIL image; ``files`` are their paths, where they have any."""

    load: Callable[[int], Image.Image]
    labels: Sequence[int]
    files: Sequence[str] | None = None

    def subset(self, keep: Sequence[int]) -> "Images":
        """The images at these places alone.

        >>> Images(lambda i: Image.new("L", (1 + i, 1)), [0, 1, 1]).subset([2]).load(0).size
        (3, 1)
        """
        files = None if self.files is None else [self.files[i] for i in keep]
        return Images(lambda i: self.load(keep[i]), [self.labels[i] for i in keep], files)


@dataclass(frozen=True)
class Data:
    """Images to train on, images to validate on, the names of their classes, and the side of all images in pixels.

    ``size`` is ``None`` for photographs, which come in any size.
    """

    train: Images
    val: Images
    classes: Sequence[str]
    size: int | None


class Augmented(Dataset[tuple[Tensor, int]]):
    """``images`` through ``transform``; item ``(i, position)`` is image ``i``, its randomness seeded by ``position``.

    So an input depends on the run's seed and on its place in the run alone, not on processes, workers or resumption.

    >>> twice = Augmented(Images(lambda i: Image.new("L", (1, 1)), [7]), lambda image: torch.rand(()), seed=0)
    >>> twice[0, 3] == twice[0, 3], twice[0, 3] == twice[0, 4]
    (True, False)
    """

    def __init__(self, images: Images, transform: Callable[[Any], Tensor], seed: int = 0) -> None:
        self._images, self._transform, self._seed = images, transform, seed

    def __len__(self) -> int:
        return len(self._images.labels)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, int]:
        index, position = item if isinstance(item, tuple) else (item, 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence((self._seed, position)).generate_state(1)[0]))
            return self._transform(self._images.load(index)), self._images.labels[index]


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
    root = Path(root)
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
    both = Images(lambda i: Image.fromarray(pixels[i]), digits.target.tolist())
    train, val = train_test_split(range(len(pixels)), test_size=0.25, random_state=0, stratify=digits.target)
    return Data(both.subset(train), both.subset(val), [str(name) for name in digits.target_names], 8)


def _torchvision(kind: Any, root: Path, size: int) -> Data:
    # CIFAR10 comes as pickles; torchvision compares their checksums with the published ones before it opens them
    try:
        splits = [kind(str(root), train=train) for train in (True, False)]
    except RuntimeError as error:
        raise DataError(f"{root}: {kind.__name__} is incomplete or damaged: {error}") from error
    train, val = (Images(partial(_first, split), [int(t) for t in split.targets]) for split in splits)
    return Data(train, val, splits[0].classes, size)


def _first(pairs: Any, i: int) -> Image.Image:
    image: Image.Image = pairs[i][0]
    return image


def _folders(root: Path, train: bool) -> Data:
    splits = {}
    for name in ("train", "val") if train else ("val",):
        try:
            splits[name] = ImageFolder(str(root / name))
        except FileNotFoundError as error:
            raise DataError(f"{root / name}: {error}") from error
    classes = splits["val"].classes
    if train and splits["train"].classes != classes:
        differ = sorted(set(splits["train"].classes) ^ set(classes))
        raise DataError(
            f"{root}: train/ and val/ must have the same class folders; only one has {', '.join(differ[:5])}"
        )
    images = {
        name: Images(partial(_first, split), split.targets, [path for path, _ in split.samples])
        for name, split in splits.items()
    }
    return Data(images.get("train", Images(images["val"].load, [], [])), images["val"], classes, None)


def check_classes(data: Data) -> None:
    """Raise ``DataError`` if a class has no image left to train on, or there is none to validate on.

    >>> check_classes(open_data(None))
    """
    count = Counter(data.train.labels)
    empty = [name for label, name in enumerate(data.classes) if not count[label]]
    if empty:
        raise DataError(f"no image to train on in class {', '.join(empty[:5])}; add images or remove the class folder")
    if not data.val.labels:
        raise DataError("no image to validate on")
