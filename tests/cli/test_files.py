"""Commands that read and write weights and gates."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import se_inject

from ..support.blocks import network
from .test_commands import refused, run  # noqa: F401  (a fixture)

X = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained(init="identity", where=None):
    torch.manual_seed(0)
    model = se_inject.apply(network(32), 2, init=init, where=where).eval()
    for parameter in se_inject.gate_parameters(model):
        torch.nn.init.normal_(parameter, std=0.5)
    return model


WIDE = """
from tests.support.blocks import network

def wide():
    return network(32)

def odd():
    return network(23)
"""


@pytest.fixture
def shell(run, monkeypatch):  # noqa: F811
    Path("cli_wide.py").write_text(WIDE)
    yield run


def test_gates_of_the_least_width(shell):
    """23 channels have it at reductions of 3 and more, and 23 // 8 is 2."""
    save_file(se_inject.apply(network(23), 3).state_dict(), "weights.safetensors")
    assert shell("apply cli_wide:odd --weights weights.safetensors -o gates.safetensors").exit_code == 0


@pytest.mark.parametrize("init", ["identity", "standard"])
def test_apply_writes_the_gates_of_weights_that_have_some(shell, init):
    model = trained(init)
    save_file(model.state_dict(), "weights.safetensors")
    result = shell("apply cli_wide:wide --weights weights.safetensors -o gates.safetensors --json")
    assert json.loads(result.stdout)["gates"] == ["1.se", "2.se", "3.se"]
    plain = network(32).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        assert torch.equal(se_inject.load_gates(plain, "gates.safetensors")(X), model(X))


def test_weights_do_not_tell_the_position(shell):
    model = se_inject.apply(network(32), 2, position="pre").eval()
    for parameter in se_inject.gate_parameters(model):
        torch.nn.init.normal_(parameter, std=0.5)
    save_file(model.state_dict(), "weights.safetensors")
    line = "apply cli_wide:wide --weights weights.safetensors --position pre -o gates.safetensors"
    assert shell(line).stdout.startswith("wrote 2 gates")
    plain = network(32).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        assert torch.equal(se_inject.load_gates(plain, "gates.safetensors")(X), model(X))
    found = shell("report cli_wide:wide --weights weights.safetensors --position pre --input 1,3,16,16 --rounds 2")
    assert "2 gates" in found.stdout


@pytest.mark.parametrize("weight", [torch.tensor(1.0), torch.zeros(0, 32, 1, 1)])
def test_weights_that_are_no_gates_are_told(shell, weight):
    save_file(trained().state_dict() | {"1.se.fc1.weight": weight}, "weights.safetensors")
    result = shell("apply cli_wide:wide --weights weights.safetensors -o g.safetensors")
    assert "of another network: 1.se.fc1.weight is (" in refused(result)


def test_apply_gives_a_plain_model_gates(shell):
    save_file(network(32).state_dict(), "weights.safetensors")
    line = "apply cli_wide:wide --weights weights.safetensors -o gates --where '[12]' --reduction 4 --init standard"
    assert shell(line).stdout == "wrote 2 gates to gates\n"
    gates = dict(se_inject.gates(se_inject.load_gates(network(32), "gates")))
    assert {name: (gate.fc1.out_channels, gate.init) for name, gate in gates.items()} == {
        "1.se": (8, "standard"),
        "2.se": (8, "standard"),
    }


def test_report_and_compare_read_gates(shell):
    model = trained()
    se_inject.save_gates(model, "a.safetensors")
    with torch.no_grad():
        model[1].se.fc2.bias += 0.5
    se_inject.save_gates(model, "b.safetensors")
    found = json.loads(shell("compare a.safetensors b.safetensors --json").stdout)
    assert not found["equal"] and found["values"]["1.se"] == pytest.approx(0.5) and not found["differences"]
    found = json.loads(shell("report cli_wide:wide --gates a.safetensors --input 1,3,16,16 --rounds 2 --json").stdout)
    assert found["gated"]["parameters"] == sum(p.numel() for p in model.parameters())
    result = shell("compare cli_models:plain cli_models:gated --json")
    assert {"what": "1.se", "a": "no gate", "b": "SqueezeExcitation, 8 wide, identity form"} in json.loads(
        result.stdout
    )["differences"]


@pytest.mark.parametrize("source", ["--weights weights.safetensors", "--weights plain.safetensors --gates gates"])
def test_convert_writes_a_model_of_the_other_form(shell, source):
    model = trained(where="[12]")
    save_file(model.state_dict(), "weights.safetensors")
    save_file({name: t for name, t in model.state_dict().items() if ".se." not in name}, "plain.safetensors")
    se_inject.save_gates(model, "gates")
    result = shell(f"convert cli_wide:wide {source} --to standard -o new.safetensors --json")
    assert json.loads(result.stdout)["form"] == "standard"
    other = se_inject.apply(network(32), 2, init="standard", where="[12]").eval()
    other.load_state_dict(load_file("new.safetensors"))
    with torch.no_grad():
        assert torch.equal(other(X), model(X))


def test_export(shell):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = trained()
    save_file(model.state_dict(), "weights.safetensors")
    result = shell("export cli_wide:wide --weights weights.safetensors --input 1,3,16,16 --onnx new/model.onnx --json")
    assert json.loads(result.stdout)["bytes"] == Path("new/model.onnx").stat().st_size
    [output] = onnxruntime.InferenceSession("new/model.onnx").run(None, {"input": X.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(output), model(X), atol=1e-4, rtol=1e-4)


def test_export_of_a_model_that_takes_a_dict(shell):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert shell("export cli_models:takes_a_dict --onnx model.onnx").exit_code == 0
    session = onnxruntime.InferenceSession("model.onnx")
    [output] = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    assert output.shape == (3, 5)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("apply cli_wide:wide -o cli_wide.py/gates.safetensors", "cli_wide.py"),
        ("apply cli_wide:wide --weights no.safetensors -o g.safetensors", "no.safetensors: there is no such file"),
        ("apply cli_wide:wide --weights weights.pth -o g.safetensors", "weights.pth: is no safetensors file"),
        ("apply cli_models:plain --weights w.safetensors -o g.safetensors", r"another network: 0.weight is \(32"),
        ("apply cli_models:plain_convolutions -o g.safetensors", "nothing to gate"),
        ("apply cli_models:gated -o g.safetensors --reduction 2", "has gates already, so reduction"),
        ("report cli_models:plain --gates weights.pth", "weights.pth"),
        ("report cli_models:plain --gates g.safetensors", "there is no such file"),
        ("convert cli_models:plain --to standard -o new.safetensors", "the model has no gates"),
        ("compare no.safetensors no2.safetensors", "there is no such file"),
        ("export cli_models:no_model --onnx .", "cannot be written: it is a folder"),
        ("export cli_models:plain --input 1,4,16,16 --onnx m.onnx", "the model cannot be exported"),
    ],
)
def test_refusals(shell, line, says):
    torch.save({"weight": torch.zeros(1)}, "weights.pth")
    save_file(network(32).state_dict(), "w.safetensors")
    before = sorted(Path().iterdir())
    assert re.search(says, refused(shell(line)))
    assert sorted(Path().iterdir()) == before


def test_a_file_and_a_model_are_not_compared(shell):
    se_inject.save_gates(trained(), "a.safetensors")
    assert "two files of gates, or two models" in refused(shell("compare a.safetensors cli_wide:wide"), code=2)
    assert refused(shell("compare a.safetensors"), code=2) and refused(shell("apply cli_wide:wide"), code=2)
