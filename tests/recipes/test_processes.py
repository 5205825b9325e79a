"""Several processes: the same flags give the same losses, up to the rounding of sums."""

import pytest
import torch

from recipes.commands import train
from recipes.training.accelerator import make_accelerator
from recipes.training.batch_norm import RunningStatistics
from recipes.training.log import read_log
from recipes.training.metrics import predict, score
from recipes.training.state import Training

from .children import quiet, start_together
from .images import write_images

SETTINGS = (
    "--size 16 --preset small --epochs 3 --lr 0.02 --batch 12 --device-batch 6 --mixup 0.2 --clip 0.1 "
    "--schedule cosine --warmup 1 --checkpoint-steps 1"
).split()


COUNTS = (1, 2, 7, 8, 9, 13)  # of images, in batches of four on each process


def images_of_one_pixel(count):
    pixels = torch.randn(count, 1, 3, 1, 1, generator=torch.Generator().manual_seed(count))
    return [(image, i % 3) for i, image in enumerate(pixels)]


class StoppedError(Exception):
    pass


def _on_each(images, folder):
    """In each of two processes: a run, another one that stops within epochs and resumes, and predictions."""
    engine = make_accelerator()
    quiet(folder / f"said-{engine.process_index}")
    command, save = [*SETTINGS, "--data", str(images), "--out"], Training.save
    train.main([*command, str(folder / "two")])

    def save_and_stop(training):
        save(training)
        if training.step in (1, 4, 8):
            raise StoppedError

    Training.save = save_and_stop
    for _ in range(3):
        with pytest.raises(StoppedError):
            train.main([*command, str(folder / "resumed"), "--resume"])
    Training.save = save
    train.main([*command, str(folder / "resumed"), "--resume"])

    for count in COUNTS:
        data = images_of_one_pixel(count)
        log_probability, labels = predict(torch.nn.Flatten(), data, engine, batch=4)
        saved = folder / f"predictions-{count}-{engine.process_index}.pt"
        torch.save([log_probability, labels, score(log_probability, labels)], saved)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes (gloo) and, with the same flags, one process leave behind."""
    folder = tmp_path_factory.mktemp("processes")
    images = write_images(folder / "images", train=12, val=5)
    start_together(_on_each, images, folder)
    train.main([*SETTINGS, "--data", str(images), "--out", str(folder / "one")])
    return folder


def test_two_processes_have_the_losses_of_one(folder):
    """Half of each batch on each of two processes, against both halves in turn on one."""
    one, two = read_log(folder / "one"), read_log(folder / "two")
    for row, other in zip(one, two, strict=True):
        assert (row["step"], row["lr"]) == (other["step"], other["lr"])
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert row["val_loss"] == pytest.approx(other["val_loss"], rel=1e-3)
        assert row["val_top1"] == pytest.approx(other["val_top1"], abs=1)
    states = [torch.load(folder / name / "last.pt", weights_only=True) for name in ("one", "two")]
    assert states[0]["identity"] == states[1]["identity"]
    for key, value in states[0]["network"].items():
        if value.is_floating_point():
            torch.testing.assert_close(states[1]["network"][key], value, rtol=0.02, atol=2e-3)


def test_the_main_process_alone_reports(folder):
    assert [(folder / f"said-{rank}").read_text().count("epoch 3  step 9") for rank in range(2)] == [2, 0]


def test_two_processes_resume_to_the_bit(folder):
    """Also the sums of losses, of which each process has its own."""
    whole, resumed = ([row | {"seconds": 0} for row in read_log(folder / name)] for name in ("two", "resumed"))
    assert whole == resumed
    files = [(folder / name / "model.safetensors").read_bytes() for name in ("two", "resumed")]
    assert files[0] == files[1]


@pytest.mark.parametrize("count", COUNTS)
def test_all_processes_have_the_predictions_of_one(folder, count):
    """Of all images, in their order and once each, also where the processes' shares are uneven."""
    data = images_of_one_pixel(count)
    log_probability, labels = predict(torch.nn.Flatten(), data, make_accelerator(), batch=4)
    assert labels.tolist() == [label for _, label in data] and log_probability.shape == (count, 3)
    for rank in range(2):
        theirs, truth, scores = torch.load(folder / f"predictions-{count}-{rank}.pt", weights_only=True)
        assert torch.equal(theirs, log_probability) and torch.equal(truth, labels)
        assert scores == score(log_probability, labels)


def test_running_statistics_move_once_a_step():
    torch.manual_seed(0)
    x = torch.randn(12, 4, 3, 3) * torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1) + 1
    norm = torch.nn.BatchNorm2d(4, momentum=0.1)
    statistics = RunningStatistics(norm, parts=3)
    for step in range(2):
        for part in x.chunk(3):
            statistics.before_part()
            norm(part)
            statistics.after_part()
        statistics.end_step(make_accelerator())
        share = 1 - 0.9 ** (step + 1)
        torch.testing.assert_close(norm.running_mean, share * x.mean((0, 2, 3)))
        variance = torch.stack([part.transpose(0, 1).flatten(1).var(1) for part in x.chunk(3)]).mean(0)
        torch.testing.assert_close(norm.running_var, share * variance + 1 - share)


def test_frozen_statistics_stay():
    norm = torch.nn.BatchNorm2d(64).eval()
    norm.running_mean.uniform_()
    before = norm.running_mean.clone()
    statistics = RunningStatistics(norm, parts=7)  # a sum of seven, divided by seven, is rounded
    for _ in range(7):
        statistics.before_part()
        norm(torch.randn(2, 64, 3, 3)).sum().backward()
        statistics.after_part()
    statistics.end_step(make_accelerator())
    assert torch.equal(norm.running_mean, before)
