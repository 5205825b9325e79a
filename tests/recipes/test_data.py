"""Data: every kind is read, faults are named before training, order and augmentation are as promised."""

import pickle
import shutil
import time
from collections import Counter

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from recipes.data import Augmented, Images, open_data
from recipes.data.sampling import ClassBalanced
from recipes.data.transforms import PixelJitter, Preprocess, check_memory, shorter_edge
from recipes.data.unreadable import drop_unreadable
from recipes.errors import DataError, SettingsError


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    batch=st.integers(1, 7),
    stop=st.integers(0, 12),
    start=st.integers(0, 12),
    seed=st.integers(0, 5),
)
def test_sampling_is_balanced_cycled_and_resumable(counts, batch, stop, start, seed):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    batches = list(ClassBalanced(labels, seed, batch, stop))
    drawn = [image for part in batches for image, _ in part]
    assert [position for part in batches for _, position in part] == list(range(batch * stop))
    by_class = Counter(labels[image] for image in drawn)
    assert not drawn or max(by_class.values()) - min(by_class.get(i, 0) for i in range(len(counts))) <= 1
    for label, count in enumerate(counts):
        own = [image for image in drawn if labels[image] == label]
        for i in range(0, len(own), count):  # each cycle through the class has each of its images at most once
            assert len(set(own[i : i + count])) == len(own[i : i + count])
    assert list(ClassBalanced(labels, seed, batch, stop, min(start, stop))) == batches[start:]


def test_order_depends_on_the_seed_and_is_drawn_anew():
    labels = [0] * 50 + [1] * 50
    assert list(ClassBalanced(labels, 0, 10, 3)) != list(ClassBalanced(labels, 1, 10, 3))
    cycles = [[image for image, _ in batch if image < 50] for batch in ClassBalanced(labels, 0, 100, 2)]
    assert sorted(cycles[0]) == sorted(cycles[1]) == list(range(50))
    assert cycles[0] != cycles[1] and cycles[0] != sorted(cycles[0])


def test_sampling_at_imagenet_size_starts_at_once():
    labels = [i // 1281 for i in range(1_281_000)]
    started = time.process_time()
    batches = ClassBalanced(labels, seed=0, batch=1024, stop=500_001, start=500_000)
    (batch,) = batches
    assert time.process_time() - started < 1
    assert batch[0][1] == 512_000_000 and len({labels[image] for image, _ in batch[:1000]}) == 1000


@pytest.mark.parametrize("augmentation", ["paper", "small"])
def test_augmentation_depends_on_the_position_alone(augmentation):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype("uint8"))
    inputs = Augmented(Images(lambda i: noise, [0, 1]), Preprocess(32, 32).training(augmentation), seed=3)
    state = torch.get_rng_state()
    first, label = inputs[1, 7]
    assert label == 1 and first.shape == (3, 32, 32) and torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(inputs[1, 7][0], first)
    assert not torch.equal(inputs[1, 8][0], first)


def test_seeding_an_image_costs_little_and_evaluation_seeds_none():
    """Reading one takes some 5,000 microseconds; to seed it took 150."""
    inputs = Augmented(Images(lambda i: Image.new("L", (1, 1)), [0]), lambda image: torch.zeros(()))

    def microseconds(item):
        started = time.process_time()
        for _ in range(500):
            inputs[item]
        return (time.process_time() - started) / 500e-6

    assert microseconds((0, 7)) < 60 and microseconds(0) < 15


def test_paper_augmentation_is_the_authors_list():
    """From the pictures it makes: mirrored half of the time, crops of 8-100 %, shifts of at most 20 grey levels."""
    left_right = np.tile(np.linspace(0, 200, 64).astype("uint8"), (64, 1))
    inputs = Augmented(
        Images(lambda i: Image.fromarray(left_right), [0]),
        Preprocess(32, 32, mean=(0.0,) * 3, std=(1.0,) * 3).training("paper"),
    )
    pictures = [inputs[0, position][0] * 255 for position in range(300)]
    slopes = [(picture[0, 16, 22] - picture[0, 16, 10]).item() / 12 for picture in pictures]
    assert 0.4 < np.mean([slope < 0 for slope in slopes]) < 0.6
    # of a crop of area share s and aspect a, 32 pixels show sqrt(s * a) of the 200 grey levels
    shown = np.abs(slopes) * 32 / 200
    assert np.sqrt(0.08 * 0.75) - 0.06 < shown.min() < 0.4 and 0.8 < shown.max() < 1.1
    # rotated by at most 10 degrees, up and down: then grey levels change from row to row
    tilts = [(picture[0, 20, 16] - picture[0, 12, 16]).item() / 8 for picture in pictures]
    degrees = np.degrees(np.arctan2(tilts, np.abs(slopes)))
    assert -14 < degrees.min() < -7 and 7 < degrees.max() < 14
    shifts = [(picture[1] - picture[0])[8:24, 8:24].median().item() for picture in pictures]
    assert 30 < max(shifts) <= 40.5 and -40.5 <= min(shifts) < -30


def test_paper_crops_change_the_aspect():
    """Squares of a grid come out up to 4/3 wider than high, and the other way round."""
    rows, columns = np.mgrid[:96, :96]
    picture = Image.fromarray(np.stack([columns * 2, rows * 2, rows * 0], -1).astype("uint8"))
    inputs = Augmented(
        Images(lambda i: picture, [0]), Preprocess(32, 32, mean=(0.0,) * 3, std=(1.0,) * 3).training("paper")
    )
    aspects = []
    for position in range(200):
        red, green = (inputs[0, position][0] * 255)[:2]
        along = np.hypot(*[(red[b] - red[a]).item() for a, b in (((16, 12), (16, 20)), ((12, 16), (20, 16)))])
        down = np.hypot(*[(green[b] - green[a]).item() for a, b in (((16, 12), (16, 20)), ((12, 16), (20, 16)))])
        aspects.append(along / down)
    assert 0.6 < min(aspects) < 0.85 and 1.2 < max(aspects) < 1.6


def test_small_preset_pads():
    """White images get black borders of up to an eighth, on either side."""
    white = Image.new("RGB", (32, 32), "white")
    inputs = Augmented(
        Images(lambda i: white, [0]), Preprocess(32, 32, mean=(0.0,) * 3, std=(1.0,) * 3).training("small")
    )
    borders = [int((inputs[0, position][0][0].mean(0) == 0).sum()) for position in range(60)]
    assert max(borders) == 4 and min(borders) == 0


@pytest.mark.parametrize("kind", ["digits", "subset", "folders", "fashion"])
def test_inputs_can_be_sent_to_workers(kind, folders, tmp_path):
    """Workers that are spawned, as on macOS and Windows, get their data set pickled."""
    if kind == "fashion":
        _fashion_mnist(tmp_path)
    data = open_data({"folders": folders, "fashion": tmp_path}.get(kind))
    images = data.train.subset([3, 1]) if kind == "subset" else data.train
    inputs = Augmented(images, Preprocess(16, 16).training("paper"), seed=1)
    assert torch.equal(pickle.loads(pickle.dumps(inputs))[1, 5][0], inputs[1, 5][0])


def test_digests_tell_data_apart(folders):
    def digests():
        data = open_data(folders)
        return data.train.digest, data.val.digest

    before = digests()
    assert digests() == before and before[0] != before[1]
    (folders / "train" / "ant" / "0.png").rename(folders / "train" / "ant" / "new.png")
    assert digests()[0] != before[0] and digests()[1] == before[1]
    data = open_data(None)
    assert data.train.digest != data.val.digest != data.val.subset([0]).digest


def test_pixel_jitter_stays_in_range():
    torch.manual_seed(0)
    image = torch.tensor([0, 128, 255], dtype=torch.uint8)[:, None, None].expand(3, 5, 5)
    shifted = [PixelJitter(20)(image) for _ in range(200)]
    assert all(one.dtype == torch.uint8 and one[0].max() <= 20 and one[2].min() >= 235 for one in shifted)
    assert min(int(one[1].min()) for one in shifted) == 108 and max(int(one[1].max()) for one in shifted) == 148


def test_evaluation_crops():
    ramp = np.tile(np.arange(0, 250, 1, dtype="uint8"), (300, 1))
    plain = Preprocess(224, 256, mean=(0.0,) * 3, std=(1.0,) * 3)
    centre, ten = (plain.evaluation(ten)(Image.fromarray(ramp)) for ten in (False, True))
    assert centre.shape == (1, 3, 224, 224) and ten.shape == (10, 3, 224, 224)
    assert torch.equal(ten[4], centre[0]) and torch.equal(ten[9], centre[0].flip(-1))
    assert centre[0, 0, 0, 0] * 255 == pytest.approx(
        16 * 250 / 256, abs=1
    )  # 16 pixels in, after the shorter edge is 256


def test_sizes_that_make_no_input():
    for size in (1, 7, -3):
        with pytest.raises(SettingsError, match=f"inputs of {size} pixels show nothing"):
            Preprocess(224, 256).at(size, native=False)
    check_memory(256, 320)
    with pytest.raises(SettingsError, match="more than this machine's"):
        check_memory(1, 10**6)


def test_paper_sizes():
    assert [shorter_edge(size) for size in (224, 299)] == [256, 352]


def test_folders(folders):
    data = open_data(folders)
    assert list(data.classes) == ["ant", "bee", "cat"] and data.size is None
    assert Counter(data.train.labels) == {0: 6, 1: 6, 2: 6} and Counter(data.val.labels) == {0: 2, 1: 2, 2: 2}
    assert abs(np.asarray(data.val.load(5)).mean() - 210) < 15
    assert drop_unreadable(data, "error", Accelerator()) is data


def test_validation_images_alone(folders):
    shutil.rmtree(folders / "train")
    with pytest.raises(DataError, match="found no train/ and val/"):
        open_data(folders)
    data = drop_unreadable(open_data(folders, train=False), "error", Accelerator())
    assert len(data.val.labels) == 6 and not data.train.labels


def test_no_such_directory(tmp_path):
    with pytest.raises(DataError, match="there is no such directory"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match="found no train/ and val/"):
        open_data(tmp_path)


def test_classes_that_differ(folders):
    (folders / "val" / "bee").rename(folders / "val" / "wasp")
    with pytest.raises(DataError, match="only one has bee, wasp"):
        open_data(folders)


def _idx(path, array):
    """The file format of FashionMNIST."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.astype("uint8").tobytes())


def _fashion_mnist(root):
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 20), ("t10k", 10)):
        _idx(raw / f"{name}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        _idx(raw / f"{name}-labels-idx1-ubyte", np.arange(count) % 10)
    return raw


def test_fashion_mnist(tmp_path):
    raw = _fashion_mnist(tmp_path)
    data = open_data(tmp_path)
    assert len(data.train.labels) == 20 and len(data.val.labels) == 10 and data.size == 28
    assert (
        data.val.labels == list(range(10)) and data.classes[0] == "T-shirt/top" and data.train.load(3).size == (28, 28)
    )
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="FashionMNIST is incomplete"):
        open_data(tmp_path)


@pytest.mark.parametrize("labels", [range(30), [12] * 20, range(5), None])
def test_damaged_fashion_mnist(tmp_path, labels):
    raw = _fashion_mnist(tmp_path)
    path = raw / "train-labels-idx1-ubyte"
    path.write_bytes(b"") if labels is None else _idx(path, np.array(labels))
    with pytest.raises(DataError, match=r"FashionMNIST is .*damaged"):
        open_data(tmp_path)


@pytest.mark.parametrize("kind", [9, 10])
def test_fashion_mnist_of_another_type(tmp_path, kind):
    """What torchvision makes of a type that it does not know."""
    path = _fashion_mnist(tmp_path) / "t10k-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[2] = kind
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"FashionMNIST is incomplete or damaged"):
        open_data(tmp_path)


def test_cifar_pickles_are_not_opened_unless_published(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
    for name in names:
        (folder / name).write_bytes(pickle.dumps(_Opened(str(tmp_path / "opened"))))
    with pytest.raises(DataError, match="CIFAR10 is incomplete or damaged"):
        open_data(tmp_path)
    assert not (tmp_path / "opened").exists()


def test_cifar(tmp_path, monkeypatch):
    """The published files' layout, without their content."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels = np.zeros((2, 3072), dtype="uint8")
        pixels[:, :1024] = 200  # the red plane comes first
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [3, 5]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = open_data(tmp_path)
    assert len(data.train.labels) == 10 and data.val.labels == [3, 5] and data.size == 32
    assert np.asarray(data.train.load(0)).reshape(-1, 3).mean(0).tolist() == [200, 0, 0]


class _Opened:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")
