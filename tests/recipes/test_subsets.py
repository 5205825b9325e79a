"""Parts of the training data: of each class the first few, or a share held out to choose settings on."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.data import Images, open_data
from recipes.data.datasets import Data
from recipes.data.folders import ImageFiles
from recipes.data.subsets import by_class, limit_per_class, split
from recipes.errors import DataError, SettingsError


def _data(labels):
    """``load`` tells which image it is asked for."""
    names = [f"class {label}" for label in range(max(labels, default=0) + 1)]
    images = Images(lambda i: i, labels, ImageFiles(range(len(labels)), np.arange(len(labels))), digest="train")
    return Data(images, Images(lambda i: -1, [0, 1], digest="val"), names, None, "test")


@given(st.lists(st.integers(0, 5), max_size=30))
def test_by_class_is_every_image_once_in_order(labels):
    found = by_class(labels)
    assert list(found) == sorted(set(labels))
    assert {label: members.tolist() for label, members in found.items()} == {
        label: [i for i, one in enumerate(labels) if one == label] for label in found
    }


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 6))
def test_limit_keeps_the_first_of_each_class(labels, count):
    data = _data(labels)
    few = limit_per_class(data, count)
    expected = [i for i, label in enumerate(labels) if labels[:i].count(label) < count]
    assert [few.train.load(i) for i in range(len(few.train.labels))] == expected
    assert (
        few.train.labels == [labels[i] for i in expected]
        and few.train.files.paths == few.train.files.stamps.tolist() == expected
    )
    assert few.val is data.val and limit_per_class(data, None) is data


@given(
    counts=st.lists(st.integers(2, 30), min_size=1, max_size=5),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 3),
)
def test_split_is_stratified_and_loses_no_image(counts, fraction, seed):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    np.random.default_rng(0).shuffle(labels)
    data = _data(labels)
    parts = split(data, fraction, seed)
    places = [[part.load(i) for i in range(len(part.labels))] for part in (parts.train, parts.val)]
    assert sorted(places[0] + places[1]) == list(range(len(labels)))  # none twice, none of data.val
    for place, part in zip(places, (parts.train, parts.val), strict=True):
        assert part.labels == [labels[i] for i in place] and part.files.paths == part.files.stamps.tolist() == place
    held_out = Counter(parts.val.labels)
    for label, count in enumerate(counts):
        assert 1 <= held_out[label] < count and abs(held_out[label] - fraction * count) <= 1


def test_split_is_drawn_by_the_seed():
    data = open_data(None)
    digests = [split(data, 0.2, seed).val.digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    parts = split(data, 0.2, 0)
    assert len({parts.train.digest, parts.val.digest, data.train.digest, data.val.digest}) == 4


def test_parts_that_cannot_be():
    with pytest.raises(DataError, match="class 1 has a single training image"):
        split(_data([0, 0, 1]), 0.5, 0)
    for fraction in (0, 1, -0.1, 20):
        with pytest.raises(SettingsError, match=f"between 0 and 1, got {fraction}"):
            split(_data([0, 0]), fraction, 0)
    with pytest.raises(SettingsError, match="got 0"):
        limit_per_class(_data([0, 0]), 0)
    alone = replace(_data([0]), train=Images(lambda i: i, []))
    assert not split(alone, 0.5, 0).val.labels and not limit_per_class(alone, 3).train.labels
