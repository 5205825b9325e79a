"""A few models of the long run in ``tests/zoo``, and that it would tell if something were wrong."""

import itertools
import json

import pytest

from . import check, expected, table, worker
from .twins import Twins, compare

MODELS = [
    ("timm", "dla46_c"),
    ("timm", "rexnet_100"),
    ("timm", "coat_lite_tiny"),
    ("torchvision", "quantized_googlenet"),
]


@pytest.mark.filterwarnings("ignore")  # of the models' own
@pytest.mark.parametrize(("library", "name"), MODELS)
def test_model(library, name):
    row = json.loads(json.dumps(check.check(library, name, run_up_to=10**9)))
    assert table.outcome(row) == "plain pass", row
    assert row["sites"] == row["expected"] > 0 and row["run"]


@pytest.mark.parametrize("name", ["repvgg_a0", "seresnet18", "vit_tiny_patch16_224"])
def test_model_with_nothing_to_gate(name):
    row = check.check("timm", name, run_up_to=10**9)
    assert table.outcome(row) == "nothing to gate" and row["sites"] == row["expected"] == 0


@pytest.mark.parametrize(("gated", "plain"), [("seresnext50_32x4d", "resnext50_32x4d"), ("legacy_seresnet18", None)])
def test_twins(gated, plain):
    assert compare(Twins("timm", gated, plain)) > 0


def test_wrong_places_are_told(monkeypatch):
    monkeypatch.setitem(expected.ROWS, "timm.models.resnet.BasicBlock", lambda b, above: [])
    row = check.check("timm", "resnet18", run_up_to=0)
    assert row["unexpected"] and table.outcome(row) == "other"
    monkeypatch.setitem(expected.ROWS, "timm.models.resnet.BasicBlock", lambda b, above: [7])
    assert table.outcome(check.check("timm", "resnet18", run_up_to=0)) == "other"
    monkeypatch.delitem(expected.ROWS, "timm.models.resnet.BasicBlock")
    assert check.check("timm", "resnet18", run_up_to=0)["unchecked"] == ["timm.models.resnet.BasicBlock"]


def test_table(tmp_path):
    rows = [check.check("timm", name, run_up_to=0) for name in ("resnet18", "vgg11")]
    rows.append({"library": "timm", "model": "broken", "error": "ValueError: no"})
    rows.append({"library": "exported", "model": "timm/resnet18", "outcome": "equal", "sites": 8})
    rows.append({"library": "exported", "model": "timm/broken", "error": "ValueError: not exported"})
    table.write_table(rows, tmp_path / "docs" / "zoo.md")
    text = (tmp_path / "docs" / "zoo.md").read_text()
    assert "| timm      | broken" in text and "ValueError: no" in text
    assert "| timm      | broken" in text.partition("## Exported")[2] and "ValueError: not exported" in text
    assert [line.split("|")[-2].strip() for line in text.splitlines() if "| resnet " in line] == ["1 of 1 equal"]
    [vgg] = [line for line in text.splitlines() if "| vgg " in line]
    assert [cell.strip() for cell in vgg.split("|")[3:8]] == ["1", "", "1", "", ""]


@pytest.mark.parametrize(
    ("name", "outcome"), [("test_resnet", "equal"), ("vgg11", "too large"), ("lcnet_035", "nothing to gate")]
)
def test_exported(name, outcome):
    row = worker.check_task(("exported", f"timm/{name}"), 600, run_up_to=0, export_up_to=10**7)
    assert row["outcome"] == outcome, row


def test_an_export_with_other_sites_is_told(monkeypatch):
    numbers = itertools.count()
    monkeypatch.setattr("tests.zoo.exported._seen", lambda sites: {len(sites), f"other {next(numbers)}"})
    row = worker.check_task(("exported", "timm/test_resnet"), 600, run_up_to=0, export_up_to=10**7)
    assert row["outcome"] == "other" and "the program alone" in row["error"]
