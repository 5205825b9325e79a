"""The commands of ``se-inject``, as a shell calls them."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import se_inject
import se_inject.cli
from se_inject.cli.app import app

from ..conftest import ROOT

MODELS = """
import torch
from torch import nn
import se_inject
from tests.support.blocks import network

print("a banner of the user's module")

def plain():
    print("building")
    return network()

def gated():
    torch.manual_seed(0)
    model = se_inject.apply(network())
    for parameter in se_inject.gate_parameters(model):
        nn.init.normal_(parameter, std=0.5)
    return model, torch.randn(1, 3, 16, 16)

def batches():
    return [(torch.randn(4, 3, 16, 16), [0, 1, 1, 0])], ["cat", "dog"]

def two_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()
        def forward(self, x, scale):
            return {"out": self.body(x) * scale}
    return Two(), (torch.randn(1, 3, 16, 16), torch.ones(1))

def takes_a_dict():
    class Dict(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()
        def forward(self, inputs):
            return self.body(inputs["x"])
    return Dict(), ({"x": torch.randn(1, 3, 16, 16)},)

def failing_batches():
    yield torch.randn(2, 3, 16, 16), [0, 1]
    raise ValueError("a broken image")

def numbered_batches():
    return [(torch.randn(1, 3, 16, 16), [0])], [7]

def fails():
    return network().missing

def exits():
    raise SystemExit("I am a script")

def no_model():
    return {}

plain_convolutions = nn.Sequential(nn.Conv2d(3, 8, 3))

class Built(nn.Sequential):
    def __init__(self):
        super().__init__(*network())
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in a folder with a module of models."""
    Path(tmp_path, "cli_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cli_models", raising=False)

    def run(line):
        return CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)

    yield run
    sys.modules.pop("cli_models", None)


def test_sites(run):
    result = run("sites cli_models:plain")
    assert result.exit_code == 0 and result.stdout.splitlines()[0].split() == ["block", "kind", "channels", "gate"]
    assert result.stdout.endswith("3 sites\n") and "building" in result.stderr
    found = json.loads(run("sites cli_models:plain --kind residual --where '[12]' --json").stdout)
    assert [site["gate_path"] for site in found["sites"]] == ["1.se", "2.se"]
    assert found["sites"][0]["file"].endswith("blocks.py") and found["sites"][0]["line"] > 0
    assert found["skipped"] == [{"path": "3", "reason": found["skipped"][0]["reason"]}]
    assert "3 sites" in run("sites cli_models:Built").stdout


def test_sites_of_other_libraries(run):
    assert "8 sites" in run("sites torchvision/resnet18").stdout
    assert json.loads(run("sites timm/resnet10t --position pre --json").stdout)["sites"][0]["path"] == "layer1.0"


def test_diff(run):
    result = run("diff cli_models:plain")
    assert "self.se(" in result.stdout and result.stdout.startswith("--- a/")
    assert json.loads(run("diff cli_models:plain --json").stdout)["diff"].strip() == result.stdout.strip()


def test_report(run):
    found = json.loads(run("report cli_models:plain --input 2,3,16,16 --rounds 3 --reduction 2 --json").stdout)
    expected = se_inject.report(se_inject.apply(_network(), 2), torch.randn(2, 3, 16, 16), rounds=2)
    for name, cost in (("plain", expected.plain), ("gated", expected.gated)):
        assert found[name]["parameters"] == cost.parameters and found[name]["multiply_adds"] == cost.multiply_adds
        assert found[name]["latency"].keys() == {"low", "median", "high"} and found[name]["peak_memory"] > 0
    assert found["gates"] == expected.gates and found["inputs"] == ["(2, 3, 16, 16)"] and found["rounds"] == 3
    assert "3 gates in Two; inputs (1, 3, 16, 16), (1,)" in run("report cli_models:two_inputs --rounds 2").stdout
    assert json.loads(run("report cli_models:plain --device meta --json").stdout)["latency_ratio"] is None


def test_report_of_gates_that_are_there(run):
    result = run("report cli_models:gated --rounds 2 --html new/page.html --activations cli_models:batches --json")
    found = json.loads(result.stdout)
    assert found["activations"]["classes"] == ["cat", "dog"] and found["html"] == "new/page.html"
    assert set(found["activations"]["gates"]) == set(found["gates"]) and len(found["gates"]) == 3
    page = Path("new/page.html").read_text()
    assert "Gate values by class" in page and "<th>dog</th>" in page
    text = run("report cli_models:gated --rounds 2 --html page.html --activations cli_models:batches").stdout
    assert "2 classes, 4 images" in text and text.endswith("wrote page.html\n")


def test_activations_of_a_folder(run, tmp_path):
    from PIL import Image

    for name, colour in (("cat", "red"), ("dog", "blue")):
        Path("images", name).mkdir(parents=True)
        Image.new("RGB", (40, 30), colour).save(Path("images", name, "1.png"))
    result = run("report cli_models:gated --rounds 2 --activations images --json")
    assert json.loads(result.stdout)["activations"]["images"] == [1, 1]
    Path("empty").mkdir()
    assert "empty" in refused(run("report cli_models:gated --activations empty"))


def _network():
    from ..support.blocks import network

    return network()


def refused(result, code=1):
    assert result.exit_code == code and "Traceback" not in result.stderr and result.stdout == ""
    return re.sub(r"\s+", " ", result.stderr)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "sites nosuch.package:f",
            "nosuch.package:f: cannot be imported: ModuleNotFoundError: No module named 'nosuch'",
        ),
        ("sites cli_models:nothing", "cannot be imported: AttributeError"),
        ("sites cli_models:fails", r"cli_models:fails: fails: AttributeError: .* \(.*cli_models.py:\d+\)"),
        ("sites cli_models:exits", "cli_models:exits: fails: SystemExit: I am a script"),
        ("sites cli_models:no_model", "must return a torch.nn.Module, or one with its example inputs, got dict"),
        ("sites torchvision/resnet5", r"there is no such model; did you mean torchvision/resnet"),
        ("sites timm/nosuchmodel", "timm/nosuchmodel: there is no such model"),
        ("diff cli_models:plain_convolutions", "nothing to gate"),
        ("report cli_models:plain_convolutions", "nothing to gate"),
        ("report cli_models:gated --reduction 4", "has gates already, so reduction would have no effect"),
        ("report cli_models:plain --input 1,4,16,16", "the model fails on them"),
        ("report cli_models:plain --device cuda:99", "--device cuda:99: "),
        ("report cli_models:plain --activations cli_models:batches", "the model has no gates"),
        ("report cli_models:gated --activations nosuch", "nosuch: is no folder of images"),
        ("report cli_models:gated --activations cli_models:no_model", "batches|no batch"),
        (
            "report cli_models:gated --activations cli_models:failing_batches",
            r"fails: ValueError: a broken .*models.py:\d+",
        ),
        ("report cli_models:gated --activations cli_models:numbered_batches", "classes must be a sequence of names"),
        ("report cli_models:plain --html /", "cannot be written: it is a folder"),
        ("report cli_models:no_model --rounds 2 --html cli_models.py/page.html", "cannot be written"),
    ],
)
def test_refusals(run, line, says):
    assert re.search(says, refused(run(line)))
    error = json.loads(run(f"{line} --json").stdout)["error"]
    assert re.search(says, re.sub(r"\s+", " ", error["message"])) and hasattr(se_inject.errors, error["type"])


@pytest.mark.parametrize(
    "line",
    [
        "sites",
        "sites resnet50",
        "sites torchvision/",
        "nosuch",
        "sites cli_models:plain --kind red",
        "sites cli_models:plain --position middle",
        "report cli_models:plain --rounds 1",
        "report cli_models:plain --input 1,x",
        "report cli_models:plain --input 1,²",
        "report cli_models:plain --input 1,3,9999999,99999999",
        "sites cli_models:plain --input 99999999999999999999",
        "compare a.safetensors b.safetensors --input 1,3,16,16",
        "report cli_models:plain --reduction 0",
        "sites cli_models:plain extra",
    ],
)
def test_wrong_usage(run, line):
    assert "Error" in refused(run(line), code=2)


def test_an_old_page_survives(run):
    Path("page.html").write_text("old")
    refused(run("report cli_models:plain_convolutions --html page.html"))
    assert Path("page.html").read_text() == "old"


def test_help_has_examples(run):
    assert "Commands" in run("--help").stdout and "se-inject 0" in run("--version").stdout
    for command in ("sites", "diff", "apply", "convert", "compare", "export", "report"):
        text = run(f"{command} --help").stdout
        assert f"Examples:\n    se-inject {command} " in text


def test_the_page_of_the_commands_is_true(run):
    text = (ROOT / "docs" / "command-line.md").read_text()
    [module] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    Path("networks.py").write_text(module)
    commands = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(commands) >= 7
    for command in commands:
        name, *_ = command.partition(" > ")
        result = run(name.removeprefix("se-inject "))
        assert result.exit_code == 0, result.stderr
    sys.modules.pop("networks", None)


def test_the_program_is_installed_under_its_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["se-inject"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_extra_the_program_says_what_to_install(missing, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("se_inject.cli.") or name.startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as ended:
        se_inject.cli.main()
    assert ended.value.code == f"error: se-inject needs {missing}: pip install 'se-inject[cli]'"


def test_the_library_loads_none_of_its_extras():
    code = (
        "import sys, torch; before = set(sys.modules); import se_inject;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "se_inject" in loaded
    assert not loaded & {"typer", "rich", "jinja2", "pygments", "tqdm", "matplotlib", "torchvision", "timm", "numpy"}


def test_other_programs_do_not_print_among_json(tmp_path):
    Path(tmp_path, "noisy.py").write_text(
        "import os\nfrom torch import nn\n\ndef build():\n    os.system('echo noise')\n    return nn.ReLU()\n"
    )
    command = [sys.executable, "-m", "se_inject", "sites", "noisy:build", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["sites"] == [] and "noise" in result.stderr


def test_letters_that_a_terminal_does_not_have(tmp_path):
    Path(tmp_path, "accents.py").write_text(
        "from tests.support.blocks import network\nfrom torch import nn\n\n"
        "def build():\n    model = nn.Sequential()\n    model.add_module('café', network())\n    return model\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "se_inject", "sites", "accents:build"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert r"caf\xe9.1" in result.stdout
