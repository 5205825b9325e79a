"""Corruptions: images stay images, each is corrupted by itself, and the seed alone decides how."""

import pytest
import torch
from torch import Generator
from torch.nn.functional import pad
from torchvision.transforms.v2.functional import gaussian_blur

from recipes.evidence.corruptions import CORRUPTIONS, UNSEEN, blur, occlusion

ALL = CORRUPTIONS | UNSEEN


def _photo(count=6, channels=1):
    """Grey gradients with a bright bar, all the same."""
    image = torch.linspace(0.1, 0.7, 28).expand(channels, 28, 28).clone()
    image[:, 6:20, 9:15] = 0.95
    return image.expand(count, -1, -1, -1).clone()


def _apply(name, images, seed=0):
    return ALL[name](images.clone(), Generator().manual_seed(seed))


def test_those_to_train_on_are_kept_apart_from_those_to_test_on():
    assert len(CORRUPTIONS) == len(UNSEEN) == 5 and not CORRUPTIONS.keys() & UNSEEN.keys()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_stay_images_and_change(name, channels):
    images = _photo(channels=channels)
    found = _apply(name, images)
    assert found.shape == images.shape and found.dtype == images.dtype
    assert found.min() >= 0 and found.max() <= 1
    assert (found - images).abs().flatten(1).mean(1).min() > 0.01


@pytest.mark.parametrize("name", ALL)
def test_the_seed_decides(name):
    images = _photo()
    assert _apply(name, images).equal(_apply(name, images))
    if name in CORRUPTIONS and name != "inversion":
        found = _apply(name, images)
        assert not found.equal(_apply(name, images, seed=1))
        assert not found[0].allclose(found[1], atol=1e-3)  # each image has a severity of its own


def test_blur_is_gaussian_inside_of_the_image():
    images = pad(torch.rand(1, 1, 12, 12, generator=Generator().manual_seed(0)), [20] * 4)
    deviation = 0.8 + 1.2 * torch.rand(1, generator=Generator().manual_seed(3)).item()
    expected = gaussian_blur(images, [19, 19], [deviation, deviation])
    assert blur(images, Generator().manual_seed(3)).allclose(expected, atol=1e-4)


def test_occlusion_erases_one_square():
    found = occlusion(torch.ones(200, 1, 28, 28), Generator().manual_seed(0))
    for image in found[:, 0] == 0.5:
        rows, columns = image.any(1).nonzero(), image.any(0).nonzero()
        height, width = (int(places.max() - places.min()) + 1 for places in (rows, columns))
        assert image.sum() == height * width and abs(height - width) <= 1 and 8 <= height <= 14
