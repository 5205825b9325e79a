"""Labelled images for ``--activations``: a folder with one of each class, or what a function returns."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InvalidArgumentError, first_line
from .models import called, place

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
Labelled = tuple[Iterable[tuple[Any, Any]], Sequence[str] | None]


def labelled(data: str, model: nn.Module, size: tuple[int, ...]) -> Labelled:
    """Batches of ``(images, labels)``, with the names of the classes where they are known.

    ``size`` is that of the model's images, whose centre is taken as the paper does it. Raises ``InvalidArgumentError``.
    """
    if Path(data).is_dir():
        return _in_folder(Path(data), model, size)
    if ":" not in data:
        raise InvalidArgumentError(f"{data}: is no folder of images, nor a function package.module:function")
    found = called(data)
    batches, classes = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    return _told(data, batches), classes


def _told(data: str, batches: Any) -> Any:
    """The batches, with an error that says whose they are where the user's code, or an image, fails."""
    if not isinstance(batches, Iterable):
        return batches  # which activations() refuses

    def batches_or_error() -> Iterator[Any]:
        try:
            yield from batches
        except (Exception, SystemExit) as error:  # the user's code
            raise InvalidArgumentError(f"{data}: fails: {first_line(error)}{place(error)}") from error

    return batches_or_error()


def _in_folder(folder: Path, model: nn.Module, size: tuple[int, ...]) -> Labelled:
    try:
        from torchvision import datasets, transforms
    except ImportError as error:
        raise InvalidArgumentError(f"{folder}: images need torchvision: pip install torchvision") from error
    from torch.utils.data import DataLoader

    config = _IMAGENET | getattr(model, "pretrained_cfg", {})  # timm's models say what they were trained with
    steps = [
        transforms.Resize(round(min(size) / 0.875)),
        transforms.CenterCrop(size),
        transforms.ToTensor(),
        transforms.Normalize(config["mean"], config["std"]),
    ]
    try:
        images = datasets.ImageFolder(folder, transforms.Compose(steps))
    except (FileNotFoundError, OSError) as error:
        raise InvalidArgumentError(f"{folder}: {error}") from error
    return _told(str(folder), DataLoader(images, batch_size=32)), images.classes
