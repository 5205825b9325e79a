"""Generated networks whose true sites are known by construction."""

import copy
from dataclasses import dataclass, field

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812

import se_inject

from .support.promises import assert_same, exact_state

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}

ADDS = {
    "x + y": lambda x, y: x + y,
    "y + x": lambda x, y: y + x,
    "torch.add": torch.add,
    "x.add(y)": lambda x, y: x.add(y),
    "y.add_(x)": lambda x, y: y.add_(x),
}


class Residual(nn.Module):
    """Basic or bottleneck, pre- or post-activation, with or without projection, scale and dropout."""

    def __init__(self, dims, width, out, *, groups, stride, bottleneck, pre, module_relu, add, scale, dropout, norm):
        super().__init__()
        middle = groups * 2
        kernels = [1, 3, 1] if bottleneck else [3, 3]
        widths = [width, *[middle] * (len(kernels) - 1), out]
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for i, kernel in enumerate(kernels):
            options = {"stride": stride if i == 1 else 1, "padding": kernel // 2}
            options["groups"] = groups if i == 1 and (bottleneck or out % groups == 0) else 1
            self.convs.append(CONV[dims](widths[i], widths[i + 1], kernel, **options))
            self.norms.append(NORM[dims](widths[i] if pre else widths[i + 1]) if norm else nn.Identity())
        self.relu = nn.ReLU(inplace=not pre) if module_relu else None
        self.project = None
        if stride != 1 or width != out:
            self.project = nn.Sequential(CONV[dims](width, out, 1, stride=stride), NORM[dims](out))
        self.drop = nn.Dropout(0.5) if dropout else None
        self.pre, self.add, self.scale = pre, add, scale

    def activate(self, x):
        return F.relu(x) if self.relu is None else self.relu(x)

    def forward(self, x):
        identity = x if self.project is None else self.project(x)
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = conv(self.activate(norm(y))) if self.pre else norm(conv(y))
            if not self.pre and i < len(self.convs) - 1:
                y = self.activate(y)
        if self.scale is not None:
            y = y * self.scale
        if self.drop is not None:
            y = self.drop(y)
        if self.add == "+=":
            y += identity
        else:
            y = ADDS[self.add](identity, y)
        return y if self.pre else self.activate(y)


class Inception(nn.Module):
    """Paths from one input; the first may end in a concat of its own, the last may be a bare pool."""

    def __init__(self, dims, width, outs, *, pool, nested):
        super().__init__()
        self.paths = nn.ModuleList(CONV[dims](width, out, 3, padding=1) for out in outs)
        self.split = nn.ModuleList(CONV[dims](outs[0], 3, 1) for _ in range(2)) if nested else None
        self.pool = POOL[dims](3, 1, 1) if pool else None

    def forward(self, x):
        values = [path(x) for path in self.paths]
        if self.split is not None:
            values[0] = torch.cat([conv(values[0]) for conv in self.split], dim=1)
        if self.pool is not None:
            values.append(self.pool(x))
        return torch.cat(values, 1)


class Dense(nn.Module):
    def __init__(self, dims, width):
        super().__init__()
        self.conv = CONV[dims](width, 4, 3, padding=1)

    def forward(self, x):
        return torch.cat([x, self.conv(x)], 1)


class TwoPaths(nn.Module):
    def __init__(self, dims, width):
        super().__init__()
        self.a, self.b = (CONV[dims](width, width, 3, padding=1) for _ in range(2))

    def forward(self, x):
        return self.a(x) + self.b(x)


class Gated(nn.Module):
    """A residual block that has a gate of its own."""

    def __init__(self, dims, width):
        super().__init__()
        self.conv, self.fc = CONV[dims](width, width, 3, padding=1), CONV[dims](width, width, 1)
        self.spatial = tuple(range(2, dims + 2))

    def forward(self, x):
        y = self.conv(x)
        return x + y * torch.sigmoid(self.fc(y.mean(self.spatial, keepdim=True)))


class Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


@dataclass
class Network:
    dims: int
    width: int
    layers: list[nn.Module] = field(default_factory=list)
    sites: set[tuple[str, str, int]] = field(default_factory=set)


def residual_options(draw, dims, width, out):
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if out % g == 0 or g == 1]))
    keys = {key: draw(st.booleans()) for key in ("bottleneck", "pre", "module_relu", "dropout", "norm")}
    return {
        **keys,
        "groups": groups,
        "stride": draw(st.sampled_from([1, 1, 2])),
        "add": draw(st.sampled_from([*ADDS, "+="])),
        "scale": draw(st.sampled_from([None, 0.5])),
    }


def add_residual(draw, net, path):
    out = draw(st.one_of(st.just(net.width), st.integers(1, 40)))
    net.layers.append(Residual(net.dims, net.width, out, **residual_options(draw, net.dims, net.width, out)))
    net.sites.add((path, "residual", out))
    net.width = out
    if draw(st.booleans()) and net.layers[-1].project is None:
        net.layers.append(net.layers[-1])  # shared: the same block again, with the same gate


def add_inception(draw, net, path):
    outs = draw(st.lists(st.integers(1, 12), min_size=2, max_size=4))
    pool, nested = draw(st.booleans()), draw(st.booleans())
    net.layers.append(Inception(net.dims, net.width, outs, pool=pool, nested=nested))
    net.width = sum(outs) + (6 - outs[0] if nested else 0) + (net.width if pool else 0)
    net.sites.add((path, "inception", net.width))


def add_nested(draw, net, path):
    inner = Network(net.dims, net.width)
    for i in range(draw(st.integers(1, 2))):
        options = {**residual_options(draw, net.dims, net.width, net.width), "stride": 1}
        inner.layers.append(Residual(net.dims, net.width, net.width, **options))
        net.sites.add((f"{path}.inner.{i}", "residual", net.width))
    net.layers.append(Outer(nn.Sequential(*inner.layers)))
    net.sites.add((path, "residual", net.width))


def add_without_site(draw, net, path):
    make = draw(st.sampled_from([Dense, TwoPaths, Gated]))
    net.layers.append(make(net.dims, net.width))
    net.width += 4 if make is Dense else 0


@st.composite
def networks(draw):
    net = Network(draw(st.integers(1, 3)), draw(st.integers(1, 24)))
    first = net.width
    for _ in range(draw(st.integers(1, 3))):
        add = draw(st.sampled_from([add_residual, add_residual, add_inception, add_nested, add_without_site]))
        add(draw, net, str(len(net.layers)))
    sizes = st.lists(st.integers(2, 9), min_size=net.dims, max_size=net.dims)
    shapes = [(draw(st.integers(2, 3)), first, *draw(sizes)) for _ in range(2)]
    return nn.Sequential(*net.layers), net.sites, shapes


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.integers(1, 64), st.sampled_from([torch.float32, torch.float64]))
def test_generated_networks(network, reduction, dtype):
    model, sites, shapes = network
    model.to(dtype)
    plain, before = copy.deepcopy(model), exact_state(model)
    found = se_inject.find_sites(model)
    assert {(site.path, site.kind, site.channels) for site in found} == sites
    assert exact_state(model) == before
    if not sites:
        return
    se_inject.apply(model, reduction)
    for path, _kind, channels in sites:
        gate = model.get_submodule(f"{path}.se")
        assert gate.fc1.weight.shape[:2] == (max(channels // reduction, 8), channels)
        assert gate.fc1.weight.dtype == dtype
    for shape in shapes:
        x = torch.randn(shape, dtype=dtype)
        for training in (False, True):
            outputs = []
            for each in (plain.train(training), model.train(training)):
                torch.manual_seed(0)
                outputs.append(each(x.clone()))
            assert_same(*outputs)
            assert outputs[0].shape[0] == shape[0]
    for name, buffer in plain.named_buffers():
        assert_same(model.get_buffer(name), buffer)
    se_inject.remove(model.train())
    assert exact_state(model) == before
