"""The recipes are the published networks: sites, counts, multiply-adds, and timm's outputs with timm's weights.

Facts from the authors' published definitions at https://github.com/hujie-frank/SENet (commit 0262d43), and from Table 2
of the paper. Gate lists are (channels, squeezed channels).
"""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import recipes
import se_inject
from recipes.networks import NETWORKS
from recipes.networks.resnet import caffe, resnet
from recipes.networks.table import multiply_adds
from recipes.weights import load_weights

STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def stages(depth):
    return [width for width, count in zip((256, 512, 1024, 2048), STAGES[depth], strict=True) for _ in range(count)]


BN_INCEPTION = [256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024]
INCEPTION_RESNET_V2 = [320] * 11 + [1088] * 21 + [2080] * 11

# widths of the gated values; learnable parameters, plain and with gates; multiply-adds of convolutions and products
FACTS = {
    "se_resnet50_caffe": (stages(50), 25_557_032, 28_088_024, 3_857_973_248, 2_514_944),
    "se_resnet101_caffe": (stages(101), 44_549_160, 49_326_872, 7_570_194_432, 4_743_168),
    "se_resnet152_caffe": (stages(152), 60_192_808, 66_821_848, 11_282_415_616, 6_578_176),
    "se_resnext50_32x4d_caffe": (stages(50), 25_028_904, 27_559_896, 4_230_479_872, 2_514_944),
    "se_resnext101_32x4d_caffe": (stages(101), 44_177_704, 48_955_416, 7_969_996_800, 4_743_168),
    "se_bn_inception": (BN_INCEPTION, 11_285_224, 11_931_622, 2_032_600_064, 639_360),
    "se_inception_resnet_v2": (INCEPTION_RESNET_V2, 55_843_464, 65_092_718, None, 9_196_928),
    "senet154": (stages(152), 108_459_944, 115_088_984, 20_681_785_344, 6_578_176),
}


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module")
def table():
    return recipes.list_networks(*FACTS, "se_vgg16", "se_resnet20", "densenet161")


@pytest.mark.parametrize("name", FACTS)
def test_sites_and_parameters(name):
    widths, plain, gated, _, _ = FACTS[name]
    with torch.device("meta"):
        network = recipes.get(name).build(se=False)
        assert count(network) == plain
        recipes.get(name).add_gates(network)
    assert count(network) == gated
    gates = [gate for _, gate in se_inject.gates(network)]
    assert [gate.fc1.weight.shape[:2] for gate in gates] == [(c // 16, c) for c in widths]
    assert {gate.init for gate in gates} == {"standard"}


@pytest.mark.parametrize("name", FACTS)
def test_multiply_adds(name, table):
    _, _, _, plain, added = FACTS[name]
    row = next(row for row in table if row.recipe.name == name)
    if plain is not None:
        assert round(row.gflops[0] * 1e9) == plain
    assert round((row.gflops[1] - row.gflops[0]) * 1e9) == added


def test_paper_gflops_of_se_resnet50():
    """3.86 and, counting also each gate's average and scaling, which torch's counter leaves out, 3.87."""
    with torch.device("meta"):
        plain, gated = recipes.get("se_resnet50_caffe").build(se=False), recipes.get("se_resnet50_caffe").build()
    elements = []
    for _, gate in se_inject.gates(gated):
        gate.register_forward_hook(lambda _, args, __: elements.append(args[0].numel()))
    flops = multiply_adds(gated, 224)
    assert f"{multiply_adds(plain, 224) / 1e9:.2f}" == "3.86"
    assert f"{(flops + 2 * sum(elements)) / 1e9:.2f}" == "3.87"


PRINTED = [n for n in FACTS if NETWORKS[n].paper.gflops and n != "se_inception_resnet_v2"] + ["se_vgg16"]


@pytest.mark.parametrize("name", PRINTED)
def test_paper_gflops(name, table):
    """The paper counts some of the cheap layers too: never less than ours, at most 0.5 % more."""
    row = next(row for row in table if row.recipe.name == name)
    for ours, paper in zip(row.gflops, row.recipe.paper.gflops, strict=True):
        assert ours - 0.005 <= paper <= 1.005 * ours


def rows(text):
    """Cells of the rows of a Markdown table, by their first cell."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return {line[0]: line[1:] for line in lines}


def test_page_has_the_table(table):
    page = rows((Path(__file__).parents[2] / "docs" / "recipes.md").read_text())
    assert {name for name in page if name in NETWORKS} == {*NETWORKS}
    for name, cells in rows(table.table("github")).items():
        assert cells == page[name] or set(name) == {"-"}, name
    text = str(table)
    assert "24.80 -> 23.29" in text and "22.20 (its authors)" in text and "no sites" in text
    assert table[0].parameters == (25_557_032, 28_088_024)


# of the other networks that the paper compares with: learnable parameters as their libraries publish them, and gates:
# one a block; of Inception, one a module and reduction, and Inception-v4's stem has one; of VGG, one a convolution
MORE = {
    "se_resnet200": (64_666_280, 3 + 24 + 36 + 3),
    "se_resnext101_64x4d": (83_455_272, 3 + 4 + 23 + 3),
    "se_vgg16": (138_365_992, 13),
    "se_inception_v3": (23_834_568, 11),
    "se_inception_v4": (42_679_816, 1 + 4 + 1 + 7 + 1 + 3),
    "se_dpn131": (79_254_504, 3 + 7 + 27 + 2),  # not the first of a stage, whose two sides are alike
    "densenet161": (28_681_000, 0),
}


@pytest.mark.parametrize("name", MORE)
def test_more_networks(name):
    """Of DenseNet, nothing can be gated; at Table 4's larger crop, each gives logits."""
    recipe = recipes.get(name)
    with torch.device("meta"):
        network = recipe.build(se=bool(recipe.kinds)).eval()
        assert network(torch.empty(2, 3, 320, 320)).shape == (2, 1000)
    gates = [gate for _, gate in se_inject.gates(network)] if recipe.kinds else []
    assert (count(network) - sum(map(count, gates)), len(gates)) == MORE[name]
    if not gates:
        assert not se_inject.find_sites(network)


@pytest.mark.parametrize("name", [name for name in NETWORKS if "caffe" not in name and name not in MORE])
def test_classes_and_reduction(name):
    recipe = recipes.get(name)
    with torch.device("meta"):
        network = recipe.build(num_classes=7, reduction=4).eval()
        assert network(torch.empty(2, 3, 96 if recipe.size > 32 else 32, 96)).shape == (2, 7)
    for _, gate in se_inject.gates(network):
        assert gate.fc1.out_channels == max(gate.fc1.in_channels // 4, 8)


def empty(build):
    """A network without the time that its initial weights take."""
    with torch.device("meta"):
        network = build()
    return network.to_empty(device="cpu").eval()


def randomize(network, seed=0):
    """Weights and statistics that make every part of the network count in its output."""
    torch.manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var") or name.endswith(("bn3.weight", "bn2.weight", "bn1.weight")):
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim < 2:
            tensor.zero_() if name.endswith("num_batches_tracked") else tensor.uniform_(0, 0.2)
        else:
            bound = (6 / tensor[0].numel()) ** 0.5
            tensor.uniform_(-bound, bound)


# each variant, each depth and each way of grouping; the other networks with a twin differ from these in their depth
TWINS = [
    "se_resnet50",
    "se_resnet50_caffe",
    "se_resnet152_caffe",
    "se_resnext50_32x4d",
    "se_resnext101_32x4d_caffe",
    "se_resnext101_64x4d",
    "senet154",
]


@pytest.mark.parametrize("name", TWINS)
def test_timm_twin_loads_and_agrees(name):
    recipe = recipes.get(name)
    published = empty(lambda: timm.create_model(recipe.twin, num_classes=10))
    randomize(published)
    ours = empty(lambda: recipe.build(num_classes=10))
    load_weights(ours, published.state_dict(), recipe.twin)
    x = torch.randn(1, 3, 97, 97)  # odd: pools that round up and pools that round down differ
    with torch.no_grad():
        expected, found = published(x), ours(x)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_the_variants_differ():
    """The stride's place and the pool change outputs, so that the agreement above means something."""
    torch.manual_seed(0)
    ours = recipes.get("se_resnet50").build(num_classes=10).eval()
    authors = recipes.get("se_resnet50_caffe").build(num_classes=10).eval()
    authors.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 97, 97)
    with torch.no_grad():
        assert not torch.allclose(ours(x), authors(x), rtol=1e-2)


def test_bn_inception_pools():
    network = recipes.get("se_bn_inception").build(se=False, num_classes=10).eval()
    sizes = {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda _, __, out, name=name: sizes.update({name: tuple(out.shape[1:])}))
    with torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    assert sizes["conv1"] == (64, 112, 112) and sizes["pool1"] == (64, 56, 56) and sizes["pool2"] == (192, 28, 28)
    assert [
        sizes[f"inception_{n}"][0] for n in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    ] == BN_INCEPTION
    assert sizes["inception_3c"][1:] == (14, 14) and sizes["inception_4e"][1:] == (7, 7)
    pools = [m for m in network.modules() if isinstance(m, nn.MaxPool2d | nn.AvgPool2d)]
    found = [(type(m).__name__, m.kernel_size, m.stride, m.padding) for m in pools]
    halving, average = ("MaxPool2d", 3, 2, 0), ("AvgPool2d", 3, 1, 1)

    assert found == [halving] * 2 + [average] * 2 + [halving, *[average] * 4, halving, average, ("MaxPool2d", 3, 1, 1)]
    assert all(m.ceil_mode for m in pools if m.stride == 2)
    assert all(m.count_include_pad for m in pools if isinstance(m, nn.AvgPool2d))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 69
    assert not any(m.bias is not None for m in network.modules() if isinstance(m, nn.Conv2d))


def test_bn_inception_passes_its_input_through():
    """The stride-2 modules end with the bare maximum of their input."""
    module = recipes.get("se_bn_inception").build(se=False).inception_3c
    x = torch.randn(1, 320, 28, 28)
    expected = nn.functional.max_pool2d(x, 3, 2, ceil_mode=True)
    assert torch.equal(module(x)[:, -320:], expected)


def test_caffe_stride():
    network = caffe(resnet(50))
    blocks = [network.layer2[0], network.layer3[0], network.layer4[0]]
    assert all(b.conv1.stride == (2, 2) and b.conv2.stride == (1, 1) for b in blocks)
    assert caffe(resnet(50, groups=32, width=4)).layer2[0].conv2.stride == (2, 2)


def test_unknown_network():
    with pytest.raises(recipes.errors.UnknownNameError, match="se_resnet50"):
        recipes.get("se_resnet_50")


def test_weights_of_another_network_are_refused():
    network = recipes.get("se_resnet20").build()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = recipes.get("se_resnet56").build().state_dict()
    with pytest.raises(
        recipes.errors.CheckpointError, match=r"w\.pt: these weights are of another network.*: layer1\.3"
    ):
        load_weights(network, state, "w.pt")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_weights_of_another_head_are_refused():
    network = recipes.get("se_resnet20").build(num_classes=10)
    state = recipes.get("se_resnet20").build(num_classes=7).state_dict()
    with pytest.raises(recipes.errors.CheckpointError, match=r"fc.weight is \(7, 64\), not \(10, 64\)"):
        load_weights(network, state, "w.pt")
