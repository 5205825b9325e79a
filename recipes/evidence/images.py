"""Small images as tensors in memory, and batches of them made ready for a network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate, pad

from .corruptions import CORRUPTIONS, Corruption

_SHIFT = 2  # pixels, at most, in augmentation


@dataclass(frozen=True)
class Domain:
    """What images of one origin have in common.

    ``mirrored`` tells whether a mirrored image is of the same class. With a ``corruption``, images are kept clean, and
    get it when they are used, drawn anew each time.
    """

    name: str
    mirrored: bool
    corruption: str = ""


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images: ``pixels`` are uint8 ``(N, 1 or 3, H, W)``, ``labels`` and ``domains`` int64 ``(N,)``.

    Image ``i`` is of the domain ``kinds[domains[i]]``.

    >>> digit = Domain("digits", mirrored=False)
    >>> images = Images(torch.zeros(3, 1, 28, 28).byte(), torch.arange(3), torch.zeros(3).long(), (digit,))
    >>> images.subset(torch.tensor([2, 0])).labels
    tensor([2, 0])
    """

    pixels: Tensor
    labels: Tensor
    domains: Tensor
    kinds: tuple[Domain, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Images":
        """The same on a device."""
        return Images(self.pixels.to(device), self.labels.to(device), self.domains.to(device), self.kinds)

    def subset(self, indices: Tensor) -> "Images":
        """The images at these places ``(n,)``, or where a mask ``(N,)`` is true."""
        return Images(self.pixels[indices], self.labels[indices], self.domains[indices], self.kinds)

    def corrupted(self, corruption: Corruption, seed: int = 0) -> "Images":
        """The same with a corruption in their pixels, drawn by the seed.

        >>> from recipes.evidence.corruptions import UNSEEN
        >>> black = Images(torch.zeros(1, 1, 8, 8).byte(), torch.zeros(1).long(), torch.zeros(1).long(), ())
        >>> black.corrupted(UNSEEN["brightness"]).pixels.max()
        tensor(76, dtype=torch.uint8)
        """
        generator = Generator(self.pixels.device).manual_seed(seed)
        parts = [
            corruption(part.float() / 255, generator).mul(255).round().byte() for part in torch.split(self.pixels, 1000)
        ]
        return replace(self, pixels=torch.cat(parts))

    def settled(self, seed: int = 0) -> "Images":
        """The same with the corruptions of their domains in their pixels, drawn once, by the seed."""
        pixels = self.pixels.clone()
        for mask, kind in _corruptions(self):
            pixels[mask] = self.subset(mask).corrupted(CORRUPTIONS[kind], seed).pixels
        return replace(self, pixels=pixels, kinds=tuple(replace(kind, corruption="") for kind in self.kinds))


def prepare(
    images: Images, size: int, mean: Sequence[float], std: Sequence[float], augment: Generator | None = None
) -> Tensor:
    """Inputs ``(N, 3, size, size)`` of a network, on the images' device.

    With a generator, which is on that device too, images are mirrored at random, where that leaves the class, shifted
    by up to 2 pixels, and corrupted anew. Without, they are as they are kept: those whose domains have corruptions are
    clean, unless they are ``settled()``.

    >>> images = Images(torch.full((2, 1, 28, 28), 255).byte(), torch.arange(2), torch.zeros(2).long(), ())
    >>> inputs = prepare(images, 64, mean=(0.5,) * 3, std=(0.5,) * 3)
    >>> inputs.shape, inputs.unique()
    (torch.Size([2, 3, 64, 64]), tensor([1.]))
    """
    values = images.pixels.float() / 255
    if augment is not None:
        values = _shifted(_mirrored(values, images, augment), augment)
        for mask, kind in _corruptions(images):
            values[mask] = CORRUPTIONS[kind](values[mask], augment)
    if size != values.shape[-1]:
        values = interpolate(values, (size, size), mode="bilinear", antialias=size < values.shape[-1])
    centre, scale = (torch.tensor(value, device=values.device).view(3, 1, 1) for value in (mean, std))
    return (values - centre) / scale


def _mirrored(values: Tensor, images: Images, generator: Generator) -> Tensor:
    allowed = torch.tensor([kind.mirrored for kind in images.kinds], device=values.device)[images.domains]
    chosen = allowed & (torch.rand(len(images), generator=generator, device=values.device) < 0.5)
    return torch.where(chosen[:, None, None, None], values.flip(-1), values)


def _shifted(values: Tensor, generator: Generator) -> Tensor:
    """Each image moved by as many pixels as are drawn for it; black comes in at the border."""
    count, channels, height, width = values.shape
    down, right = torch.randint(2 * _SHIFT + 1, (2, count, 1), generator=generator, device=values.device)
    rows = (down + torch.arange(height, device=values.device))[:, None, :, None]
    columns = (right + torch.arange(width, device=values.device))[:, None, None, :]
    which = torch.arange(count, device=values.device)[:, None, None, None]
    channel = torch.arange(channels, device=values.device)[:, None, None]
    return pad(values, [_SHIFT] * 4)[which, channel, rows, columns]


def _corruptions(images: Images) -> list[tuple[Tensor, str]]:
    """For each corruption of a domain, which images are of it, and its name."""
    return [(images.domains == i, kind.corruption) for i, kind in enumerate(images.kinds) if kind.corruption]
