"""The loop: what a run leaves behind, that it learns, that settings do what they say, and what stops it early."""

import json
import math
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import se_inject
from recipes.data import open_data
from recipes.errors import CheckpointError, RecipeError, SettingsError
from recipes.training.accelerator import make_accelerator
from recipes.training.log import TensorBoard, read_log
from recipes.training.loop import fit
from recipes.training.optimizer import parameter_groups
from recipes.training.settings import PRESETS, Settings
from recipes.weights.described import load_model


def train(run, network=None):
    torch.manual_seed(0)
    network = network or run.model.build()
    return fit(run, network, make_accelerator(run.settings.mixed_precision)), network


def weights(run):
    return torch.load(run.checkpoint, weights_only=True)["network"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_checkpoint_log_and_weights(make_run):
    run = make_run(epochs=3)
    rows, network = train(run)
    visible = sorted(path.name for path in run.folder.iterdir() if not path.name.startswith("."))
    assert visible == ["last.pt", "log.csv", "model.safetensors"]
    assert read_log(run.folder) == rows and [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["lr"] for row in rows] == pytest.approx([0.1, 0.01, 0.001])
    assert all(50 < row[name] <= 100 for row in rows[:1] for name in ("train_top1", "val_top1"))  # of ten classes
    loaded, about = load_model(run.folder / "model.safetensors")
    assert (about.model, about.preprocess, about.classes) == (run.model, run.preprocess, list(run.data.classes))
    assert same(loaded.state_dict(), network.state_dict()) and same(weights(run), network.state_dict())


def test_it_learns(make_run):
    """Plain and with gates, from 10 classes at random to most of them right, on images it has not seen."""
    for gates in ("none", "standard"):
        rows, _ = train(make_run(gates, gates=gates, epochs=8, batch=16, lr_step=6))
        assert rows[0]["train_loss"] > 2 and rows[-1]["train_loss"] < 0.7 * rows[0]["train_loss"]


def test_paper_preset():
    paper = PRESETS["paper"]
    assert paper == Settings()
    assert (paper.epochs, paper.batch, paper.lr, paper.lr_step, paper.momentum) == (100, 1024, 0.6, 30, 0.9)
    assert paper.augmentation == "paper" and paper.share(8).device_batch == paper.share(1).device_batch == 128


def test_momentum_and_schedule_reach_the_optimizer(make_run, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "recipes.training.loop.parameter_groups", lambda *given: seen.append(given) or parameter_groups(*given)
    )
    sgd = torch.optim.SGD
    monkeypatch.setattr(torch.optim, "SGD", lambda groups, **options: seen.append(options) or sgd(groups, **options))
    run = make_run(epochs=1, momentum=0.7)
    train(run)
    assert seen[0][1] == run.settings and seen[1] == {"momentum": 0.7}
    state = torch.load(run.checkpoint, weights_only=True)["optimizer"]
    assert {group["momentum"] for group in state["param_groups"]} == {0.7}
    assert all(one["momentum_buffer"].any() for one in list(state["state"].values())[:3])


def test_accumulation_is_the_whole_batch(make_run):
    """With batch statistics that do not depend on the parts, two parts make the same step as one."""

    def network():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))

    whole, parts = make_run("whole"), make_run("parts", device_batch=8)
    (one, _), (four, _) = train(whole, network()), train(parts, network())
    assert [row["step"] for row in one] == [row["step"] for row in four] == [3, 6]
    for row, other in zip(one, four, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)
    for key, value in weights(whole).items():
        torch.testing.assert_close(value, weights(parts)[key], rtol=1e-4, atol=1e-5)


def test_ema_is_validated_and_saved(make_run):
    run = make_run(ema=0.5)
    _, network = train(run)
    saved = load_model(run.folder / "model.safetensors")[0].state_dict()
    average = torch.load(run.checkpoint, weights_only=True)["average"]
    assert all(torch.equal(saved[key], average[f"module.{key}"]) for key in saved)
    assert not torch.equal(saved["conv1.weight"], network.state_dict()["conv1.weight"])
    once = make_run("once", ema=0.5, epochs=1, batch=96)  # after one step there is nothing older to average with
    _, network = train(once)
    assert same(load_model(once.folder / "model.safetensors")[0].state_dict(), network.state_dict())


def raise_at_the_first_epochs_end(training, seconds):
    raise StopIteration


@pytest.mark.parametrize("settings", [{"channels_last": True, "ema": 0.9}, {"mixed_precision": "bf16"}])
def test_flags_change_how_not_what(make_run, monkeypatch, settings):
    """Nearly the plain run's losses, and still the same to the bit after a resumption in the middle."""
    expected, _ = train(make_run("a"))
    AcceleratorState._reset_state(reset_partial_state=True)
    rows, network = train(make_run("b", **settings))
    assert rows[0]["train_loss"] == pytest.approx(expected[0]["train_loss"], rel=0.05)
    if "mixed_precision" in settings:  # numbers of eight bits of precision differ
        assert rows[0]["train_loss"] != expected[0]["train_loss"]
    if "channels_last" in settings:
        assert network.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    part = make_run("c", resume=True, checkpoint_steps=1, **settings)
    with monkeypatch.context() as patch, pytest.raises(StopIteration):
        patch.setattr("recipes.training.loop._Training.end_epoch", raise_at_the_first_epochs_end)
        train(part)
    assert torch.load(part.checkpoint, weights_only=True)["step"] == 2
    train(part)
    assert same(weights(part), network.state_dict())


def test_compile(make_run, monkeypatch):
    """The network is compiled, and its losses stay. ``aot_eager`` stands for the default back end, for speed."""
    seen = []
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: (seen.append(self), compile_(self, backend="aot_eager")))
    (expected, _), (rows, network) = train(make_run("a", epochs=1)), train(make_run("b", epochs=1, compile=True))
    assert seen == [network]
    assert rows[0]["train_loss"] == pytest.approx(expected[0]["train_loss"], rel=1e-3)


def test_workers_change_nothing(make_run):
    (one, a), (two, b) = train(make_run("a", epochs=1)), train(make_run("b", epochs=1, workers=2))
    assert same(a.state_dict(), b.state_dict())
    assert one[0] | {"seconds": 0} == two[0] | {"seconds": 0}


def test_parameter_groups():
    network = se_inject.apply(nn.Sequential(_Block()))
    groups = parameter_groups(network, Settings(lr=0.1, gate_lr=0.5, weight_decay=0.01))
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.1, 0.01), (0.5, 0.01), (0.5, 0)]
    gate = network[0].se
    assert [id(p) for p in groups[1]["params"]] == [id(gate.fc1.weight), id(gate.fc2.weight)]
    assert [id(p) for p in groups[2]["params"]] == [id(gate.fc1.bias), id(gate.fc2.bias)]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    se_inject.freeze_backbone(network)
    assert [group["lr"] for group in parameter_groups(network, Settings(lr=0.1))] == [0.1, 0.1]


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x):
        return x + self.bn(self.conv(x))


def test_a_folder_in_use_is_not_overwritten(make_run):
    run = make_run()
    train(run)
    before = run.checkpoint.read_bytes()
    with pytest.raises(SettingsError, match=r"holds a run already; continue it with --resume"):
        train(run)
    assert run.checkpoint.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"network": "se_resnet56"}, CheckpointError, r"model.name is 'se_resnet20' there, 'se_resnet56' here"),
        ({"gates": "none"}, CheckpointError, "model.gates is 'standard' there, 'none' here"),
        ({"lr": 0.3}, SettingsError, "settings.lr is 0.1 there, 0.3 here"),
        ({"seed": 5}, SettingsError, "settings.seed is 0 there, 5 here"),
    ],
)
def test_another_run_is_not_resumed(make_run, change, error, says):
    run = make_run(epochs=1)
    train(run)
    before = run.checkpoint.read_bytes()
    with pytest.raises(error, match=says):
        train(make_run(**{"epochs": 1, "resume": True} | change))
    assert run.checkpoint.read_bytes() == before


def test_other_data_is_not_resumed(make_run):
    run = make_run(epochs=1, resume=True)
    train(run)
    other = replace(run, data=replace(run.data, train=open_data(None).train.subset(range(100, 196))))
    with pytest.raises(SettingsError, match=r"data\.digest"):
        train(other)
    fewer = replace(run, data=replace(run.data, train=run.data.train.subset(range(64))))
    with pytest.raises(SettingsError, match=r"data\.train is 96 there, 64 here"):
        train(fewer)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_checkpoint(make_run, keep):
    run = make_run(epochs=1, resume=True)
    train(run)
    content = run.checkpoint.read_bytes()
    run.checkpoint.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(CheckpointError, match=r"last\.pt: cannot be read as a checkpoint"):
        train(run)


def test_a_foreign_file_is_no_checkpoint(make_run):
    run = make_run(resume=True)
    run.folder.mkdir()
    torch.save({"weight": torch.zeros(1)}, run.checkpoint)
    with pytest.raises(CheckpointError, match="is not a checkpoint of recipes"):
        train(run)


def test_a_diverging_run_stops_and_keeps_its_checkpoint(make_run):
    run = make_run(epochs=3, lr_step=3, checkpoint_steps=1)
    train(replace(run, settings=replace(run.settings, epochs=1)))
    state = torch.load(run.checkpoint, weights_only=True)
    state["network"]["conv1.weight"].fill_(torch.nan)
    state["identity"]["settings.epochs"] = 3
    torch.save(state, run.checkpoint)
    before = run.checkpoint.read_bytes()
    with pytest.raises(RecipeError, match="the loss is no longer a number at step 4; the last checkpoint is kept"):
        train(replace(run, resume=True))
    assert run.checkpoint.read_bytes() == before


def test_a_step_that_diverges_at_an_epochs_end_is_not_saved(make_run):
    """Its own loss was computed before the step."""
    run = make_run(epochs=2, batch=96, lr=1e30)
    with pytest.raises(RecipeError, match="no longer a number at step 1"):
        train(run)
    assert not run.checkpoint.exists()
    within = make_run("within", batch=48, lr=1e38, weight_decay=1e10, checkpoint_steps=1)
    with pytest.raises(RecipeError, match="no longer a number at step 1"):
        train(within)
    assert not within.checkpoint.exists()


def test_a_folder_is_one_runs(make_run):
    run = make_run()
    with run.held(main=True), pytest.raises(SettingsError, match="another process is training there"):
        train(run)
    train(run)


def test_tensorboard_after_a_resumption(make_run):
    """Rows after the checkpoint's epoch, from a killed run, are replaced."""
    run = replace(make_run(epochs=3, lr_step=3), tensorboard=True)
    train(run)
    saved = torch.load(run.checkpoint, weights_only=True)
    again = replace(run, folder=run.folder / "again", resume=True)
    TensorBoard(again.folder, 1).add({"epoch": 1, "val_top1": 1.0})
    TensorBoard(again.folder, 2).add({"epoch": 2, "val_top1": 2.0})
    events = EventAccumulator(str(again.folder / "tensorboard"))
    TensorBoard(again.folder, 2).add({"epoch": 2, "val_top1": 3.0})
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("val_top1")] == [(1, 1.0), (2, 3.0)]
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    expected = [(row["epoch"], pytest.approx(row["val_top1"])) for row in saved["history"]]
    assert [(event.step, event.value) for event in events.Scalars("val_top1")] == expected


def test_settings_that_mean_nothing():
    for bad in (
        {"epochs": 0},
        {"batch": 0},
        {"lr": -1.0},
        {"lr": math.nan},
        {"lr": math.inf},
        {"momentum": 1.0},
        {"seed": 2**63},
        {"ema": 1.0},
        {"lr_step": 0},
        {"device_batch": 0},
    ):
        with pytest.raises(SettingsError, match=next(iter(bad))):
            Settings(**bad)
    with pytest.raises(SettingsError, match="does not divide"):
        Settings(batch=100, device_batch=32).share(1)
    assert Settings(batch=12).share(1).device_batch == 12 and Settings(batch=960).share(1).device_batch == 120
    with pytest.raises(SettingsError, match="does not divide"):
        Settings(batch=3).share(2)
    with pytest.raises(SettingsError, match=r"does not divide into parts of 32 to 128"):
        Settings(batch=257).share(1)


def test_weights_file_is_plain(make_run):
    """safetensors with what is needed to build the network, readable by others."""
    from safetensors import safe_open

    run = make_run(epochs=1)
    train(run)
    with safe_open(run.folder / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["se_inject"])["model"]["name"] == "se_resnet20"
        assert "layer1.0.se.fc1.weight" in file.keys()  # noqa: SIM118


def test_accelerator_is_left_free(make_run):
    """Several runs in one process, as fine-tuning makes them, do not hold on to each other's networks."""
    accelerator = Accelerator()
    for name in "ab":
        run = make_run(name, epochs=1)
        fit(run, run.model.build(), accelerator)
    assert not accelerator._models and not accelerator._optimizers
