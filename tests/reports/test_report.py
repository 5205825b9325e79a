"""What gates cost, measured."""

import random
import time

import pytest
import torch
import torchvision
from torch import nn

import se_inject
from se_inject.reports.costs import peak_memory, time_interleaved

from ..support.blocks import Residual, network
from ..support.promises import exact_state

X = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def measured(model, inputs=X, **options):
    return se_inject.report(model, inputs, rounds=2, **options)


def test_counts_are_those_of_the_gates():
    found = measured(network(), reduction=2)
    gates = dict(se_inject.gates(se_inject.apply(network(), reduction=2)))
    assert found.gated.parameters - found.plain.parameters == sum(
        p.numel() for g in gates.values() for p in g.parameters()
    )
    products = sum(2 * gate.fc1.in_channels * gate.fc1.out_channels for gate in gates.values())
    assert found.gated.multiply_adds - found.plain.multiply_adds == products  # of one image, though there are three
    convs = (3 + 4 * 16) * 16 * 9 * 256 + (16 * 8 + 16 * 12 * 9) * 256
    assert found.plain.multiply_adds == convs + (8 + 12 + 16) * 5
    assert set(found.gates) == set(gates) == {site.gate_path for site in found.sites}


def test_a_gated_model_is_measured_beside_itself_without_gates():
    plain, gated = network(), se_inject.apply(network())
    one, other = measured(plain), measured(gated)
    assert (one.plain.parameters, one.gated.parameters) == (other.plain.parameters, other.gated.parameters)
    assert (one.plain.multiply_adds, one.gated.multiply_adds) == (other.plain.multiply_adds, other.gated.multiply_adds)
    assert list(one.sites) == list(other.sites) and one.diff == other.diff and one.gates == other.gates
    assert "self.se(" in one.diff
    frozen = measured(se_inject.freeze_backbone(gated).train())
    assert frozen.gated.parameters == one.gated.parameters and list(frozen.sites) == list(one.sites)


class Noise(nn.Module):
    """Draws in eval mode, too."""

    def forward(self, x):
        return x + torch.rand_like(x)


@pytest.mark.parametrize("gated", [False, True])
def test_model_inputs_and_random_streams_stay(gated):
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(), network(), Noise()).train()
    model[2].eval()
    if gated:
        se_inject.apply(model)
    before, inputs = exact_state(model), X.clone()
    values = {key: value.clone() for key, value in model.state_dict().items()}
    streams = torch.get_rng_state(), random.getstate()
    measured(model, inputs)
    assert exact_state(model) == before and torch.equal(inputs, X)
    assert all(torch.equal(value, values[key]) for key, value in model.state_dict().items())
    assert torch.equal(streams[0], torch.get_rng_state()) and streams[1] == random.getstate()


def test_gates_in_two_positions_are_all_listed():
    model = network()
    se_inject.apply(model, where="1", position="pre")
    se_inject.apply(model, where=["2", "3"])
    found = measured(model)
    assert {site.gate_path for site in found.sites} == set(found.gates) == dict(se_inject.gates(model)).keys()
    assert not {skipped.path for skipped in found.sites.skipped} & {"1", "2", "3"}


class SeveralInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Residual()
        self.embed = nn.Embedding(4, 16)

    def forward(self, x, index, scale=1.0):
        return {"out": self.block(x + self.embed(index)[:, :, None, None]) * scale}


def test_options_are_those_of_apply():
    found = measured(
        network(), where=(path for path in ("1", "3")), kinds=iter(["residual", "inception"]), init="standard"
    )
    assert [site.path for site in found.sites] == ["1", "3"] and len(found.gates) == 2
    assert all(text.endswith("standard form") for text in found.gates.values())


def test_several_inputs_and_a_dict_of_outputs():
    found = measured(SeveralInputs(), (torch.randn(2, 16, 8, 8), torch.tensor([0, 3]), 0.5))
    assert found.inputs == ("(2, 16, 8, 8)", "(2,)", "0.5") and len(found.gates) == 1


def test_half_precision_and_double():
    for dtype in (torch.bfloat16, torch.float64):
        assert measured(network().to(dtype), X.to(dtype)).ratio.median > 0


def test_meta_device_counts_alone():
    with torch.device("meta"):
        found = se_inject.report(torchvision.models.resnet50(), torch.empty(2, 3, 224, 224))
    assert round(found.plain.multiply_adds / 1e9, 3) == 4.089  # as in the README
    assert found.plain.latency is found.gated.peak_memory is found.ratio is None
    assert "latency" not in repr(found).replace("neither time", "")


class Slow(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x):
        time.sleep(0.004)
        return x * self.weight[:, None, None]


def test_latency_tells_slow_gates():
    with torch.inference_mode():
        found = se_inject.report(network(), X, rounds=5, gate=Slow)
    added = found.gated.latency.median - found.plain.latency.median
    assert 0.012 <= added < 0.03 and found.ratio.median > 1.5  # three gates
    assert found.ratio.low <= found.ratio.median <= found.ratio.high
    assert set(found.gates.values()) == {"Slow"}


def test_networks_take_turns():
    calls = []
    times = time_interleaved([lambda: calls.append("a"), lambda: calls.append("b")], 4, set())
    assert "".join(calls[2:]) in ("abbaabba", "baabbaab") and [len(t) for t in times] == [4, 4]


def test_peak_memory_is_what_is_there_at_once():
    known = torch.ones(1000)

    def run():
        for _ in range(5):
            known + 1  # freed at once
        kept = known * 2
        views = kept.view(10, 100).t()[:5]
        known.mul_(1)
        return kept + 1, views

    assert peak_memory(run, [known]) == 8000
    assert peak_memory(lambda: known.view(10, 100), [known]) == 0
    sparse = torch.eye(10).to_sparse()
    assert peak_memory(lambda: torch.sparse.mm(sparse, known.view(10, 100)), [known, sparse]) >= 4000


def test_prints_as_a_table_and_shows_in_a_notebook():
    found = measured(network())
    text = repr(found)
    assert [line.split("  ")[0] for line in text.splitlines()[2:6]] == [
        "parameters",
        "multiply-adds",
        "latency",
        "peak memory",
    ]
    assert f"{found.gated.parameters:,}" in text and "3 gates in Sequential; inputs (3, 3, 16, 16); cpu" in text
    assert found._repr_html_().count("<tr>") == 5


class NoCopies(nn.Sequential):
    def __deepcopy__(self, memo):
        raise RuntimeError("no copies")


@pytest.mark.parametrize(
    ("model", "options", "error", "says"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3)), {}, "NoBlockError", "nothing to gate"),
        (
            lambda: se_inject.apply(network()),
            {"reduction": 4},
            "InvalidArgumentError",
            "reduction would have no effect",
        ),
        (network, {"where": "nothing.*"}, "AllFilteredError", "leave out all"),
        (lambda: nn.DataParallel(network()), {}, "WrappedModelError", "apply first, then wrap"),
        (lambda: se_inject.optimize(se_inject.apply(network())), {}, "WrappedModelError", "optimize"),
        (lambda: "resnet50", {}, "NotAModuleError", "must be a torch.nn.Module"),
        (network, {"rounds": 1}, "InvalidArgumentError", "rounds must be >= 2"),
        (network, {"rounds": 2.5}, "ArgumentTypeError", "rounds must be a whole number"),
        (network, {"inputs": torch.randn(2, 5, 16, 16)}, "InvalidArgumentError", "the model fails on them"),
        (lambda: NoCopies(*network()), {}, "InvalidArgumentError", "cannot be copied"),
    ],
)
def test_misuse_is_told(model, options, error, says):
    inputs = options.pop("inputs", X)
    with pytest.raises(getattr(se_inject.errors, error), match=says):
        se_inject.report(model(), inputs, **{"rounds": 2} | options)


@pytest.mark.filterwarnings("ignore")
def test_exported_programs_are_named():
    program = torch.export.export(network().eval(), (X,))
    with pytest.raises(se_inject.errors.NotAModuleError, match="pass its module"):
        se_inject.report(program, X)
    found = measured(program.module())
    assert found.gated.parameters > found.plain.parameters and len(found.sites) == 3


class Mode(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x, mode):
        return self.body(x)


def test_inputs_are_escaped_in_a_notebook():
    assert "<img" not in measured(Mode(), (X, "<img src=x>"))._repr_html_()
