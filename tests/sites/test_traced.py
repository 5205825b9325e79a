"""The sites of a traced model are those of the model, whatever traced it."""

import copy
import functools
import operator

import pytest
import torch
import torchvision
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves
from torchvision.models import convnext, resnet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.feature_extraction import create_feature_extractor

import se_inject

from ..support.families import small_googlenet, small_inception_resnet, small_mobilenet, small_resnet


def small_detector():
    return BackboneWithFPN(small_resnet(), {f"layer{i + 1}": str(i) for i in range(4)}, [64, 128, 256, 512], 64)


MODELS = {
    "resnet": small_resnet,
    "resnext": lambda: resnet.ResNet(resnet.Bottleneck, [1, 2, 1, 1], num_classes=10, groups=32, width_per_group=4),
    "mobilenet": small_mobilenet,
    "convnext": lambda: convnext.ConvNeXt(
        [convnext.CNBlockConfig(32, 48, 2), convnext.CNBlockConfig(48, None, 2)], num_classes=10
    ),
    "googlenet": small_googlenet,
    "inception_resnet": small_inception_resnet,
    "detector": small_detector,
}


@functools.cache
def example(name):
    """A model in eval mode with an input, and what makes its blocks differ from one another."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for module in model.modules():
        if getattr(module, "running_var", None) is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model, torch.randn(2, 3, *([80, 80] if "inception" in name else [40, 40]))


@functools.cache
def export(model, x, strict=False):
    return torch.export.export(model, (x,), strict=strict)


@functools.cache
def dynamic(model, x):
    return torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", max=64)},), strict=False)


@functools.cache
def decomposed(model, x):
    return export(model, x).run_decompositions()


class LeafTracer(fx.Tracer):
    """Other leaves than those of torch: blocks of convolution, norm and activation."""

    def is_leaf_module(self, module, name):
        return type(module).__name__ in ("Conv2dNormActivation", "BasicConv2d") or super().is_leaf_module(module, name)


def with_other_leaves(model, x):
    return fx.GraphModule(model, LeafTracer().trace(model))


def extracted(model, x):
    [last] = [node.args[0] for node in fx.symbolic_trace(model).graph.nodes if node.op == "output"]
    outputs = last if isinstance(last, dict) else {"out": last}
    names = torchvision.models.feature_extraction.get_graph_node_names(model)[1]
    ends = [name for name in names if name.split(".")[-1] in {str(node) for node in outputs.values()}]
    return create_feature_extractor(model, {name: name for name in ends or names[-1:]})


def dynamo(model, x):
    graphs = []

    def backend(graph, inputs):
        graphs.append((graph, inputs))
        return graph

    torch.compiler.reset()
    torch.compile(model, backend=backend, fullgraph=True)(x)
    [(graph, inputs)] = graphs
    graph.meta["inputs"] = inputs
    return graph


TRACERS = {
    "export": lambda model, x: export(model, x).module(),
    "strict": lambda model, x: export(model, x, strict=True).module(),
    "dynamic": lambda model, x: dynamic(model, x).module(),
    "decomposed": lambda model, x: decomposed(model, x).module(),
    "program": export,
    "dynamic program": dynamic,
    "decomposed program": decomposed,
    "unflattened": lambda model, x: torch.export.unflatten(export(model, x)),
    "symbolic": lambda model, x: fx.symbolic_trace(model),
    "other leaves": with_other_leaves,
    "extractor": extracted,
    "dynamo": dynamo,
    "make_fx": lambda model, x: make_fx(model)(x),
}


def run(traced, x):
    """What a traced model returns, as a list of tensors."""
    with torch.no_grad():
        if isinstance(traced, torch.export.ExportedProgram):
            return tree_leaves(traced.module()(x))
        return tree_leaves(traced(*getattr(traced, "meta", {}).get("inputs", (x,))))


def same(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))


def seen(sites):
    """What is the same of a site, however its model was traced."""
    return sorted((site.path, site.kind, site.channels, site.gate_path) for site in sites)


def graphs_of(traced):
    """All that a traced model runs, as text."""
    owners = traced.modules() if isinstance(traced, nn.Module) else [traced]
    graphs = [value for owner in owners for value in vars(owner).values() if isinstance(value, fx.Graph)]
    return [str(graph) for graph in graphs] or [str(traced.graph)]


# Variants differ little from the program, and the large networks take most of the time.
VARIANTS = ("strict", "dynamic", "decomposed", "dynamic program", "decomposed program")
LARGE = ("googlenet", "inception_resnet")
SERVES_LARGE = ("program", "symbolic")
CASES = [
    (tracer, name)
    for tracer in TRACERS
    for name in MODELS
    if (name not in LARGE or tracer in SERVES_LARGE) and (tracer not in VARIANTS or name in ("resnet", "convnext"))
]


@pytest.mark.parametrize(("tracer", "name"), CASES)
def test_sites_of_a_traced_model_are_those_of_the_model(tracer, name):
    model, x = example(name)
    traced = TRACERS[tracer](model, x)
    expected, found = seen(se_inject.find_sites(model)), se_inject.find_sites(traced)
    assert expected
    if tracer == "make_fx":  # it notes no modules: all is one block
        assert sorted(row[1:3] for row in seen(found)) == sorted(row[1:3] for row in expected)
        assert {site.path for site in found} == {""}
    else:
        assert seen(found) == expected

    before, graphs = run(traced, x), graphs_of(traced)
    gated = se_inject.apply(traced)
    assert same(run(gated, x), before)
    if tracer not in ("extractor", "unflattened"):  # these cannot be copied well, with gates or without
        assert same(run(copy.deepcopy(gated), x), before)
    with pytest.raises(se_inject.errors.AllGatedError):
        se_inject.apply(gated)
    train_gates(gated)
    assert not same(run(gated, x), before)
    if tracer not in ("make_fx", "dynamo"):
        assert_weights_exchange(model, gated, x)
    assert graphs_of(se_inject.remove(gated)) == graphs


def train_gates(traced):
    """Give each gate other values than 1, by its name."""
    state = traced.state_dict if isinstance(traced.state_dict, dict) else traced.state_dict()
    for name, tensor in state.items():
        if name.endswith("fc2.bias"):
            generator = torch.Generator().manual_seed(sum(map(ord, name)))
            with torch.no_grad():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))


def assert_weights_exchange(model, traced, x):
    """The gates' weights of a traced model are those of the gated model, by name, and do the same there."""
    gated = se_inject.apply(copy.deepcopy(model))
    state = traced.state_dict if isinstance(traced.state_dict, dict) else traced.state_dict()
    gates = {name for name in gated.state_dict() if name not in model.state_dict()}
    assert gates == {name for name in state if ".se." in name}
    gated.load_state_dict({name: state[name] for name in gates}, strict=False)
    for ours, theirs in zip(run(gated, x), run(traced, x), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max())


def test_one_gate_serves_both_graphs_of_an_extractor():
    torch.manual_seed(0)
    model = torchvision.models.convnext.ConvNeXt([convnext.CNBlockConfig(32, None, 2)], stochastic_depth_prob=0.5)
    features, x = create_feature_extractor(model, ["features.1"]), torch.randn(2, 3, 32, 32)
    gated = se_inject.apply(create_feature_extractor(model, ["features.1"]))
    assert [name for name, _ in se_inject.gates(gated)] == ["features.1.0.se", "features.1.1.se"]
    for training in (True, False, True):
        outputs = []
        for extractor in (features, gated):
            torch.manual_seed(1)
            outputs.append(extractor.train(training)(x)["features.1"])
        assert torch.equal(*outputs)
    train_gates(gated)
    assert not torch.equal(gated.eval()(x)["features.1"], features.eval()(x)["features.1"])
    se_inject.remove(gated)
    assert gated.train().code == features.train().code and gated.eval().code == features.eval().code


def test_scopes_are_told_where_the_tracer_noted_them():
    """A block that is called twice has one gate, on both calls."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = torchvision.models.resnet.BasicBlock(16, 16)

        def forward(self, x):
            return self.block(operator.neg(self.block(x)))

    model, x = Twice().eval(), torch.randn(2, 16, 8, 8)
    for tracer in ("export", "program", "strict", "unflattened", "symbolic"):
        gated = se_inject.apply(TRACERS[tracer](model, x))
        assert same(run(gated, x), run(model, x))
        train_gates(gated)
        assert_weights_exchange(model, gated, x)
