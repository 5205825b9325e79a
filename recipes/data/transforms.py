"""What happens to an image on its way into a network, in training and in evaluation."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import psutil
import torch
from torch import Tensor
from torchvision.transforms import v2

from ..errors import SettingsError

Augmentation = Literal["paper", "small", "randaugment", "none"]
SMALLEST = 8  # pixels a side of an input, as scikit-learn's digits have
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as timm and torchvision have them


@dataclass(frozen=True)
class Preprocess:
    """How images become inputs: ``size`` pixels a side, cut from one whose shorter edge is ``resize``, normalized.

    Raises ``SettingsError`` if ``size`` is less than ``SMALLEST``.
    """

    size: int
    resize: int
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.size < SMALLEST:
            raise SettingsError(f"inputs of {self.size} pixels show nothing; choose a --size of at least {SMALLEST}")

    def at(self, size: int, native: bool) -> "Preprocess":
        """The same for another ``size``, of images that all have that size (``native``), or of photographs.

        >>> Preprocess(224, 256).at(320, native=False).resize
        352
        """
        return replace(self, size=size, resize=size if native else shorter_edge(size))

    def training(self, augmentation: Augmentation) -> v2.Compose:
        """From a PIL image to a random input ``(3, size, size)``.

        ``"paper"``: mirror, crop of 8-100 % of the area with aspect 3/4-4/3, rotation by up to 10 degrees, pixel jitter
        of up to 20 grey levels (the authors' list, https://github.com/hujie-frank/SENet). ``"small"``: mirror, and crop
        after padding by an eighth, 4 of 32 pixels, as in the paper's CIFAR experiments (section 5.1).
        ``"randaugment"``: the same crop and mirror as ``"paper"``, then two random operations (Cubuk et al., 2020).
        ``"none"``: the centre crop, as in evaluation.

        >>> from PIL import Image
        >>> Preprocess(32, 32).training("paper")(Image.new("L", (40, 30))).shape
        torch.Size([3, 32, 32])
        """
        mirror, filter_ = v2.RandomHorizontalFlip(), v2.InterpolationMode(self.interpolation)
        crop = v2.RandomResizedCrop(self.size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation=filter_)
        padded_crop = v2.RandomCrop(self.size, padding=max(1, round(self.size / 8)))
        rotation = v2.RandomRotation(10, v2.InterpolationMode.BILINEAR)
        steps = {
            "paper": [crop, mirror, rotation, v2.ToImage(), PixelJitter(20)],
            "small": [v2.Resize((self.size, self.size), filter_), padded_crop, mirror, v2.ToImage()],
            "randaugment": [crop, mirror, v2.RandAugment(), v2.ToImage()],
            "none": [v2.Resize(self.resize, filter_), v2.CenterCrop(self.size), v2.ToImage()],
        }
        return v2.Compose([v2.RGB(), *steps[augmentation], *self._normalize()])

    def evaluation(self, ten_crop: bool = False, flip: bool = False) -> v2.Compose:
        """From a PIL image to its crops ``(crops, 3, size, size)``: the centre alone, with its mirror image, or ten.

        Ten crops are the corners and the centre, and all of them mirrored, with ``flip`` or without.

        >>> from PIL import Image
        >>> Preprocess(224, 256).evaluation(ten_crop=True)(Image.new("RGB", (300, 500))).shape
        torch.Size([10, 3, 224, 224])
        """
        resize = v2.Resize(self.resize, v2.InterpolationMode(self.interpolation))
        crop = v2.TenCrop(self.size) if ten_crop else v2.CenterCrop(self.size)
        mirrored = [_WithMirrored()] if flip and not ten_crop else []
        return v2.Compose([v2.RGB(), resize, crop, v2.ToImage(), _Stack(), *mirrored, *self._normalize()])

    def _normalize(self) -> list[v2.Transform]:
        return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(self.mean, self.std)]


class PixelJitter(v2.Transform):  # type: ignore[misc]
    """Add to each colour channel of a uint8 image ``(3, H, W)`` a value drawn from ``-amount`` to ``amount``.

    >>> PixelJitter(0)(torch.full((3, 1, 1), 9, dtype=torch.uint8)).flatten().tolist()
    [9, 9, 9]
    """

    def __init__(self, amount: int) -> None:
        super().__init__()
        self.amount = amount

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Tensor]:
        """One shift a channel, ``(3, 1, 1)``.

        >>> PixelJitter(20).make_params([])["shift"].shape
        torch.Size([3, 1, 1])
        """
        return {"shift": torch.randint(-self.amount, self.amount + 1, (3, 1, 1), dtype=torch.int16)}

    def transform(self, inpt: Any, params: dict[str, Tensor]) -> Any:
        """The shifted image, clipped to 0 ... 255.

        >>> PixelJitter(20).transform(torch.zeros(3, 1, 1, dtype=torch.uint8), {"shift": torch.tensor(-5)}).max()
        tensor(0, dtype=torch.uint8)
        """
        return (inpt.to(torch.int16) + params["shift"]).clamp(0, 255).to(torch.uint8)


class _Stack(torch.nn.Module):
    def forward(self, crops: Any) -> Tensor:
        return torch.stack(list(crops) if isinstance(crops, tuple) else [crops])


class _WithMirrored(torch.nn.Module):
    def forward(self, crops: Tensor) -> Tensor:
        return torch.cat([crops, crops.flip(-1)])


# The paper's protocols (section 5.1): shorter edge for a crop. For 320 it prints none.
_RESIZE = {224: 256, 299: 352, 320: 352}


def check_memory(batch: int, size: int) -> None:
    """Raise ``SettingsError`` if ``batch`` inputs of ``size`` pixels a side are more than this machine can hold.

    >>> check_memory(128, 100_000)
    Traceback (most recent call last):
    ...
    recipes.errors.SettingsError: 128 inputs of 100000 pixels a side take 14,305 GiB, more than this machine's ...
    """
    needed, memory = batch * 3 * size**2 * 4 / 2**30, psutil.virtual_memory().total / 2**30
    if needed > memory:
        raise SettingsError(
            f"{batch} inputs of {size} pixels a side take {needed:,.0f} GiB, more than this machine's {memory:,.0f} "
            "GiB of memory; choose a smaller --size, or a smaller --device-batch in training"
        )


def shorter_edge(size: int) -> int:
    """The shorter edge that an image has before its centre crop of ``size`` pixels, by the paper's protocols.

    >>> shorter_edge(224), shorter_edge(112)
    (256, 128)
    """
    return _RESIZE.get(size, round(size * 256 / 224))
