"""The loop: what a run leaves behind, that it learns, that settings do what they say, and what stops it early."""

import copy
import itertools
import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from recipes.data import open_data
from recipes.data.sampling import ClassBalanced
from recipes.errors import CheckpointError, RecipeError, SettingsError
from recipes.training.checkpoint import save_checkpoint
from recipes.training.log import read_log
from recipes.training.loop import fit
from recipes.training.state import Training
from recipes.weights.described import load_model

from .runs import Tiny, keep_checkpoints, short_run, train


def saved(run):
    return torch.load(run.checkpoint, weights_only=True)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def refuse_to_train(monkeypatch):
    monkeypatch.setattr("recipes.training.state.Training.train_on", lambda *_: pytest.fail("it trained"))


def validations(monkeypatch, errors, losses=None):
    """The next validations find these errors and losses, one after the other."""
    found = zip(errors, losses or itertools.repeat(1.0), strict=False)
    rows = ({"loss": loss, "top1": error, "top5": 0.0} for error, loss in found)
    monkeypatch.setattr("recipes.training.state.score", lambda *_: next(rows))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one epoch that has ended; tests leave it as it is."""
    run = short_run(tmp_path_factory.mktemp("finished") / "run", epochs=1, resume=True)
    train(run)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return run


@pytest.fixture
def copied(finished, tmp_path):
    """The same in a folder of the test's own."""
    return replace(finished, folder=shutil.copytree(finished.folder, tmp_path / "copied"))


def test_a_run_learns_and_leaves_checkpoint_log_and_weights(make_run):
    """From ten classes at random to most of them right, on images it has not seen."""
    run = make_run(epochs=8, batch=16, lr_step=6)
    rows, network = train(run, run.model.build())
    visible = sorted(path.name for path in run.folder.iterdir() if not path.name.startswith("."))
    assert visible == ["best.safetensors", "last.pt", "log.csv", "model.safetensors"]
    assert read_log(run.folder) == rows and [row["epoch"] for row in rows] == [*range(1, 9)]
    assert [row["lr"] for row in rows] == pytest.approx([0.1] * 6 + [0.01] * 2)
    assert all(50 < row[name] <= 100 for row in rows[:1] for name in ("train_top1", "val_top1"))
    assert rows[0]["train_loss"] > 2 and rows[-1]["train_loss"] < 0.7 * rows[0]["train_loss"]
    loaded, about = load_model(run.folder / "model.safetensors")
    assert (about.model, about.preprocess, about.classes) == (run.model, run.preprocess, list(run.data.classes))
    assert same(loaded.state_dict(), network.state_dict()) and same(saved(run)["network"], network.state_dict())
    with safe_open(run.folder / "model.safetensors", "pt") as file:  # plain safetensors, readable by others
        assert json.loads(file.metadata()["se_inject"])["model"]["name"] == "se_resnet20"


def test_the_best_weights_are_kept(make_run, monkeypatch):
    """By validation error and, where that is equal, loss; of equals, the first."""
    run = make_run(epochs=5)
    keep_checkpoints(monkeypatch)
    validations(monkeypatch, [50.0, 40.0, 40.0, 40.0, 45.0], [1.0, 3.0, 2.0, 2.0, 0.5])
    rows, _ = train(run)
    assert [row["best"] for row in rows] == [1, 2, 3, 3, 3] and rows == read_log(run.folder)
    third = torch.load(run.folder.with_name("run-9") / "last.pt", weights_only=True)["network"]
    best, last = (load_file(run.folder / f"{name}.safetensors") for name in ("best", "model"))
    assert same(best, third) and same(last, saved(run)["network"]) and not same(best, last)


def test_weights_of_an_epoch_that_was_lost_are_not_the_best(make_run, monkeypatch):
    """Killed as the second epoch's checkpoint is written; where sums vary, as on a GPU, the next try is worse."""
    run = make_run(resume=True, epochs=2)
    validations(monkeypatch, [50.0, 40.0, 60.0])
    states = []

    def killed(path, state):
        states.append(copy.deepcopy(state["network"]))
        if len(states) == 2:
            raise KeyboardInterrupt
        save_checkpoint(path, state)

    monkeypatch.setattr("recipes.training.state.save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train(run)
    rows, _ = train(run)
    assert [row["best"] for row in rows] == [1, 1]
    assert same(load_file(run.folder / "best.safetensors"), states[0])


def test_what_a_kill_after_the_checkpoint_left_out_is_written(copied, finished, monkeypatch):
    for name in ("log.csv", "model.safetensors", "best.safetensors"):
        (copied.folder / name).unlink()
    refuse_to_train(monkeypatch)
    train(copied, Tiny(seed=1))
    for name in ("log.csv", "model.safetensors", "best.safetensors"):
        assert (copied.folder / name).read_bytes() == (finished.folder / name).read_bytes()


def test_features_are_not_cached_for_a_run_that_has_stopped(make_run, monkeypatch):
    run = make_run(epochs=3, patience=1, resume=True, trained="head", head=("fc",), augmentation="none")
    validations(monkeypatch, [40.0, 50.0])
    rows, _ = train(run)
    assert [row["epoch"] for row in rows] == [1, 2]
    monkeypatch.setattr("recipes.training.state.cache_features", lambda *_: pytest.fail("it computed features"))
    assert train(replace(run, cache=True))[0] == rows


def test_it_stops_when_its_patience_runs_out(make_run, monkeypatch, capsys):
    run = make_run(epochs=5, patience=2, resume=True)
    validations(monkeypatch, [50.0, 40.0, 45.0, 40.0, 30.0])
    rows, _ = train(run)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert "stopped: for 2 epochs no better on the validation images than epoch 2" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        refuse_to_train(patch)
        assert train(run)[0] == rows
    rows, _ = train(replace(run, settings=replace(run.settings, patience=3)))
    assert rows[-1]["epoch"] == rows[-1]["best"] == 5
    capsys.readouterr()
    again = replace(run, folder=run.folder / "again", settings=replace(run.settings, epochs=3))
    validations(monkeypatch, [40.0, 50.0, 60.0])
    train(again)  # patience runs out with the last epoch
    assert "stopped" not in capsys.readouterr().out


def test_schedules_reach_the_optimizer(make_run):
    """The logged rate is that of an epoch's last step; the gates' follows the same course."""
    run = make_run(epochs=3, schedule="cosine", warmup=2 / 3, lr=0.2, gate_lr=0.6, momentum=0.7)
    rows, _ = train(run)
    expected = [0.1 * (1 + math.cos(math.pi * done / 7)) for done in (0, 3, 6)]
    assert [row["lr"] for row in rows] == pytest.approx(expected)
    groups = saved(run)["optimizer"]["param_groups"]
    assert [group["initial_lr"] for group in groups] == [0.2, 0.6, 0.6]
    assert [group["lr"] for group in groups] == pytest.approx([expected[-1], 3 * expected[-1], 3 * expected[-1]])
    assert {group["momentum"] for group in groups} == {0.7}
    assert all(one["momentum_buffer"].any() for one in saved(run)["optimizer"]["state"].values())


def test_adamw(make_run):
    run = make_run(epochs=1, optimizer="adamw", lr=0.001, weight_decay=0.1)
    train(run)
    state = saved(run)["optimizer"]
    assert all(one["exp_avg_sq"].any() for one in state["state"].values())
    assert [group["weight_decay"] for group in state["param_groups"]] == [0.1, 0.1, 0.0]


class Plain(nn.Sequential):
    """Its outputs do not depend on the other images of a part."""

    def __init__(self):
        torch.manual_seed(1)
        super().__init__(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


@pytest.mark.parametrize("clip", [None, 0.01])
def test_accumulation_is_the_whole_batch(make_run, clip):
    """Four parts make the same step as one, also where its gradients are clipped."""
    settings = {"lr": 0.5, "momentum": 0.0, "weight_decay": 0.0, "clip": clip}
    whole, parts = make_run("whole", **settings), make_run("parts", device_batch=8, **settings)
    (one, _), (four, _) = train(whole, Plain()), train(parts, Plain())
    assert [row["step"] for row in one] == [row["step"] for row in four] == [3, 6]
    for row, other in zip(one, four, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
    for key, value in saved(whole)["network"].items():
        torch.testing.assert_close(value, saved(parts)["network"][key], rtol=1e-4, atol=1e-5)


def test_clip_is_the_norm_of_a_step(make_run):
    """Of the whole batch's gradients; smaller ones stay as they are."""
    settings = {"epochs": 1, "batch": 96, "device_batch": 32, "lr": 0.5, "momentum": 0.0, "weight_decay": 0.0}

    def moved(name, clip):
        run = make_run(name, clip=clip, **settings)
        train(run, Plain())
        after = saved(run)["network"]
        return torch.cat([(after[key] - value).flatten() for key, value in Plain().state_dict().items()])

    free, clipped = moved("a", None), moved("b", 0.01)
    assert clipped.norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3) and free.norm() > 2 * clipped.norm()
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), rtol=1e-3, atol=1e-4)
    assert torch.equal(free, moved("c", 1e6))


@pytest.mark.parametrize("scale", [1024.0, 1e38])
def test_half_precision_clips_unscaled_gradients(make_run, scale):
    """The scaler of fp16, on a CPU; a scale that is too large makes it skip steps."""
    engine = Accelerator(cpu=True)
    engine.scaler, engine.native_amp = torch.amp.GradScaler("cpu", init_scale=scale), True
    engine.state._mixed_precision = "fp16"
    run = make_run(epochs=1, batch=96, lr=0.5, momentum=0.0, weight_decay=0.0, clip=0.01)
    fit(run, network := Plain(), engine)
    moved = torch.cat([(network.state_dict()[key] - value).flatten() for key, value in Plain().state_dict().items()])
    assert moved.norm().item() == pytest.approx(0.5 * 0.01 if scale == 1024 else 0.0, rel=1e-2)


class Recorder(nn.Module):
    """A linear classifier that remembers its inputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.linear, self.seen = nn.Linear(192, 10), []

    def forward(self, x):
        if self.training:
            self.seen.append(x.clone())
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_mixup_and_label_smoothing(make_run, smoothing):
    """Each part is mixed with itself, rolled by one, images and targets by the same share."""
    settings = {"epochs": 1, "batch": 96, "lr": 0.0, "label_smoothing": smoothing}
    plain, mixed = Recorder(), Recorder()
    (row,), _ = train(make_run("plain", **settings), plain)
    (mixed_row,), _ = train(make_run("mixed", mixup=2.0, **settings), mixed)
    images, found = plain.seen[0], mixed.seen[0]
    (batch,) = ClassBalanced(make_run().data.train.labels, 0, 96, stop=1)
    labels = nn.functional.one_hot(torch.tensor([make_run().data.train.labels[i] for i, _ in batch]), 10).float()
    difference = images - images.roll(1, 0)
    share = ((found - images.roll(1, 0)) * difference).sum() / difference.square().sum()
    assert 0.01 < share < 0.99
    torch.testing.assert_close(found, share * images + (1 - share) * images.roll(1, 0), rtol=1e-3, atol=1e-4)
    for x, target, result in (
        (images, labels, row),
        (found, share * labels + (1 - share) * labels.roll(1, 0), mixed_row),
    ):
        target = (1 - smoothing) * target + smoothing / 10
        logits = plain.linear(x.flatten(1)).detach()
        assert result["train_loss"] == pytest.approx(-(target * logits.log_softmax(1)).sum(1).mean().item(), rel=1e-4)
        assert result["train_top1"] == pytest.approx(100 * (logits.argmax(1) != target.argmax(1)).float().mean().item())


def test_ema_is_validated_and_saved(make_run):
    run = make_run(ema=0.5)
    _, network = train(run, run.model.build())
    kept = load_model(run.folder / "model.safetensors")[0].state_dict()
    average = saved(run)["average"]
    assert all(torch.equal(kept[key], average[f"module.{key}"]) for key in kept)
    assert not torch.equal(kept["conv1.weight"], network.state_dict()["conv1.weight"])
    once = make_run("once", ema=0.5, epochs=1, batch=96)  # after one step there is nothing older to average with
    _, network = train(once)
    assert same(load_file(once.folder / "model.safetensors"), network.state_dict())


@pytest.mark.parametrize("settings", [{"channels_last": True, "ema": 0.9}, {"mixed_precision": "bf16"}])
def test_flags_change_how_not_what(make_run, monkeypatch, settings):
    """Nearly the plain run's losses, and still the same to the bit after a resumption in the middle."""
    expected, _ = train(make_run("a"))
    AcceleratorState._reset_state(reset_partial_state=True)
    keep_checkpoints(monkeypatch)
    rows, network = train(make_run("b", checkpoint_steps=1, **settings))
    assert rows[0]["train_loss"] == pytest.approx(expected[0]["train_loss"], rel=0.05)
    if "mixed_precision" in settings:  # numbers of eight bits of precision differ
        assert rows[0]["train_loss"] != expected[0]["train_loss"]
    if "channels_last" in settings:
        assert network.conv.weight.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.undo()
    part = make_run("b-2", resume=True, **settings)
    train(part)
    assert same(saved(part)["network"], network.state_dict())


def test_compile(make_run, monkeypatch):
    """The network is compiled, and its losses stay. ``eager`` stands for the default back end, for speed."""
    seen = []
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: (seen.append(self), compile_(self, backend="eager")))
    (expected, _), (rows, network) = train(make_run("a", epochs=1)), train(make_run("b", epochs=1, compile=True))
    assert seen == [network]
    assert rows[0]["train_loss"] == pytest.approx(expected[0]["train_loss"], rel=1e-3)


def test_workers_change_nothing(make_run, finished):
    rows, network = train(make_run(epochs=1, workers=2))
    assert same(network.state_dict(), saved(finished)["network"])
    assert rows[0] | {"seconds": 0} == read_log(finished.folder)[0] | {"seconds": 0}


def test_a_folder_in_use_is_not_overwritten(finished):
    before = finished.checkpoint.read_bytes()
    with pytest.raises(SettingsError, match=r"holds a run already; continue it with --resume"):
        train(replace(finished, resume=False))
    assert finished.checkpoint.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"network": "se_resnet56"}, CheckpointError, r"model.name is 'se_resnet20' there, 'se_resnet56' here"),
        ({"gates": "none"}, CheckpointError, "model.gates is 'standard' there, 'none' here"),
        ({"lr": 0.3}, SettingsError, "settings.lr is 0.1 there, 0.3 here"),
        ({"schedule": "cosine"}, SettingsError, "settings.schedule is 'step' there, 'cosine' here"),
        ({"trained": "gates"}, SettingsError, "settings.trained is 'all' there, 'gates' here"),
        ({"head": ("fc",)}, SettingsError, r"settings.head is \[\] there, \['fc'\] here"),
    ],
)
def test_another_run_is_not_resumed(finished, change, error, says):
    before = finished.checkpoint.read_bytes()
    with pytest.raises(error, match=says):
        train(short_run(finished.folder, **{"epochs": 1, "resume": True} | change))
    assert finished.checkpoint.read_bytes() == before


def test_other_data_is_not_resumed(finished):
    other = replace(finished.data, train=open_data(None).train.subset(range(100, 196)))
    with pytest.raises(SettingsError, match=r"data\.digest"):
        train(replace(finished, data=other))
    fewer = replace(finished.data, train=finished.data.train.subset(range(64)))
    with pytest.raises(SettingsError, match=r"data\.train is 96 there, 64 here"):
        train(replace(finished, data=fewer))


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_checkpoint(copied, keep):
    content = copied.checkpoint.read_bytes()
    copied.checkpoint.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(CheckpointError, match=r"last\.pt: cannot be read as a checkpoint"):
        train(copied)


def test_a_foreign_file_is_no_checkpoint(make_run):
    run = make_run(resume=True)
    run.folder.mkdir()
    torch.save({"weight": torch.zeros(1)}, run.checkpoint)
    with pytest.raises(CheckpointError, match="is not a checkpoint of recipes"):
        train(run)


def test_a_diverging_run_stops_and_keeps_its_checkpoint(copied):
    state = saved(copied)
    state["network"]["conv.weight"].fill_(torch.nan)
    torch.save(state, copied.checkpoint)
    before = copied.checkpoint.read_bytes()
    longer = replace(copied, settings=replace(copied.settings, epochs=3), checkpoint_steps=1)
    with pytest.raises(RecipeError, match="the loss is no longer a number at step 4; the last checkpoint is kept"):
        train(longer)
    assert copied.checkpoint.read_bytes() == before


@pytest.mark.parametrize(
    "settings",
    [
        {"batch": 96, "lr": 1e30},
        {"batch": 48, "lr": 1e38, "weight_decay": 1e10, "checkpoint_steps": 1},
        {"batch": 48, "lr": 1e38, "weight_decay": 1e10, "checkpoint_steps": 1, "schedule": "cosine", "warmup": 1},
    ],
)
def test_a_step_that_diverges_is_not_saved(make_run, settings):
    """Its own loss was computed before the step."""
    run = make_run(**settings)
    with pytest.raises(RecipeError, match="no longer a number at step 1"):
        train(run, run.model.build())
    assert not run.checkpoint.exists() and not (run.folder / "model.safetensors").exists()


def test_a_folder_is_one_runs(copied):
    with copied.held(main=True), pytest.raises(SettingsError, match="another process is training there"):
        train(copied)
    train(copied)
    lock = copied.folder / ".lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()  # stands for another user's
    with pytest.raises(SettingsError, match=r"\.lock: cannot be locked .* choose another --out"):
        train(copied)


def test_a_batch_is_no_more_than_all_images(make_run):
    run = make_run(batch=96)
    with pytest.raises(SettingsError, match="a batch of 96 is more than the 95 images to train on; lower --batch"):
        replace(run, data=replace(run.data, train=run.data.train.subset(range(95))))


def test_tensorboard_after_a_resumption(make_run, monkeypatch):
    """Rows after the checkpoint's epoch, from a killed run, are replaced."""
    run = make_run(tensorboard=True, resume=True)
    keep_checkpoints(monkeypatch)
    validations(monkeypatch, [50.0, 40.0])
    train(run)
    (run.folder.with_name("run-3") / "last.pt").replace(run.checkpoint)
    validations(monkeypatch, [30.0])
    monkeypatch.setattr("recipes.training.state.save_checkpoint", lambda *_: None)
    train(run)
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val_top1")] == [(1, 50.0), (2, 30.0)]
    assert {"train_loss", "lr", "best"} <= {*events.Tags()["scalars"]}


def test_accelerator_is_left_free(copied, make_run):
    """Several runs in one process, as fine-tuning makes them, do not hold on to each other's networks."""
    accelerator = Accelerator()
    for run in (copied, make_run(epochs=1)):
        fit(run, Tiny(), accelerator)
    assert not accelerator._models and not accelerator._optimizers


def test_an_interrupted_run_leaves_nothing_to_the_next(make_run, monkeypatch):
    """Such as half a step's gradients, or its network."""
    accelerator, train_on = Accelerator(), Training.train_on

    def interrupted(self, images, labels, part):
        if part == 1:
            raise KeyboardInterrupt
        return train_on(self, images, labels, part)

    monkeypatch.setattr(Training, "train_on", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(make_run("interrupted", device_batch=16), Tiny(), accelerator)
    monkeypatch.undo()
    assert not accelerator._models and not accelerator._optimizers
    fit(make_run("next", epochs=1, device_batch=16), after := Tiny(), accelerator)
    fit(make_run("again", epochs=1, device_batch=16), alone := Tiny(), Accelerator())
    assert same(after.state_dict(), alone.state_dict())
