"""The paper's tables: every row has a network here, and its figures; with weights, ours beside them."""

from collections import defaultdict

import pytest
import torch
from torchvision.models import densenet161

import recipes
from recipes.commands import tables
from recipes.commands.evaluate import Evaluation
from recipes.commands.tables import Which
from recipes.errors import CheckpointError, SettingsError, UnknownNameError
from recipes.networks.any_model import Model
from recipes.networks.paper import TEAMS, Errors
from recipes.weights.described import Description, save_model

CLASSES = ["ant", "bee", "cat"]


def cells(page, title):
    """Rows of the table under a title, by their first cell."""
    lines = page.partition(f"## {title}")[2].partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_the_papers_rows():
    """Titles, in the order of the tables, and figures; the paper prints the differences, too."""
    page = tables.page({})
    depth = cells(page, "Table 1")
    assert {title: row[3] for title, row in depth.items()} == {
        "ResNet-50": "-1.51 / -0.86",
        "ResNet-101": "-0.79 / -0.45",
        "ResNet-152": "-0.85 / -0.61",
    }
    others = cells(page, "Table 2")
    assert {title: row[3] for title, row in others.items()} == {
        "ResNeXt-50 (32x4d)": "-1.01 / -0.41",
        "ResNeXt-101 (32x4d)": "-0.48 / -0.56",
        "VGG-16": "-1.80 / -1.11",
        "BN-Inception": "-1.15 / -0.75",
        "Inception-ResNet-v2": "-0.57 / -0.42",
    }
    assert others["BN-Inception"][:3] == ["25.20 / 7.82", "25.38 / 7.89", "24.23 / 7.14"]
    art = cells(page, "Table 4")
    assert {title: row[:2] for title, row in art.items()} == {
        "ResNet-152": ["23.00 / 6.70", "21.30 / 5.50"],
        "ResNet-200": ["21.70 / 5.80", "20.10 / 4.80"],
        "Inception-v3": ["-", "21.20 / 5.60"],
        "Inception-v4": ["-", "20.00 / 5.00"],
        "Inception-ResNet-v2": ["-", "19.90 / 4.90"],
        "ResNeXt-101 (64x4d)": ["20.40 / 5.30", "19.10 / 4.40"],
        "DenseNet-161 (k = 48)": ["22.20 / -", "-"],
        "Very Deep PolyNet": ["-", "18.71 / 4.25"],
        "DPN-131": ["19.93 / 5.12", "18.55 / 4.16"],
        "SENet": ["18.68 / 4.47", "17.28 / 3.79"],
    }
    assert list(art)[:5] == ["ResNet-152", "ResNet-200", "Inception-v3", "Inception-v4", "Inception-ResNet-v2"]
    assert cells(page, "Table 5")["WMW (SENets)"] == ["2017", "2.251"]
    assert round(1 - TEAMS[0].top5 / TEAMS[3].top5, 2) == 0.25  # "a relative improvement of ~25 %" to 2016's winner
    ours = [cell for table in (depth, others) for row in table.values() for cell in row[4:]]
    assert {*ours, *(cell for row in art.values() for cell in row[2:])} == {"-"}


def test_every_system_has_a_network():
    for system in recipes.list_systems():
        assert all(name in recipes.networks.NETWORKS for name in system.networks)
        assert all(recipes.get(name).paper is system.paper for name in system.networks)
    text = recipes.list_systems().table("github")
    assert "| DenseNet-161 (k = 48) | 4        | densenet161" in text and "no sites" in text
    assert Errors(None, 1.0) - Errors(2.0, 3.0) == Errors(None, -2.0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder as train and others leave it, and a file of others."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, gates, path in [
        ("se_bn_inception", "none", "runs/se_bn_inception-plain/model.safetensors"),
        ("se_bn_inception", "standard", "runs/se_bn_inception/model.safetensors"),
        ("se_resnet20", "standard", "runs/any name.safetensors"),
    ]:
        model = Model(name, gates, 3)
        save_model(folder / path, model.build(), Description(model, model.preprocess(None), CLASSES))
    torch.save(Model("se_resnet20", "none", 3).build().state_dict(), folder / "runs" / "se_resnet20-plain.pth")
    torch.save(densenet161(num_classes=3).state_dict(), folder / "dense.pth")
    return folder


def test_tables_of_ones_own(weights, folders, tmp_path, capsys, monkeypatch):
    """Each network is in its row and column, at both crops where its table has two, and all are fused."""
    evaluated, predict = defaultdict(list), Evaluation.predict

    def noted(self, *arguments):
        evaluated[self.model.name].append((self.preprocess.size, self.preprocess.resize))
        return predict(self, *arguments)

    monkeypatch.setattr(Evaluation, "predict", noted)
    flags = ["--data", str(folders), "--size", "32", "--out", str(tmp_path / "t.md")]
    found = tables.main([str(weights / "runs"), f"densenet161={weights / 'dense.pth'}", *flags])
    dense = Which("densenet161", gated=False)
    assert set(found) == {
        *(Which(name, gated) for name in ("se_bn_inception", "se_resnet20") for gated in (False, True)),
        dense,
        dense._replace(larger=True),
    }
    assert evaluated["densenet161"] == [(32, 37), (46, 53)] and evaluated["se_bn_inception"] == [(32, 37)] * 2

    page = (tmp_path / "t.md").read_text()
    assert page in capsys.readouterr().out and '"here" is 6 images of images.' in page
    plain, gated = (found[Which("se_bn_inception", form)] for form in (False, True))
    assert cells(page, "Table 2")["BN-Inception"][4:] == [str(plain), str(gated), str(gated - plain)]
    assert cells(page, "Table 4")["DenseNet-161 (k = 48)"][2:4] == [
        str(found[dense]),
        str(found[dense._replace(larger=True)]),
    ]
    assert cells(page, "Other networks")["se_resnet20"][0] == str(found[Which("se_resnet20", False)])
    assert "here: the 6 above, fused" in cells(page, "Table 5")


def test_refuses(weights, folders, tmp_path):
    flags = ["--data", str(folders), "--size", "32", "--out", str(tmp_path / "t.md")]
    file = weights / "runs" / "se_resnet20-plain.pth"
    (tmp_path / "empty").mkdir()
    for arguments, error, says in [
        (["nowhere"], SettingsError, "nowhere: give NAME=FILE, a file of ours, or a folder"),
        ([f"={file}"], SettingsError, "give NAME=FILE"),
        (["se_resnet20="], SettingsError, "give NAME=FILE"),
        ([str(file)], SettingsError, "give NAME=FILE"),
        ([str(tmp_path / "empty")], CheckpointError, "holds neither NAME"),
        ([f"resnet_20={file}"], UnknownNameError, "se_resnet20"),
        ([f"se_resnet20={file}", f"se_resnet20-plain={file}"], SettingsError, "there is a plain se_resnet20 already"),
        ([f"se_resnet20={weights / 'nowhere.pth'}"], CheckpointError, "no such file"),
        ([f"se_resnet56={file}"], CheckpointError, "of another network"),
    ]:
        with pytest.raises(error, match=says):
            tables.main([*arguments, *flags])
    gated = weights / "runs" / "any name.safetensors"
    with pytest.raises(CheckpointError, match="holds se_resnet20 with gates, not the plain network"):
        tables.main([f"se_resnet20-plain={gated}", *flags])
    assert not (tmp_path / "t.md").exists()
    assert set(tables.main([str(gated), *flags])) == {Which("se_resnet20", gated=True)}  # that file says what it is


def test_networks_of_other_numbers_of_outputs_are_not_fused(weights, folders, tmp_path):
    model = Model("se_resnet56", "standard", 4)  # as train --num-classes 4 makes it
    save_model(tmp_path / "four.safetensors", model.build(), Description(model, model.preprocess(None), CLASSES))
    flags = ["--data", str(folders), "--size", "32", "--out", str(tmp_path / "t.md")]
    with pytest.raises(SettingsError, match=r"different numbers of outputs \(3, 4\).*evaluate them by themselves"):
        tables.main(
            [str(tmp_path / "four.safetensors"), f"se_resnet20={weights / 'runs' / 'se_resnet20-plain.pth'}", *flags]
        )


def test_a_runs_own_folder(folders, tmp_path):
    """With its checkpoint and the best weights beside the last; also where its name has an equals sign."""
    model, run = Model("se_resnet20", "standard", 3), tmp_path / "lr=0.1"
    for name in ("model", "best"):
        save_model(run / f"{name}.safetensors", model.build(), Description(model, model.preprocess(None), CLASSES))
    (run / "last.pt").touch()
    flags = ["--data", str(folders), "--size", "32", "--out", str(tmp_path / "t.md")]
    assert set(tables.main([str(run), *flags])) == {Which("se_resnet20", gated=True)}
