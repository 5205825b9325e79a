"""Several processes: the same flags give the same losses, up to the rounding of sums."""

import math
import os
import subprocess
import sys

import pytest
import torch

from recipes.training.accelerator import make_accelerator
from recipes.training.batch_norm import RunningStatistics
from recipes.training.log import read_log

from .images import write_images

SETTINGS = "--size 16 --preset small --epochs 3 --lr 0.02 --batch 12 --device-batch 6".split()
COMMAND = ["-m", "recipes.train", "--data", "images", *SETTINGS, "--out"]


def launch(arguments, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_two_processes_have_the_losses_of_one(tmp_path):
    """Half of each batch on each of two processes (gloo), against both halves in turn on one."""
    write_images(tmp_path / "images", train=24, val=5)
    launch([*COMMAND, "one"], tmp_path)
    said = launch(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *COMMAND, "two"], tmp_path)
    assert said.count("epoch 3") == 1  # the main process alone reports
    one, two = read_log(tmp_path / "one"), read_log(tmp_path / "two")
    for row, other in zip(one, two, strict=True):
        assert row["step"] == other["step"]
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert row["val_loss"] == pytest.approx(other["val_loss"], rel=1e-3)
        assert row["val_top1"] == pytest.approx(other["val_top1"], abs=1)
    states = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("one", "two")]
    assert states[0]["identity"] == states[1]["identity"]
    for key, value in states[0]["network"].items():
        if value.is_floating_point():
            torch.testing.assert_close(states[1]["network"][key], value, rtol=0.02, atol=2e-3)


def test_uneven_shares_are_weighted(tmp_path):
    """The evaluation of all images, whatever each process's share of them is."""
    script = tmp_path / "score.py"
    script.write_text(
        "import torch\n"
        "from recipes.training.accelerator import make_accelerator\n"
        "from recipes.training.metrics import score\n"
        "engine = make_accelerator()\n"
        "mine = torch.arange(3) if engine.process_index else torch.arange(3, 10)\n"
        "result = score(torch.tensor([[0.7, 0.2, 0.1]]).log().repeat(len(mine), 1), mine % 3)\n"
        "if engine.is_main_process:\n"
        "    print(engine.num_processes, result['top1'], result['loss'])\n"
        "engine.end_training()\n"
    )
    said = launch(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)], tmp_path)
    processes, top1, loss = said.split()
    probabilities = [(0.7, 0.2, 0.1)[i % 3] for i in range(10)]
    assert processes == "2" and float(top1) == pytest.approx(60)
    assert float(loss) == pytest.approx(-sum(map(math.log, probabilities)) / 10)


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
