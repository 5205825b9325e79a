"""A run that is killed at any moment, and resumed, ends as one that was never killed: the same to the bit.

``python -m tests.recipes.test_resume 100`` kills real runs a hundred times.
"""

import itertools
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recipes.commands import train as train_command
from recipes.errors import SettingsError
from recipes.training.checkpoint import save_checkpoint
from recipes.training.log import read_log

from .children import quiet, start
from .images import write_images
from .runs import Tiny, keep_checkpoints, train

COMMAND = (
    "--plain --size 16 --preset small --epochs 3 --batch 12 --device-batch 6 --lr 0.02 --checkpoint-steps 1 --ema 0.9"
).split()


def final(folder):
    return torch.load(folder / "last.pt", weights_only=True)


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(equal, a, b)) if isinstance(a, list) else a == b


def assert_same(folder, other, *but):
    """All of the checkpoint but how long epochs took, the log, and the weights."""
    a, b = final(folder), final(other)
    for state in (a, b):
        for row in state["history"]:
            del row["seconds"]
    for name in (a.keys() | b.keys()) - {*but}:
        assert equal(a[name], b[name]), name
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in read_log(path)] for path in (folder, other)]
    assert rows[0] == rows[1] and len(rows[0]) == a["history"][-1]["epoch"]
    for name in ("model.safetensors", "best.safetensors"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"device_batch": 16, "ema": 0.5, "mixup": 0.4},
        {"optimizer": "adamw", "schedule": "cosine", "warmup": 1, "clip": 0.1, "trained": "gates", "head": ("fc",)},
    ],
)
def test_resumed_at_every_step(make_run, monkeypatch, settings):
    """Also where gradients accumulate, and with everything that is random in it."""
    whole = make_run(checkpoint_steps=1, **settings)
    keep_checkpoints(monkeypatch)
    train(whole)
    monkeypatch.undo()
    for step in range(1, 7):
        part = make_run(f"run-{step}", resume=True, checkpoint_steps=1, **settings)
        torch.manual_seed(1234)  # another process has other global randomness, and other weights to begin with
        rows, _ = train(part, Tiny(seed=1))
        assert [row["epoch"] for row in rows] == [1, 2]
        assert_same(whole.folder, part.folder)


def test_as_many_processes_are_not_needed(make_run, monkeypatch):
    """Sums of several processes go on in one."""
    keep_checkpoints(monkeypatch)
    rows, _ = train(make_run(checkpoint_steps=1))
    monkeypatch.undo()
    part = make_run("run-2", resume=True)
    state = final(part.folder)
    state["sums"] = torch.cat([0.25 * state["sums"], 0.75 * state["sums"]])
    save_checkpoint(part.checkpoint, state)
    resumed, _ = train(part)
    for name in ("train_loss", "train_top1", "val_loss"):
        assert [row[name] for row in resumed] == pytest.approx([row[name] for row in rows], rel=1e-6)


def test_a_finished_run_goes_on(make_run):
    """As if it had been as long from the start, where the schedule does not depend on that."""
    whole = make_run("whole", epochs=3)
    train(whole)
    part = make_run("part", resume=True)
    train(part)
    train(replace(part, settings=whole.settings))
    assert_same(whole.folder, part.folder, "ends")
    with pytest.raises(SettingsError, match=r"is of a run of 3 epochs, which --epochs 2 cannot shorten"):
        train(part)


def test_a_cosine_starts_again_after_the_run_that_was_planned(make_run, monkeypatch, capsys):
    """Whenever the run learned of its new length."""
    settings = {"schedule": "cosine", "resume": True, "checkpoint_steps": 1}
    keep_checkpoints(monkeypatch)
    finished = make_run(**settings)
    train(finished)
    monkeypatch.undo()
    longer = replace(finished.settings, epochs=3)
    rows, _ = train(replace(finished, settings=longer))
    assert "3 epochs instead of 2; the cosine starts again after epoch 2" in capsys.readouterr().out
    # the last steps' rates: a sixth before the end of the first two epochs, and a third before that of the third
    assert [row["lr"] for row in rows] == pytest.approx([0.1 * (1 + c) / 2 for c in (0.5, -(0.75**0.5), -0.5)])
    early = make_run("run-2", **settings)
    train(replace(early, settings=longer))
    assert_same(finished.folder, early.folder)


def _train(images, folder, *more):
    quiet()
    train_command.main([*COMMAND, "--data", str(images), "--out", str(folder), *more])


def _killed_inside(images, folder, moment):
    """Trains, and kills its own process at that moment of writing its fourth checkpoint."""
    kill, write, replace = lambda: os.kill(os.getpid(), signal.SIGKILL), Path.write_bytes, Path.replace
    count = itertools.count()

    def torn(self, content):
        if self.suffix == ".pt" and next(count) == 3:
            write(self, content[: len(content) // 2])
            kill()
        return write(self, content)

    def replaced(self, target):
        if Path(target).name == "last.pt" and next(count) == 3:
            if moment == "replaced":
                replace(self, target)
            kill()
        return replace(self, target)

    if moment == "torn":
        Path.write_bytes = torn
    else:
        Path.replace = replaced
    _train(images, folder, "--resume")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), train=12)


@pytest.fixture(scope="module")
def unkilled(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unkilled") / "run"
    child = start(_train, images, folder)
    child.join()
    assert child.exitcode == 0
    return folder


@pytest.mark.parametrize("moment", ["torn", "written", "replaced"])
def test_killed_while_writing_a_checkpoint(images, unkilled, tmp_path, moment):
    folder = tmp_path / "run"
    child = start(_killed_inside, images, folder, moment)
    child.join()
    assert child.exitcode == -signal.SIGKILL and 3 <= final(folder)["step"] <= 4
    child = start(_train, images, folder, "--resume")
    child.join()
    assert child.exitcode == 0 and not list(folder.glob(".*.partial*"))
    assert_same(unkilled, folder)


def kill_until_done(images, folder, rng, kills):
    """Kill the run after a random time, ``kills`` times, then let it end; how many were killed before the end."""
    killed = 0
    for _ in range(kills):
        child = start(_train, images, folder, "--resume")
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
    child = start(_train, images, folder, "--resume")
    child.join()
    assert child.exitcode == 0
    return killed


def test_killed_at_random(images, unkilled, tmp_path):
    assert kill_until_done(images, tmp_path / "run", random.Random(0), 3) >= 2
    assert_same(unkilled, tmp_path / "run")


def main(kills):
    from tqdm import tqdm

    with tempfile.TemporaryDirectory() as root:
        images = write_images(Path(root, "images"), train=12)
        start(_train, images, Path(root, "unkilled")).join()
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
