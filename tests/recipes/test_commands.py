"""The commands, as their users call them: what they print and write, and what they refuse."""

import contextlib
import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import recipes
import se_inject
from recipes.commands import evaluate, finetune, tables, train
from recipes.errors import CheckpointError, DataError, RecipeError, SettingsError, UnknownNameError
from recipes.networks.any_model import Model, check_input
from recipes.training.log import read_log
from recipes.training.metrics import mean_probability, score
from recipes.weights.described import load_model

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
SMALL = ["--preset", "small", "--epochs", "1", "--batch", "256"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of runs after the commands of the recipes' page: a plain and an SE network, trained on the digits."""
    commands = [line.split() for line in PAGE.read_text().splitlines() if line.startswith("python -m recipes ")]
    root = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(root):
        for _, _, _, command, *arguments in commands:
            importlib.import_module(f"recipes.commands.{command}").main(arguments)
    return root / "runs"


def test_commands_of_the_page(trained):
    expected = ["curves.png", "evaluation.json", "finetune-se_resnet20", "gates.png", "plain", "se"]
    assert sorted(path.name for path in trained.iterdir()) == expected


def test_train_makes_the_network_that_was_asked_for(trained):
    _, about = load_model(trained / "se" / "model.safetensors")
    assert about.model == Model("se_resnet20", "standard", 10, 16)
    assert about.preprocess.size == 8 and len(about.classes) == 10
    network, about = load_model(trained / "plain" / "model.safetensors")
    assert about.model.gates == "none" and not list(se_inject.gates(network))


def test_train_on_folders(folders, tmp_path):
    flags = [
        "--data",
        str(folders),
        "--size",
        "32",
        "--num-classes",
        "5",
        "--reduction",
        "2",
        "--augmentation",
        "paper",
    ]
    rows = train.main([*SMALL, *flags, "--batch", "6", "--epochs", "2", "--out", str(tmp_path / "run")])
    assert [row["step"] for row in rows] == [3, 6]
    network, about = load_model(tmp_path / "run" / "model.safetensors")
    assert about.model.num_classes == 5 and about.classes == ["ant", "bee", "cat"]
    assert (about.preprocess.size, about.preprocess.resize) == (32, 37)
    assert next(gate for _, gate in se_inject.gates(network)).fc1.out_channels == 8


def test_command_line_says_errors_without_a_traceback(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "recipes", "train", "--data", "nowhere"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 1 and result.stderr.startswith("error: nowhere: there is no such directory")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("flags", "error", "says"),
    [
        (["--network", "se_resnet21"], UnknownNameError, "se_resnet20"),
        (["--num-classes", "9"], SettingsError, "the data has 10 classes, the network only 9 outputs"),
        (
            ["--network", "se_bn_inception"],
            SettingsError,
            "se_bn_inception cannot train on 128 images of 8 pixels at once",
        ),
        (["--reduction", "0"], se_inject.errors.InvalidArgumentError, "reduction must be >= 1"),
        (["--lr", "-1"], SettingsError, "lr must be at least 0"),
        (["--batch", "100", "--device-batch", "64"], SettingsError, "does not divide"),
        (["--unreadable", "skip", "--data", "nowhere"], DataError, "no such directory"),
        (["--mixed-precision", "fp16"], SettingsError, "needs a GPU"),
        (["--size", "0"], SystemExit, "2"),
        (["--checkpoint-steps", "0"], SystemExit, "2"),
        (["--workers", "-1"], SystemExit, "2"),
    ],
)
def test_train_refuses_before_training(flags, error, says, tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.training.state.Training.train_on", lambda *_: pytest.fail("it trained"))
    with pytest.raises(error, match=says):
        train.main([*SMALL, *flags, "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_train_checks_its_folder_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("recipes.training.state.Training.train_on", lambda *_: pytest.fail("it trained"))
    with pytest.raises(SettingsError, match=r"file/run/last\.pt: cannot be written"):
        train.main([*SMALL, "--out", str(tmp_path / "file" / "run")])


def test_evaluate_agrees_with_the_log(trained, tmp_path, capsys):
    rows = evaluate.main(["--checkpoint", str(trained / "se" / "model.safetensors"), "--out", str(tmp_path / "e.json")])
    last = read_log(trained / "se")[-1]
    for name in ("loss", "top1", "top5"):
        assert rows[0][name] == pytest.approx(last[f"val_{name}"], rel=1e-6)
    report = json.loads((tmp_path / "e.json").read_text())
    assert report["images"] == 450 and report["results"] == rows
    assert "top-1 error %" in capsys.readouterr().out


def test_finetune(trained):
    """The command of the page. The start is the plain network's last row; the control is plain and moved; gates did."""
    folder = trained / "finetune-se_resnet20"
    report = json.loads((folder / "report.json").read_text())
    assert report["plain"]["top1"] == pytest.approx(read_log(trained / "plain")[-1]["val_top1"], abs=1e-6)
    assert report["plain, trained as long"]["loss"] == read_log(folder / "plain")[-1]["val_loss"]
    assert report["with gates"]["loss"] == read_log(folder / "gates")[-1]["val_loss"]
    names = (trained / "plain", folder / "plain", folder / "gates")
    before, control, gated = (load_file(name / "model.safetensors") for name in names)
    assert control.keys() == before.keys() and not torch.equal(control["conv1.weight"], before["conv1.weight"])
    network, about = load_model(folder / "gates" / "model.safetensors")
    assert about.model.gates == "identity" and all(gate.fc2.weight.any() for _, gate in se_inject.gates(network))
    assert not torch.equal(before["conv1.weight"], gated["conv1.weight"])


@pytest.mark.parametrize(
    "name", ["torchvision/raft_small", "torchvision/fcn_resnet50", "timm/hf_hub:a/b", "keras/resnet50", "timm/no_such"]
)
def test_models_that_are_no_classifiers(name):
    with pytest.raises(UnknownNameError, match="no such model"):
        Model(name, "none", 10).build()


@pytest.mark.parametrize(("name", "size", "batch"), [("timm/vit_tiny_patch16_224", 32, 2), ("timm/resnet18", 32, 1)])
def test_inputs_that_a_model_cannot_take(name, size, batch):
    model = Model(name, "none", 10)
    with pytest.raises(SettingsError, match=f"cannot train on {batch} images of {size} pixels"):
        check_input(model.build(), model, size, batch)


class LooksAtValues(nn.Module):
    """Its forward cannot do without values, and makes a tensor where it runs on a CPU."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 10)

    def forward(self, x):
        x = x.mean((2, 3)) + torch.arange(3.0)
        return self.fc(-x if x.max() < 0 else x)


def test_inputs_are_tried_in_earnest_where_shapes_do_not_suffice():
    model, network = Model("my_networks:mine", "none", 10), LooksAtValues()
    state = torch.get_rng_state()
    check_input(network, model, 16)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(SettingsError, match=r"cannot train on 2 images of 16 pixels.*mat1 and mat2"):
        check_input(nn.Sequential(nn.Flatten(), nn.Linear(3, 10)), model, 16)


def test_finetune_gates_alone_then_resumes_and_refuses(trained, tmp_path, monkeypatch, capsys):
    """The weights are of the data's classes: the head stays."""
    weights, folder = str(trained / "plain" / "model.safetensors"), tmp_path / "run"
    flags = ["--model", "se_resnet20", "--weights", weights, "--out", str(folder), "--train", "gates"]
    flags += ["--epochs", "1", "--batch", "32", "--per-class", "4", "--val-per-class", "2", "--reduction", "4"]
    report = finetune.main(flags)
    said = capsys.readouterr().out
    assert "validation error unchanged by the gates, to the bit" in said and "plain, trained as long" in said
    assert "new head" not in said
    before, after = load_file(weights), load_file(folder / "gates" / "model.safetensors")
    assert all(torch.equal(after[key], value) for key, value in before.items())
    network, about = load_model(folder / "gates" / "model.safetensors")
    assert about.model.reduction == 4 and all(gate.fc2.weight.any() for _, gate in se_inject.gates(network))
    assert [gate.fc1.out_channels for _, gate in se_inject.gates(network)][-1] == 16

    monkeypatch.setattr("recipes.training.state.Training.train_on", lambda *_: pytest.fail("it trained"))
    assert finetune.main([*flags, "--resume"]) == report
    with pytest.raises(SettingsError, match="holds a run already"):
        finetune.main(flags)
    with pytest.raises(CheckpointError, match="there is no such file"):
        finetune.main([*flags, "--weights", "nowhere.pt"])
    state = load_file(weights)
    state["fc.bias"] += 1
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(SettingsError, match=r"weights\.start is"):
        finetune.main([*flags, "--resume", "--weights", str(tmp_path / "other.pth")])
    (tmp_path / "cut.pt").write_bytes(Path(weights).read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"cut\.pt: cannot be read as weights"):
        finetune.main([*flags, "--weights", str(tmp_path / "cut.pt")])

    # the check is real: gates that do change the predictions stop the run before the first step
    monkeypatch.setattr(Model, "add_gates", lambda self, network: nn.init.normal_(network.fc.bias) is None or network)
    with pytest.raises(RecipeError, match="the gates changed the predictions before the first step"):
        finetune.main([*flags, "--out", str(tmp_path / "changed")])
    assert not (tmp_path / "changed").exists()


def test_score_counts_over_all_images():
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(size=(200, 20)), dtype=torch.float32).log_softmax(1)
    labels = torch.tensor(rng.integers(0, 20, 200))
    found = score(logits, labels)
    top5 = logits.topk(5).indices
    assert found["top1"] == pytest.approx(100 * (top5[:, 0] != labels).float().mean().item(), abs=1e-4)
    assert found["top5"] == pytest.approx(100 * (top5 != labels[:, None]).all(1).float().mean().item(), abs=1e-4)
    assert found["loss"] == pytest.approx(torch.nn.functional.nll_loss(logits, labels).item(), rel=1e-5)
    assert torch.allclose(mean_probability([logits, logits]), logits, atol=1e-6)


def test_what_to_install_is_said(monkeypatch):
    """By an installed package whose extra is not."""
    monkeypatch.setitem(sys.modules, "tabulate", None)
    file = Path(recipes.__file__)
    spec = importlib.util.spec_from_file_location("bare", file, submodule_search_locations=[str(file.parent)])
    bare = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bare", bare)
    with pytest.raises(ModuleNotFoundError, match=r"tabulate.*; .* pip install 'se-inject\[recipes\]'"):
        spec.loader.exec_module(bare)
    for name in [name for name in sys.modules if name.startswith("bare.")]:
        del sys.modules[name]


def test_help_says_how_the_command_is_called_here(monkeypatch, capsys):
    monkeypatch.setattr("recipes.commands.flags.PACKAGE", "se_inject_recipes")
    with pytest.raises(SystemExit):
        tables.main(["--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: python -m se_inject_recipes tables") and "-m recipes" not in said
