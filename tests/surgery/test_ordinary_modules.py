"""A gated model is an ordinary one: sharded, compiled, scripted, copied, made anew, extended."""

import copy
import pickle
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

import se_inject

from ..support.blocks import Residual, block, conv
from ..support.forwards import X
from ..support.promises import assert_same, exact_state


class Scaled(nn.Module):
    """A block with a parameter of its own, as ConvNeXt's."""

    def __init__(self):
        super().__init__()
        self.conv, self.gamma = conv(), nn.Parameter(torch.full((16, 1, 1), 0.5))

    def forward(self, x):
        return x + self.conv(x) * self.gamma


@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch cannot shard on a CPU")
def test_sharded_block_with_a_parameter_of_its_own(tmp_path):
    from torch.distributed.fsdp import fully_shard

    model = se_inject.apply(nn.Sequential(Scaled(), Scaled()))
    expected = model(X).detach()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        for child in model:
            fully_shard(child, mesh=mesh)
        fully_shard(model, mesh=mesh)
        assert torch.allclose(model(X), expected)
        model(X).sum().backward()
    finally:
        dist.destroy_process_group()


def test_attributes_of_a_gated_block_cost_nothing_more():
    module = block(lambda self, x: x + self.conv(x) * self.scale, conv=conv())
    module.scale = 1.0
    se_inject.apply(module)
    assert type(module).__setattr__ is nn.Module.__setattr__
    cls = type(module)
    for value in range(3):
        module.scale = float(value)
        assert type(module) is cls


def test_scripting_and_tracing():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates them
        for compile_ in (torch.jit.script, lambda m: torch.jit.trace(m, X)):
            model = se_inject.apply(Residual()).eval()
            assert_same(compile_(model)(X), model(X))


def test_class_of_a_gated_block_makes_plain_ones():
    model = se_inject.apply(Residual())
    again = type(model)(8)
    assert type(again) is Residual and again.conv1.in_channels == 8
    assert type(copy.deepcopy(model)) is type(model) is type(pickle.loads(pickle.dumps(model)))
    assert_same(pickle.loads(pickle.dumps(model.eval()))(X), model(X))


def test_registries_of_metaclasses_hear_nothing():
    names = []

    class Registering(type):
        def __init__(cls, name, bases, body):
            super().__init__(name, bases, body)
            names.append(name)

    class Registered(Residual, metaclass=Registering):
        pass

    model = se_inject.apply(nn.Sequential(Registered()))
    assert_same(model.eval()(X), se_inject.remove(copy.deepcopy(model))(X))
    assert names == ["Registered"]


def test_freezing_is_all_or_nothing(monkeypatch):
    model = se_inject.apply(nn.Sequential(Residual(), Residual()))
    before, flags = exact_state(model), [p.requires_grad for p in model.parameters()]
    calls = []

    def interrupted(self, mode=True):
        calls.append(self)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return self

    monkeypatch.setattr(nn.BatchNorm2d, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        se_inject.freeze_backbone(model)
    assert exact_state(model) == before and [p.requires_grad for p in model.parameters()] == flags


@pytest.mark.parametrize("child", ["compiled", "scripted"])
def test_children_that_are_compiled_or_scripted_are_refused(child):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = torch.compile(conv()) if child == "compiled" else torch.jit.script(conv())
    model = block(lambda self, x: x + self.conv(x), conv=layer)
    with pytest.raises(se_inject.errors.NoBlockError, match="wrapped or compiled"):
        se_inject.apply(model)


def test_weights_in_float8_get_a_gate_that_can_learn():
    model = block(lambda self, x: x + self.conv(x), conv=conv())
    model.conv.weight = nn.Parameter(model.conv.weight.data.to(torch.float8_e4m3fn), requires_grad=False)
    model.conv.bias = None
    se_inject.apply(model)
    assert {p.dtype for p in model.se.parameters()} == {torch.float32}


def test_kept_activations_do_not_hinder_an_example():
    def keeps(self, x):
        self.last = self.conv(x)
        return x + torch.fft.fft(self.last).real

    model = block(keeps, conv=conv())
    model(X)
    assert len(se_inject.find_sites(model, example_inputs=X)) == 1
    model.generator = (i for i in range(3))
    with pytest.raises(se_inject.errors.InvalidArgumentError, match="cannot be copied"):
        se_inject.find_sites(model, example_inputs=X)


def test_arguments_in_any_order_and_by_keyword_only():
    def forward(self, x, scale=1.0, *, extra):
        return x + self.conv(x) * scale * extra

    model = se_inject.apply(block(forward, conv=conv()))
    assert_same(model(X, extra=2.0), X + model.conv(X) * 2.0)
