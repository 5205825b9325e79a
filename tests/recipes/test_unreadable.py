"""Files that are no images, images that cannot be read or look odd, and what is remembered of those that are good."""

import os
import shutil
import socket
import struct
import zlib
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
from accelerate import Accelerator
from PIL import Image
from torch import nn

from recipes.data import Augmented, open_data, unreadable
from recipes.data.checked import cache_path, known_stamps, remember
from recipes.data.folders import read_image
from recipes.data.transforms import Preprocess
from recipes.data.unreadable import drop_unreadable
from recipes.errors import DataError
from recipes.training.metrics import predict

from .images import write_images


@pytest.fixture
def check(folders):
    """Opens the images in ``folders`` and checks them."""
    return lambda policy="error", **kwargs: drop_unreadable(open_data(folders, **kwargs), policy, Accelerator())


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that a check reads."""
    names = []

    def read(path, size):
        names.append(path.rpartition("/")[2])
        return read_image(path, size)

    monkeypatch.setattr(unreadable, "read_image", read)
    return names


def _bomb(path):
    """A PNG whose header promises 40,000 x 40,000 pixels."""
    Image.new("1", (1, 1)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 40_000, 40_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def _truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype("uint8")
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-2000])


def _bind(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))  # such a path must be short


NOT_FILES = {
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "named pipe": os.mkfifo,
    "socket": _bind,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
}
DAMAGED = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not an image"),
    "truncated": _truncated,
    "decompression bomb": _bomb,
    "too thin": lambda path: Image.new("1", (2010, 10)).save(path),
    "floats": lambda path: Image.new("F", (9, 9)).save(path, "TIFF"),
}


@pytest.mark.parametrize("kind", [*NOT_FILES, *DAMAGED])
def test_what_cannot_be_read_is_named_or_skipped(check, folders, kind, monkeypatch, capsys):
    monkeypatch.chdir(folders)
    bad = folders / "train" / "ant" / "3x.jpg"
    (NOT_FILES | DAMAGED)[kind](bad)
    with pytest.raises(DataError, match=r"1 image\(s\) cannot be read; .*--unreadable skip") as error:
        check()
    assert f"\n{bad}: cannot be read (" in str(error.value)
    left = check("skip")
    assert f"skipped: {bad}: cannot be read (" in capsys.readouterr().err
    assert str(bad) not in left.train.files.paths and left.train.labels == [0] * 6 + [1] * 6 + [2] * 6
    assert [np.asarray(left.train.load(i)).mean() // 60 for i in (0, 5, 6, 17)] == [0, 0, 1, 3]
    if kind in NOT_FILES:  # it would be met in the middle of training, where a pipe waits for ever
        with pytest.raises(DataError, match=r"3x\.jpg"):
            check("unchecked")
    else:
        data = check("unchecked")
        with pytest.raises(DataError, match=r"3x\.jpg: cannot be read"):
            data.train.load(data.train.files.paths.index(str(bad)))


def test_the_images_that_cannot_be_read_are_counted(check, folders):
    for i in range(30):
        split = "train" if i < 10 else "val"
        (folders / split / "bee" / f"bad{i:02}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"^30 image\(s\)(.|\n)*bad19\.png(.|\n)*\nand 10 more$"):
        check()


def test_class_without_readable_images(check, folders):
    for file in (folders / "train" / "bee").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="no image to train on in class bee"):
        check("skip")
    for file in folders.glob("train/*/*"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="no image to train on can be read"):
        check("skip")


def test_validation_images_that_cannot_be_read(check, folders):
    for file in folders.glob("val/*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="0 images to validate on are too few"):
        check("skip", train=False)


def _saved(path, image, **options):
    image.save(path, **options)
    return np.asarray(read_image(str(path)))


def test_images_of_any_mode_are_read_in_their_colours(tmp_path):
    red, grey = (255, 0, 0), Image.new("L", (8, 8), 100)
    alpha = Image.new("RGBA", (8, 8), (*red, 0))
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, *red])
    kept = {
        "grey.png": (grey, {}, (100,) * 3),
        "alpha.png": (alpha, {}, red),
        "grey-alpha.png": (Image.merge("LA", (grey, grey)), {}, (100,) * 3),
        "palette.png": (palette, {}, red),
        "unpacked.bmp": (palette.convert("RGB"), {}, red),
        "unpacked.ppm": (palette.convert("RGB"), {}, red),
        "unpacked.tif": (palette.convert("RGB"), {}, red),
        "see-through.png": (palette, {"transparency": bytes([100, 0])}, red),
        "animated.webp": (
            Image.new("RGB", (8, 8), red),
            {"save_all": True, "append_images": [grey], "lossless": True},
            red,
        ),
        "bits.png": (Image.new("1", (8, 8), 1), {}, (255,) * 3),
        "cmyk.jpg": (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), {"quality": 100}, (254, 0, 0)),
    }
    for name, (image, options, colour) in kept.items():
        pixels = _saved(tmp_path / name, image, **options)
        assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8, name
        assert np.abs(pixels.astype(int) - colour).max() <= 2, name


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_keep_their_grey_levels(tmp_path, ending):
    levels = np.linspace(0, 65535, 64).astype("uint16").reshape(8, 8)
    pixels = _saved(tmp_path / f"deep.{ending}", Image.fromarray(levels))
    assert np.array_equal(pixels, (levels // 256)[..., None].repeat(3, -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_photographs_are_upright(tmp_path):
    """As the camera noted how it was held: the red half is on top."""
    upright = Image.new("RGB", (16, 32), "blue")
    upright.paste((255, 0, 0), (0, 0, 16, 16))
    exif = Image.Exif()
    for orientation, held in ((1, upright), (3, upright.rotate(180)), (6, upright.rotate(90, expand=True))):
        exif[0x0112] = orientation
        for ending in ("jpg", "png", "webp", "tif"):
            pixels = _saved(tmp_path / f"photo.{ending}", held, exif=exif)
            assert pixels.shape == (32, 16, 3) and pixels[4, 8, 0] > 240 and pixels[28, 8, 2] > 240
    damaged = _saved(tmp_path / "photo.jpg", upright, exif=b"Exif\0\0" + b"II*\0\xff\xff\xff\xff")
    assert damaged.shape == (32, 16, 3)


def test_hidden_nested_and_oddly_named_files(check, folders):
    ant = folders / "train" / "ant"
    (ant / "more" / "deep.jpg.d").mkdir(parents=True)
    for name in ("more/z.PNG", "more/deep.jpg.d/y.png", os.fsdecode(b"\xff\xfe.png")):
        shutil.copy(ant / "0.png", ant / name)
    for hidden in (ant / ".checkpoints", folders / "train" / ".thumbnails", folders / "val" / ".cache"):
        hidden.mkdir()
        (hidden / "x.png").write_bytes(b"")
    (ant / "._0.png").write_bytes(b"")
    (ant / "notes.txt").write_text("six ants")
    for loop in ("around", "more/around"):
        (ant / loop).symlink_to(ant)
        (ant / f"{loop}-and-around").symlink_to(folders / "train")
    data = check()
    assert list(data.classes) == ["ant", "bee", "cat"] and data.train.labels == [0] * 9 + [1] * 6 + [2] * 6
    assert {data.train.load(i).size for i in range(9)} == {(36, 40)}
    (ant / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"")
    assert len(check("skip").train.labels) == 20


def test_folders_that_are_no_classes(folders):
    for file in (folders / "train" / "bee").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"train: no image in bee; add files that end in one of \.jpg"):
        open_data(folders)
    (folders / "train" / "bee").rmdir()
    (folders / "train" / "bee").symlink_to("elsewhere")
    with pytest.raises(DataError, match=r"cannot be read: .*train/bee"):
        open_data(folders)
    for name in ("ant", "bee", "cat"):
        (folders / "val" / name).rename(folders / name)
    with pytest.raises(DataError, match="val: has no folder of images"):
        open_data(folders)
    with pytest.raises(DataError, match=r"cannot be read: .*too long"):
        open_data("x" * 5000)


def test_one_class_is_not_enough(check, folders, reads):
    for file in ("train/ant", "train/bee", "val/ant", "val/bee"):
        shutil.rmtree(folders / file)
    with pytest.raises(DataError, match="cat is the only class"):
        check()
    assert not reads
    assert check(train=False).val.labels == [0, 0]  # of a network that knows others too


def test_images_are_read_once(check, folders, reads):
    check()
    assert sorted(reads) == sorted(path.name for path in folders.glob("*/*/*"))
    reads.clear()
    check()
    check("skip", train=False)
    assert not reads
    one, other = folders / "train" / "ant" / "0.png", folders / "val" / "cat" / "1.png"
    os.utime(one, ns=(0, one.stat().st_mtime_ns + 1))
    other.rename(other.with_name("2.png"))
    check()
    assert reads == ["0.png", "2.png"]


def test_what_was_good_is_remembered_although_others_are_not(check, folders, reads):
    bad = folders / "train" / "ant" / "3.png"
    content = bad.read_bytes()
    bad.write_bytes(b"")
    for read in (24, 1):
        with pytest.raises(DataError):
            check()
        assert len(reads) == read and "3.png" in reads
        reads.clear()
    bad.write_bytes(content)
    check()
    assert reads == ["3.png"]


@pytest.mark.parametrize("damage", ["random", "empty", "odd length", "folder", "removed"])
def test_whatever_happens_to_the_memory_images_are_checked_again(check, folders, reads, damage, capsys):
    check()
    reads.clear()
    path = cache_path()
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "removed":
        path.write_bytes(
            {"random": np.random.default_rng(0).bytes(999), "empty": b"", "odd length": b"1" + content}[damage]
        )
    check()
    assert len(reads) == 24
    assert ("these images will be checked again" in capsys.readouterr().err) == (damage == "folder")
    assert damage == "folder" or not [check(), *reads[24:]][1:]


def test_unchecked_reads_nothing(check, folders, reads):
    (folders / "train" / "ant" / "3.png").write_bytes(b"")
    assert len(check("unchecked").train.labels) == 18 and not reads


def test_what_a_process_that_loads_images_cannot_read_is_one_line(check, folders):
    bad = folders / "val" / "ant" / "0.png"
    bad.write_bytes(b"")
    images = Augmented(check("unchecked").val, Preprocess(32, 32).evaluation())
    with pytest.raises(DataError) as caught:
        predict(nn.Identity(), images, Accelerator(), workers=1)
    assert str(caught.value).startswith(f"{bad}: cannot be read") and "\n" not in str(caught.value)


def test_processes_that_remember_at_once_forget_nothing():
    with ThreadPool(8) as pool:
        pool.map(remember, np.arange(1, 401, dtype="uint64").reshape(40, 10))
    assert known_stamps().tolist() == list(range(1, 401))
    assert [path.name for path in cache_path().parent.iterdir() if path.suffix != ".lock"] == [cache_path().name]


def test_same_images_elsewhere_are_the_same_data(folders, tmp_path):
    """A run goes on where its data has moved; the check, which knows files by their path, is made again."""
    other = write_images(tmp_path / "elsewhere")
    here, there = open_data(folders), open_data(other)
    assert here.train.digest == there.train.digest and here.val.digest == there.val.digest
    assert not {*here.train.files.stamps.tolist()} & {*there.train.files.stamps.tolist()}
