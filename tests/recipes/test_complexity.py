"""What gates cost, measured, beside what the authors say."""

import pytest
import timm
import torch

import recipes
import se_inject
from recipes.commands import complexity
from recipes.errors import SettingsError, UnknownNameError


def lines(page):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]


def test_complexity(tmp_path, capsys):
    out = tmp_path / "c.md"
    regnet = "torchvision/regnet_x_400mf"  # of the kind that cannot be built on the meta device
    flags = ["--rounds", "3", "--size", "16", "--out", str(out)]
    found, _ = complexity.main(["se_resnet20", regnet, *flags])
    row = recipes.list_networks("se_resnet20")[0]
    assert (found.cpu.plain.parameters, found.cpu.gated.parameters) == row.parameters
    added = found.cpu.gated.multiply_adds - found.cpu.plain.multiply_adds
    assert added == round((row.gflops[1] - row.gflops[0]) * 1e9)  # whatever the size
    assert found.cpu.inputs == ("(1, 3, 16, 16)",) and found.cpu.rounds == 3
    assert out.read_text() in capsys.readouterr().out
    _, _, network, other, said, *_ = lines(out.read_text())
    assert (
        network[:3] == ["se_resnet20", "269,722", "+2.14 %"]
        and f"{100 * (found.cpu.ratio.median - 1):+.2f} %" in network[6]
    )
    assert other[0] == regnet and said[2::2] == ["2 to 10 %", "< 1 %", "< 2 %", "10 %"]
    assert (network[7:] == ["-", "-"]) != torch.cuda.is_available()


def test_says_where_parameters_are_if_they_are_many(tmp_path):
    out = tmp_path / "c.md"
    flags = ["--reduction", "1", "--rounds", "2", "--size", "32", "--out", str(out)]
    (found,) = complexity.main(["timm/test_resnet", *flags])
    plain, gated = found.cpu.plain.parameters, found.cpu.gated.parameters
    page = out.read_text()
    assert lines(page)[2][2] == f"**{100 * (gated / plain - 1):+.2f} %**" and gated > 1.1 * plain
    assert "timm/test_resnet: a gate has 2 C² / r weights" in page
    assert sum(width.in_gates for width in found.widths) == gated - plain
    base = timm.create_model("test_resnet")
    blocks = [base.get_submodule(site.path) for site in se_inject.find_sites(base)]
    own = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    assert sum(width.in_blocks for width in found.widths) == own
    assert sum(width.gates for width in found.widths) == len(found.cpu.gates)
    *widths, outside = lines(page)[6:]
    assert [[f"{n:,}" for n in width] for width in found.widths] == [line[:4] for line in widths]
    assert sum(int(line[3].replace(",", "")) for line in [*widths, outside]) == plain


def test_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(se_inject, "report", lambda *_, **__: pytest.fail("it measured"))
    out = ["--out", str(tmp_path / "c.md")]
    for arguments, error, says in [
        (["se_resnet20", "se_resnet_200"], UnknownNameError, "se_resnet200"),
        (["timm/resnet5O"], UnknownNameError, "timm/resnet50"),
        (["se_resnet20", "densenet161"], SettingsError, "densenet161 has no sites"),
        (["timm/seresnet18"], se_inject.errors.NoSiteError, "gate"),
        (["se_bn_inception", "--size", "40"], SettingsError, "se_bn_inception cannot take images of 40 pixels"),
        (["pytorchcv/quartznet5x5_en_ls"], SettingsError, "is no classifier of images|not installed: .*librosa"),
        (["se_resnet20", "--batch", str(10**9)], SettingsError, "more than this machine's"),
        (["se_resnet20", "--rounds", "1"], SystemExit, "2"),
        ([], SystemExit, "2"),
    ]:
        with pytest.raises(error, match=says):
            complexity.main([*arguments, *out])


def test_networks_for_other_numbers_of_classes(tmp_path):
    """pytorchcv's networks for CIFAR can have no others."""
    out = ["--out", str(tmp_path / "c.md")]
    (found,) = complexity.main(["pytorchcv/resnet20_cifar10", "--rounds", "2", *out])
    row = recipes.list_networks("se_resnet20")[0]
    assert found.cpu.inputs == ("(1, 3, 32, 32)",)
    assert found.cpu.gated.parameters - found.cpu.plain.parameters == row.parameters[1] - row.parameters[0]
