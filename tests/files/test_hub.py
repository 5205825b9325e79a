"""Folders for a hub, and hf:// addresses, with a hub that is a folder."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

import se_inject
from se_inject.errors import GateFileError, GateFileNotFoundError

from ..support.blocks import network


def gated():
    model = se_inject.apply(network())
    for parameter in se_inject.gate_parameters(model):
        torch.nn.init.normal_(parameter)
    return model


def gate_values(model):
    return [parameter.clone() for parameter in se_inject.gate_parameters(model)]


def test_folder_has_card_and_config(tmp_path):
    model = gated()
    se_inject.save_gates(model, tmp_path / "ours", base="me/net", metrics={"top-1 error": 23.5}, include="6.*")
    assert sorted(file.name for file in (tmp_path / "ours").iterdir()) == [
        "README.md",
        "config.json",
        "gates.safetensors",
    ]
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["base"]["name"] == "me/net" and [gate["path"] for gate in config["gates"]] == ["1.se", "2.se", "3.se"]
    card = (tmp_path / "ours" / "README.md").read_text()
    for part in ('base_model: "me/net"', "# 3 se gates for me/net", "`1.se`", "| top-1 error | 23.5 |", "load_gates("):
        assert part in card
    loaded = se_inject.load_gates(se_inject.apply(network()), tmp_path / "ours")
    assert all(map(torch.equal, gate_values(loaded), gate_values(model)))


def test_another_librarys_folder_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(GateFileError, match=r"has a config\.json of something else"):
        se_inject.save_gates(gated(), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub in a folder, for huggingface_hub's three calls."""
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def download(repository, name, *, revision=None):
        file = tmp_path / "hub" / repository / name
        if not file.exists():
            response = SimpleNamespace(headers={}, request=None, status_code=404)
            raise huggingface_hub.errors.RepositoryNotFoundError("404 Client Error", response=response)
        assert revision in (None, "v1")
        return str(file)

    class Api:
        def create_repo(self, repository, *, private, exist_ok):
            (tmp_path / "hub" / repository).mkdir(parents=True, exist_ok=exist_ok)
            return f"https://hub/{repository}"

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / "hub" / repo_id, dirs_exist_ok=True)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return tmp_path / "hub"


def test_pushed_gates_are_loaded(hub):
    model = gated()
    assert se_inject.push_gates(model, "me/gates") == "https://hub/me/gates"
    assert 'load_gates(model, "hf://me/gates")' in (hub / "me" / "gates" / "README.md").read_text()
    for address in ("hf://me/gates", "hf://me/gates@v1"):
        loaded = se_inject.load_gates(se_inject.apply(network()), address)
        assert all(map(torch.equal, gate_values(loaded), gate_values(model)))


def test_what_is_not_on_the_hub_is_told(hub):
    with pytest.raises(GateFileError, match=r"hf://me/other: cannot be fetched"):
        se_inject.load_gates(network(), "hf://me/other")


def test_folder_without_gates_is_told(tmp_path):
    with pytest.raises(GateFileNotFoundError, match=r"gates\.safetensors: there is no such file"):
        se_inject.load_gates(network(), tmp_path)
