"""A run that is killed at any moment, and resumed, ends as one that was never killed: the same to the bit.

``python -m tests.recipes.test_resume 100`` kills real runs a hundred times.
"""

import itertools
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from recipes import files
from recipes.commands import train
from recipes.training import checkpoint
from recipes.training.accelerator import make_accelerator
from recipes.training.log import read_log
from recipes.training.loop import fit

from .images import write_images

COMMAND = (
    "--size 16 --preset small --epochs 4 --batch 12 --device-batch 6 --lr 0.02 --checkpoint-steps 1 --ema 0.9".split()
)
PROCESSES = multiprocessing.get_context("forkserver")


class Noisy(nn.Sequential):
    """Batch norm and dropout: statistics and randomness that a resumption must restore."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(288, 10)
        )


class StoppedError(Exception):
    pass


def final(folder):
    return torch.load(folder / "last.pt", weights_only=True)


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(equal, a, b)) if isinstance(a, list) else a == b


def assert_same(folder, other):
    """All of the checkpoint but how long epochs took, the log, and the weights."""
    a, b = final(folder), final(other)
    for state in (a, b):
        for row in state["history"]:
            del row["seconds"]
    for name in a.keys() | b.keys():
        assert equal(a[name], b[name]), name
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in read_log(path)] for path in (folder, other)]
    assert rows[0] == rows[1] and len(rows[0]) == a["history"][-1]["epoch"]
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@pytest.mark.parametrize("stop", range(1, 7))
def test_resumed_at_every_step(make_run, monkeypatch, stop):
    """Also where gradients accumulate, and with everything that is random in it."""
    settings = {"device_batch": 16, "ema": 0.5, "checkpoint_steps": 1}
    whole, parts = make_run("whole", **settings), make_run("parts", resume=True, **settings)
    fit(whole, Noisy(), make_accelerator())

    def save(path, state):
        checkpoint.save_checkpoint(path, state)
        if state["step"] == stop:
            raise StoppedError

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr("recipes.training.loop.save_checkpoint", save)
        fit(parts, Noisy(), make_accelerator())
    torch.manual_seed(1234)  # another process has other global randomness, and other weights to begin with
    network = Noisy()
    nn.init.zeros_(network[0].weight)
    rows = fit(parts, network, make_accelerator())
    assert [row["epoch"] for row in rows] == [1, 2]
    assert_same(whole.folder, parts.folder)


def _train(images, folder, *more):
    torch.set_num_threads(1)
    with Path(os.devnull).open("w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        train.main([*COMMAND, "--data", str(images), "--out", str(folder), *more])


def _killed_inside(images, folder, moment):
    """Trains, and kills its own process in the middle of writing a checkpoint: the ``moment``-th of the ways below."""
    kill, (write, replace) = lambda: os.kill(os.getpid(), signal.SIGKILL), (torch.save, Path.replace)
    count = itertools.count()

    def torn_save(state, path):
        write(state, path)
        if next(count) == 3:
            content = Path(path).read_bytes()
            Path(path).write_bytes(content[: {0: 0, 1: len(content) // 2, 2: len(content) - 1}[moment]])
            kill()

    def replaced(self, target):
        if Path(target).name == "last.pt" and next(count) == 3:
            if moment == 4:
                replace(self, target)
            kill()
        return replace(self, target)

    if moment < 3:
        checkpoint.torch.save = torn_save
    else:
        files.Path.replace = replaced
    _train(images, folder, "--resume")


def process(target, *arguments):
    child = PROCESSES.Process(target=target, args=arguments)
    child.start()
    return child


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), train=24)


@pytest.fixture(scope="module")
def unkilled(images, tmp_path_factory):
    PROCESSES.set_forkserver_preload(["recipes.train"])
    folder = tmp_path_factory.mktemp("unkilled") / "run"
    child = process(_train, images, folder)
    child.join()
    assert child.exitcode == 0
    return folder


@pytest.mark.parametrize("moment", range(5))
def test_killed_while_writing_a_checkpoint(images, unkilled, tmp_path, moment):
    folder = tmp_path / "run"
    child = process(_killed_inside, images, folder, moment)
    child.join()
    assert child.exitcode == -signal.SIGKILL and 3 <= final(folder)["step"] <= 4
    child = process(_train, images, folder, "--resume")
    child.join()
    assert child.exitcode == 0
    assert_same(unkilled, folder)


def kill_until_done(images, folder, rng, kills):
    """Kill the run after a random time, ``kills`` times, then let it end; how many were killed before the end."""
    killed = 0
    for _ in range(kills):
        child = process(_train, images, folder, "--resume")
        started = time.monotonic()
        before = (folder / "last.pt").stat().st_mtime_ns if (folder / "last.pt").exists() else 0
        while child.is_alive() and time.monotonic() - started < 60:  # at least one more checkpoint, so that it ends
            if (folder / "last.pt").exists() and (folder / "last.pt").stat().st_mtime_ns > before:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
    child = process(_train, images, folder, "--resume")
    child.join()
    assert child.exitcode == 0
    return killed


def test_killed_at_random(images, unkilled, tmp_path):
    assert kill_until_done(images, tmp_path / "run", random.Random(0), 5) >= 3
    assert_same(unkilled, tmp_path / "run")


def main(kills):
    from tqdm import tqdm

    PROCESSES.set_forkserver_preload(["recipes.train"])
    with tempfile.TemporaryDirectory() as root:
        images = write_images(Path(root, "images"), train=24)
        process(_train, images, Path(root, "unkilled")).join()
        killed = runs = 0
        with tqdm(total=kills, unit="kill") as bar:
            while killed < kills:
                runs += 1
                more = kill_until_done(images, Path(root, str(runs)), random.Random(runs), min(5, kills - killed))
                assert_same(Path(root, "unkilled"), Path(root, str(runs)))
                killed += more
                bar.update(more)
    print(f"{runs} runs, killed {killed} times, resumed: all ended the same to the bit")


if __name__ == "__main__":
    main(int(sys.argv[1]))
