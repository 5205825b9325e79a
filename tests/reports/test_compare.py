"""Two files of gates, or two models, beside each other."""

import copy

import pytest
import torch
from torch import nn

import se_inject

from ..support.blocks import network
from ..support.promises import exact_state

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def told(found):
    return {difference.what: (difference.a, difference.b) for difference in found.differences}


def test_files(tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "folder"
    model = se_inject.apply(network())
    se_inject.save_gates(model, first, base="net")
    se_inject.save_gates(model, second, base="net")
    found = se_inject.compare(first, str(second))
    assert found.equal and found.values == {"1.se": 0, "2.se": 0, "3.se": 0} and repr(found).endswith("equal")
    with torch.no_grad():
        model[1].se.fc2.bias[3] += 0.25
        model[1].se.fc1.weight[0, 0] -= 0.125
    se_inject.save_gates(model, second, base="net")
    found = se_inject.compare(first, second)
    assert not found.equal and not found.differences and found.values == {"1.se": 0.25, "2.se": 0, "3.se": 0}


def test_files_of_other_gates(tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    se_inject.save_gates(se_inject.apply(network(32), 2, where="[12]"), first)
    model = se_inject.apply(network(32), 4, where="1", init="standard")
    se_inject.save_gates(se_inject.apply(model, 2, where="3"), second, include="6.*")
    found = told(se_inject.compare(first, second))
    assert found["1.se, width"] == ("16", "8") and found["1.se, init"] == ("identity", "standard")
    assert found["2.se"] == ("residual", "") and found["3.se"] == ("", "inception")
    assert found["6.bias, included"] == ("", "(5,)")
    assert not any(name.startswith("base") for name in found)


def test_models():
    plain, gated = network().train(), se_inject.apply(network())
    gated.load_state_dict(plain.state_dict(), strict=False)
    before, stream = exact_state(plain), torch.get_rng_state()
    found = se_inject.compare(plain, gated, example_inputs=X)
    assert found.values == {"output": 0} and not found.equal
    assert exact_state(plain) == before and torch.equal(stream, torch.get_rng_state())
    assert told(found)["1.se"] == ("no gate", "SqueezeExcitation, 8 wide, identity form") and "1, residual" not in told(
        found
    )
    assert told(found)["1.se.fc1.weight"] == ("", "(8, 16, 1, 1)")
    nn.init.ones_(gated[6].bias)
    nn.init.zeros_(plain[6].bias)
    assert se_inject.compare(plain, gated, example_inputs=X).values["output"] == pytest.approx(1, abs=1e-5)
    assert se_inject.compare(plain, copy.deepcopy(plain), example_inputs=X).equal
    assert told(se_inject.compare(plain, network(32)))["1, residual"] == ("16 channels", "32 channels")


def test_long_tables_are_cut_and_escaped():
    found = se_inject.compare(network(), nn.Sequential(*(nn.Linear(2, 2) for _ in range(30))))
    assert len(found.differences) > 30 and f"and {len(found.differences) - 20} more" in repr(found)
    assert found._repr_html_().count("<tr>") == 21


@pytest.mark.parametrize(
    ("a", "b", "options", "error", "says"),
    [
        (network, lambda: "gates.safetensors", {}, "ArgumentTypeError", "two files of gates or two models"),
        (lambda: "no.safetensors", lambda: "no.safetensors", {}, "GateFileNotFoundError", "no such file"),
        (network, network, {"example_inputs": X[:, :2]}, "InvalidArgumentError", "model a fails on them"),
        (network, lambda: network()[:5], {"example_inputs": X}, "InvalidArgumentError", "outputs cannot be compared"),
        (network, lambda: nn.DataParallel(network()), {}, "WrappedModelError", "DataParallel"),
    ],
)
def test_misuse_is_told(a, b, options, error, says):
    with pytest.raises(getattr(se_inject.errors, error), match=says):
        se_inject.compare(a(), b(), **options)


class Spectrum(nn.Module):
    def __init__(self, phase):
        super().__init__()
        self.body, self.phase = network(), phase

    def forward(self, x):
        return torch.complex(torch.ones(2), torch.full((2,), self.phase))


def test_complex_outputs():
    found = se_inject.compare(Spectrum(1.0), Spectrum(5.0), example_inputs=torch.zeros(1))
    assert found.values == {"output": 4.0} and not found.equal
