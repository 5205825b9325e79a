"""Corruptions of images: five to train on, and five others that are kept for testing.

The idea and the groups (noise, blur, weather, digital) are those of ImageNet-C (Hendrycks, Dietterich, "Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019), with severities for images of 28 pixels.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d, interpolate
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2

Corruption = Callable[[Tensor, Generator], Tensor]  # images (N, C, H, W) from 0 to 1, and what it draws from, there too


def noise(images: Tensor, generator: Generator) -> Tensor:
    """Gaussian noise, of a standard deviation between 0.1 and 0.4 an image.

    >>> noise(torch.zeros(2, 1, 8, 8), Generator().manual_seed(0)).max() > 0
    tensor(True)
    """
    deviation = _uniform(images, generator, 0.1, 0.4)
    drawn = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + deviation * drawn).clamp(0, 1)


def blur(images: Tensor, generator: Generator) -> Tensor:
    """Gaussian blur, of a standard deviation between 0.8 and 2 pixels an image.

    torchvision has one for the whole batch. Rows and columns are blurred by a matrix of weights each; at the border
    these are shared out among the pixels that there are.

    >>> blur(torch.ones(2, 1, 8, 8), Generator().manual_seed(0)).allclose(torch.ones(2, 1, 8, 8))
    True
    """
    deviation = _uniform(images, generator, 0.8, 2.0)
    rows, columns = (_gaussian(size, deviation) for size in images.shape[-2:])
    return rows @ images @ columns.mT


def low_contrast(images: Tensor, generator: Generator) -> Tensor:
    """Between 0.1 and 0.4 of each image's contrast, around its mean.

    >>> low_contrast(torch.eye(8).expand(2, 1, 8, 8), Generator().manual_seed(0)).amax() < 0.6
    tensor(True)
    """
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, _uniform(images, generator, 0.1, 0.4))


def inversion(images: Tensor, generator: Generator) -> Tensor:
    """The negative.

    >>> inversion(torch.zeros(1, 1, 1, 2), Generator())
    tensor([[[[1., 1.]]]])
    """
    inverted: Tensor = v2.invert(images)
    return inverted


def occlusion(images: Tensor, generator: Generator) -> Tensor:
    """A grey square, of a side between 0.3 and 0.5 of the image's, somewhere in each image.

    torchvision erases the same square in the whole batch.

    >>> (occlusion(torch.zeros(1, 1, 28, 28), Generator().manual_seed(0)) == 0.5).sum() > 64
    tensor(True)
    """
    share = _uniform(images, generator, 0.3, 0.5)
    height, width = images.shape[-2:]
    rows, columns = (
        _covered(size, share.view(-1), _uniform(images, generator, 0, 1).view(-1)) for size in (height, width)
    )
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.5)


CORRUPTIONS: dict[str, Corruption] = {
    "noise": noise,
    "blur": blur,
    "low contrast": low_contrast,
    "inversion": inversion,
    "occlusion": occlusion,
}


def impulse_noise(images: Tensor, generator: Generator) -> Tensor:
    """One pixel in ten black or white.

    >>> impulse_noise(torch.full((1, 1, 28, 28), 0.5), Generator().manual_seed(0)).unique()
    tensor([0.0000, 0.5000, 1.0000])
    """
    drawn = torch.rand(images.shape, generator=generator, device=images.device)
    return images.masked_fill(drawn < 0.05, 0).masked_fill(drawn > 0.95, 1)


def rotation(images: Tensor, generator: Generator) -> Tensor:
    """20 degrees, anticlockwise.

    >>> rotation(torch.ones(1, 1, 28, 28), Generator())[0, 0, 0, 0]
    tensor(0.)
    """
    rotated: Tensor = v2.rotate(images, 20, InterpolationMode.BILINEAR)
    return rotated


def brightness(images: Tensor, generator: Generator) -> Tensor:
    """Each pixel brighter by 0.3.

    >>> brightness(torch.zeros(1, 1, 1, 1), Generator()).item()
    0.30...
    """
    return (images + 0.3).clamp(max=1)


def pixelation(images: Tensor, generator: Generator) -> Tensor:
    """Squares of two by two pixels, each of the mean of what it covers.

    >>> pixelation(torch.eye(2).view(1, 1, 2, 2), Generator())
    tensor([[[[0.5000, 0.5000],
              [0.5000, 0.5000]]]])
    """
    return interpolate(avg_pool2d(images, 2, ceil_mode=True), images.shape[-2:], mode="nearest")


def motion_blur(images: Tensor, generator: Generator) -> Tensor:
    """The mean over five pixels in a row.

    >>> motion_blur(torch.eye(5)[2].view(1, 1, 1, 5), Generator())
    tensor([[[[0.2000, 0.2000, 0.2000, 0.2000, 0.2000]]]])
    """
    return avg_pool2d(images, (1, 5), 1, (0, 2))


UNSEEN: dict[str, Corruption] = {
    "impulse noise": impulse_noise,
    "rotation": rotation,
    "brightness": brightness,
    "pixelation": pixelation,
    "motion blur": motion_blur,
}


def _uniform(images: Tensor, generator: Generator, low: float, high: float) -> Tensor:
    """One severity an image, ``(N, 1, 1, 1)``."""
    return low + (high - low) * torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)


def _gaussian(size: int, deviation: Tensor) -> Tensor:
    """The weights ``(N, 1, size, size)`` that make each pixel of a row; each of their rows sums to 1."""
    places = torch.arange(size, device=deviation.device, dtype=deviation.dtype)
    return (-((places - places[:, None]) ** 2) / (2 * deviation**2)).softmax(-1)


def _covered(size: int, share: Tensor, start: Tensor) -> Tensor:
    """Whether each of ``size`` places is in an interval of such a share, at such a start from 0 to 1: ``(N, size)``."""
    length = share * size
    first = ((size - length) * start)[:, None]
    places = torch.arange(size, device=share.device) + 0.5  # the pixels' centres
    return (places >= first) & (places < first + length[:, None])
