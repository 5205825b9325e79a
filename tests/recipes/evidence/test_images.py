"""Images in memory, and batches of them made ready for a network."""

import pytest
import torch
from torch import Generator

from recipes.evidence.corruptions import CORRUPTIONS
from recipes.evidence.images import Domain, Images, prepare

PLAIN = Domain("plain", mirrored=False)
HALF = (0.5, 0.5, 0.5)


def _images(count=12, kinds=(PLAIN,), channels=1, side=28):
    pixels = torch.randint(256, (count, channels, side, side), generator=Generator().manual_seed(5)).byte()
    return Images(pixels, torch.arange(count) % 10, torch.arange(count) % len(kinds), kinds)


def test_without_a_generator_inputs_are_the_normalized_pixels():
    images = _images()
    found = prepare(images, 28, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.6), (0.3, 0.7))):
        assert found[:, channel].allclose((images.pixels[:, 0] / 255 - mean) / std, atol=1e-6)


def test_colours_stay_and_sizes_change():
    images = _images(channels=3)
    assert prepare(images, 28, HALF, HALF).allclose(images.pixels / 127.5 - 1, atol=1e-6)
    assert prepare(images, 96, HALF, HALF).shape == (12, 3, 96, 96)
    small = prepare(images, 14, (0,) * 3, (1,) * 3)  # each pixel averages what it covers
    assert small.var() < 0.5 * (images.pixels / 255).var()


def test_augmented_images_are_shifted_and_mirrored_where_that_is_allowed():
    kinds = (PLAIN, Domain("mirrored", mirrored=True))
    images = _images(count=400, kinds=kinds)
    images = Images(images.pixels[:1].expand(400, -1, -1, -1).clone(), images.labels, images.domains, kinds)
    inner = images.pixels[0, 0, 4:-4, 4:-4] / 255
    found = prepare(images, 28, (0,) * 3, (1,) * 3, Generator().manual_seed(0))[:, 0]
    seen = {0: set(), 1: set()}
    for image, domain in zip(found, images.domains.tolist(), strict=True):
        for mirrored in (False, True):
            wanted = inner.flip(-1) if mirrored else inner
            for down in range(-2, 3):
                for right in range(-2, 3):
                    if image[4 + down : 24 + down, 4 + right : 24 + right].equal(wanted):
                        seen[domain].add((mirrored, down, right))
    shifts = {(down, right) for down in range(-2, 3) for right in range(-2, 3)}
    assert seen[0] == {(False, *shift) for shift in shifts}
    assert {mirrored for mirrored, *_ in seen[1]} == {False, True}


def test_what_comes_in_at_the_border_is_black():
    white = Images(torch.full((50, 1, 28, 28), 255).byte(), torch.zeros(50).long(), torch.zeros(50).long(), (PLAIN,))
    found = prepare(white, 28, (0,) * 3, (1,) * 3, Generator().manual_seed(0))
    assert found.unique().tolist() == [0, 1] and found[:, :, 2:-2, 2:-2].min() == 1


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_are_drawn_anew_for_their_domain_alone(name):
    kinds = (PLAIN, Domain("corrupted", mirrored=False, corruption=name))
    images = _images(kinds=kinds)
    generator = Generator().manual_seed(0)
    first, second = (prepare(images, 28, (0,) * 3, (1,) * 3, generator) for _ in range(2))
    clean = prepare(
        Images(images.pixels, images.labels, images.domains, (PLAIN, PLAIN)),
        28,
        (0,) * 3,
        (1,) * 3,
        Generator().manual_seed(0),
    )
    assert first[0::2].equal(clean[0::2])
    assert not any(one.allclose(other) for one, other in zip(first[1::2], clean[1::2], strict=True))
    assert not first.equal(second)


def test_settled_images_have_their_corruptions_once_and_for_all():
    kinds = (PLAIN, Domain("inverted", mirrored=False, corruption="inversion"), Domain("n", False, "noise"))
    images = _images(kinds=kinds)
    found = images.settled(seed=3)
    assert found.pixels[0::3].equal(images.pixels[0::3])
    assert found.pixels[1::3].equal(255 - images.pixels[1::3])
    assert not found.pixels[2::3].equal(images.pixels[2::3])
    assert found.pixels.equal(images.settled(seed=3).pixels) and not found.pixels.equal(images.settled(seed=4).pixels)
    assert [kind.corruption for kind in found.kinds] == ["", "", ""] and found.settled().pixels.equal(found.pixels)


def test_subsets_keep_what_belongs_together():
    images = _images(kinds=(PLAIN, PLAIN))
    for found, places in ((images.subset(torch.tensor([7, 2])), [7, 2]), (images.subset(images.labels == 0), [0, 10])):
        assert found.pixels.equal(images.pixels[places]) and len(found) == 2
        assert found.labels.equal(images.labels[places]) and found.domains.equal(images.domains[places])
