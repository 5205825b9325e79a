"""Odd forwards: what can be followed works in every case, what cannot is refused by name."""

import copy
import pickle
import random
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import se_inject

from ..support.blocks import Residual, block, conv
from ..support.forwards import X, assert_gated_on_a_child, assert_works, refused
from ..support.promises import assert_same


def test_training_branch():
    def forward(self, x):
        y = self.conv(x)
        if self.training:
            y = y + 0.5
        return x + y

    for training in (True, False):
        assert_works(block(forward, conv=conv()).train(training))


def test_training_as_an_argument():
    assert_works(block(lambda self, x: x + F.dropout(self.conv(x), 0.5, self.training), conv=conv()))


def test_training_changes_the_number_of_outputs():
    def forward(self, x):
        y = x + self.conv(x)
        return (y, self.aux(y)) if self.training else y

    assert_works(block(forward, conv=conv(), aux=conv(out=3)))


def test_default_arguments():
    def forward(self, x, scale=2.0, shortcut=None, *, extra: bool = False):
        y = self.conv(x) * scale
        if shortcut is not None:
            y = y * shortcut
        if extra:
            y = F.relu(y)
        return x + y

    for keywords in ({}, {"scale": 3.0}, {"shortcut": torch.full((1,), 2.0)}, {"extra": True}):
        assert_works(block(forward, conv=conv()), X, **keywords)
    assert_works(block(forward, conv=conv()), X, 0.5, torch.ones(1), extra=True)
    assert_works(block(forward, conv=conv()), X)


def test_several_outputs_and_inputs():
    def forward(self, x, y=1):
        out = x + self.conv(x)
        return {"out": out, "more": [out.mean(), y]}

    module = block(forward, conv=conv())
    plain = copy.deepcopy(module)
    se_inject.apply(module)
    assert_same(module(X)["out"], plain(X)["out"])
    assert module(X, 7)["more"][1] == 7


def test_in_place_operations():
    def forward(self, x):
        out = F.relu(self.conv(x), inplace=True)
        out += x
        out.mul_(2)
        return F.relu_(out)

    assert_works(block(forward, conv=conv()), X)


def test_in_place_add_changes_the_input_as_before():
    def forward(self, x):
        x += self.conv(x)
        return x

    module = se_inject.apply(block(forward, conv=conv()))
    with torch.no_grad():
        x = X.clone()
        y = module(x)
    assert y.data_ptr() == x.data_ptr() and not torch.equal(x, X)


def test_value_changed_in_place_before_it_is_added():
    def forward(self, x):
        y = self.conv(x)
        y.clamp_(min=0)
        return y + x

    assert_works(block(forward, conv=conv()), X)


def test_hooks_on_the_block_and_its_children():
    calls = []
    module = block(lambda self, x: x + self.conv(x), conv=conv())
    module.register_forward_hook(lambda m, args, out: calls.append("block") or out * 2)
    module.conv.register_forward_hook(lambda m, args, out: calls.append("conv") or out + 1)
    expected = module(X)
    se_inject.apply(module)
    calls.clear()
    assert_same(module(X), expected)
    assert calls == ["conv", "block"]


def test_loops_over_module_lists_helpers_and_parameters():
    def forward(self, x):
        y = x
        for layer in self.layers:
            y = layer(y)
        return x + y * self.gamma

    module = block(forward, layers=nn.ModuleList([conv(), nn.ReLU(), conv()]), gamma=nn.Parameter(torch.tensor(0.5)))
    assert se_inject.find_sites(module)[0].node == "layers_2"
    assert_works(module)


def test_functional_convolution_with_own_weight():
    module = block(
        lambda self, x: x + F.conv2d(x, self.weight, padding=1), weight=nn.Parameter(torch.randn(16, 16, 3, 3))
    )
    assert se_inject.find_sites(module)[0].channels == 16
    assert_works(module)


def test_buffers_and_plain_tensors_stay_live():
    module = block(lambda self, x: x + self.conv(x) * self.mask * self.plain, conv=conv())
    module.register_buffer("mask", torch.ones(1))
    module.plain = torch.ones(1)
    se_inject.apply(module)
    expected = module(X)
    module.mask.fill_(2)
    module.plain.fill_(3)
    assert not torch.equal(module(X), expected)


def test_attribute_read_by_forward_stays_live():
    def forward(self, x):
        y = x + self.conv(x) * self.scale
        return F.relu(y) if self.activate else y

    module = block(forward, conv=conv())
    module.scale, module.activate = 1.0, True
    plain = copy.deepcopy(module)
    se_inject.apply(module)
    for model in (plain, module):
        model.scale, model.activate = 0.25, False
    assert_same(module(X), plain(X))
    assert_same(copy.deepcopy(module)(X), plain(X))
    se_inject.remove(module)
    assert module.scale == 0.25


def test_attribute_that_changes_the_way_after_apply():
    def forward(self, x):
        y = self.conv(x)
        if self.check and y.sum() > 0:
            y = -y
        return x + y

    module = block(forward, conv=conv())
    module.check = False
    plain = copy.deepcopy(module)
    se_inject.apply(module)
    for model in (plain, module):
        model.check = True
    for x in (X, -X):
        assert_same(module(x), plain(x))


def test_data_dependent_control_flow():
    def forward(self, x):
        y = self.conv(x)
        return x + y if x.sum() > 0 else x - y

    module = block(forward, conv=conv())
    plain = copy.deepcopy(module)
    se_inject.apply(module)
    for x in (X.abs(), -X.abs()):
        assert_same(module(x), plain(x))
    nn.init.normal_(module.se.fc2.bias)
    assert not torch.equal(module(X.abs()), plain(X.abs()))
    assert_same(module(-X.abs()), plain(-X.abs()))  # a difference is no residual add


def test_control_flow_on_shapes():
    def forward(self, x):
        y = self.conv(x)
        return x + y if x.shape == y.shape else y

    assert_works(block(forward, conv=conv()))


def test_isinstance_on_a_value():
    def forward(self, x):
        if isinstance(x, torch.Tensor):
            x = F.relu(x)
        return x + self.conv(x)

    assert_works(block(forward, conv=conv()))


@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(1).item(), random.random, np.random.rand], ids=["torch", "random", "numpy"]
)
def test_randomness_is_drawn_at_every_call_and_not_while_finding(draw):
    def forward(self, x):
        return x + self.conv(x) * float(draw())

    module = block(forward, conv=conv())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    assert len(se_inject.find_sites(module)) == 1
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tobytes())
    assert_works(module)
    assert not torch.equal(module(X), module(X))


def test_randomness_that_follows_the_input_works():
    def forward(self, x):
        y = self.conv(x)
        return x + y * torch.rand_like(y)

    assert_works(block(forward, conv=conv()))


def test_instance_level_forward_is_refused():
    module = block(lambda self, x: x + self.conv(x), conv=conv())
    module.forward = lambda x: x
    assert "instance" in refused(module)


def test_attributes_that_are_read_and_written():
    def forward(self, x):
        self.calls = self.calls + 1
        return x + self.conv(x) if self.calls % 2 else x + self.conv(x) * 2

    module = block(forward, conv=conv())
    module.calls = 0
    assert len(se_inject.find_sites(module)) == 1
    assert module.calls == 0
    assert_works(module)


def test_writes_into_lists_and_children_are_made_when_it_runs():
    def collect(self, x):
        self.seen.append(x)
        return x + self.conv(x)

    def mark(self, x):
        self.conv.used = True
        return x + self.conv(x)

    module = block(collect, conv=conv())
    module.seen = []
    se_inject.apply(module)
    assert module.seen == []
    module(X)
    assert len(module.seen) == 1
    module = block(mark, conv=conv())
    assert len(se_inject.find_sites(module)) == 1 and not hasattr(module.conv, "used")
    se_inject.apply(module)(X)
    assert module.conv.used is True


def test_grad_and_autocast_contexts_stay():
    def no_grad(self, x):
        with torch.no_grad():
            y = self.conv(x)
        return x + y

    def full_precision(self, x):
        with torch.autocast("cpu", enabled=False):
            y = self.conv(x)
        return x + y

    assert_works(block(no_grad, conv=conv()))
    assert not se_inject.apply(block(no_grad, conv=conv()))(X).requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert_works(block(full_precision, conv=conv()))
        assert se_inject.apply(block(full_precision, conv=conv()))(X).dtype == torch.float32


def test_created_tensors():
    assert_works(block(lambda self, x: x + self.conv(x) + torch.ones(1), conv=conv()))


def test_stochastic_depth_by_hand():
    def forward(self, x):
        if self.training and torch.rand(1) < 0.4:
            return x
        return x + self.conv(x)

    assert_works(block(forward, conv=conv()))


def test_padding_that_depends_on_the_shape():
    def forward(self, x):
        y = self.body(x if x.shape[2] % 2 else F.pad(x, (0, 1, 0, 1)))
        return x + y[:, :, : x.shape[2], : x.shape[3]]

    assert_works(block(forward, body=nn.Sequential(conv(), nn.BatchNorm2d(16))))


def test_output_that_is_a_branch_on_one_way_only():
    """The gate is around the use in the add, as the other way returns the value bare."""

    def forward(self, x):
        y = self.conv(x)
        return x + y if x.sum() > 0 else y

    module = block(forward, conv=conv())
    plain = copy.deepcopy(module)
    nn.init.normal_(se_inject.apply(module).se.fc2.bias)
    assert_same(module(-X.abs()), plain(-X.abs()))
    assert not torch.equal(module(X.abs()), plain(X.abs()))


def test_child_that_is_called_twice_or_shared():
    def twice(self, x):
        x = x if x.shape[2] % 2 else F.relu(x)
        return x + self.conv(self.conv(x))

    def once(self, x):
        return x + self.conv(x) if x.shape[2] % 2 else x

    assert_works(block(twice, conv=conv()))
    shared = conv()
    assert_works(nn.Sequential(block(once, conv=shared), shared), torch.randn(2, 16, 7, 7))

    def loop(self, x):
        return [x := x + layer(x) for layer in self.layers][-1]

    model = nn.Sequential(block(loop, layers=nn.ModuleList([shared, conv()])), shared)
    [(_, reason)] = se_inject.find_sites(model).skipped
    assert "shared" in reason


def test_layers_that_change_their_class_take_no_gate_on_their_output():
    def loop(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x

    for layer in (nn.LazyConv2d(16, 1), nn.utils.parametrizations.weight_norm(conv())):
        module = block(loop, layers=nn.ModuleList([layer, conv()]))
        found = se_inject.find_sites(module, example_inputs=X)
        assert [site.gate_path for site in found] == ["se", "layers.1.se"]
    assert_works(module)


def test_block_that_is_itself_the_branch_of_another():
    def once(self, x):
        for layer in self.inner:
            x = x + layer(x)
        return x

    model = block(once, inner=nn.ModuleList([Residual(), conv()]))
    se_inject.apply(model)
    assert sorted(name for name, _ in se_inject.gates(model)) == ["inner.0.se", "inner.0.se_out", "inner.1.se"]
    again = pickle.loads(pickle.dumps(Residual()))
    assert type(again) is Residual
    copied = copy.deepcopy(model)
    x = torch.randn(2, 16, 7, 7)
    assert_same(copied(x), model(x))
    for _, gate in se_inject.gates(copied):
        nn.init.normal_(gate.fc2.bias)
    assert not torch.equal(copied(x), model(x))
    assert type(se_inject.remove(model).inner[0]) is Residual


def test_checkpointing():
    from torch.utils.checkpoint import checkpoint

    module = block(lambda self, x: x + checkpoint(self.conv, x, use_reentrant=False), conv=conv())
    assert_works(module)

    def inner(self, x):
        def run(x):
            y = self.conv(x)
            return x + y

        return checkpoint(run, x, use_reentrant=False) if x.requires_grad else run(x)

    module = block(inner, conv=conv())
    assert_works(module)
    x = X.clone().requires_grad_()
    assert_same(se_inject.remove(module)(x), se_inject.apply(module)(x))


def test_training_flag_of_a_child():
    def forward(self, x):
        return x + F.dropout(self.conv(x), 0.5, self.drop.training)

    assert_works(block(forward, conv=conv(), drop=nn.Dropout()))


def test_modules_outside_the_branch_are_not_run_and_in_it_are_refused():
    outside = nn.BatchNorm2d(16)
    assert "not among" in refused(block(lambda self, x: x + self.conv(outside(x)), conv=conv()))
    hidden = block(lambda self, x: x + self.conv(self.hidden[0](x)), conv=conv())
    hidden.hidden = [outside]
    assert "not among" in refused(hidden)
    assert outside.num_batches_tracked == 0


def test_values_that_a_forward_keeps_are_still_kept():
    def forward(self, x):
        y = self.conv(x)
        self.last = y
        return x + y

    module = block(forward, conv=conv())
    assert_works(module)
    assert "last" in vars(module)


@pytest.mark.parametrize("arguments", [(X,), (X, 1), ([X],)], ids=["one", "two", "list"])
def test_questions_about_arguments(arguments):
    def kinds(self, x, *args):
        return self.conv(x[0]) if isinstance(x, (list, tuple)) else x + self.conv(x)

    def numbers(self, x, *args):
        return self.conv(x[0]) if not hasattr(x, "shape") else x + self.conv(x)

    def star(self, x, *args):
        if args or not torch.is_tensor(x):
            return self.conv(x[0] if isinstance(x, list) else x)
        return x + self.conv(x)

    def looked_up(self, x, mode="plain"):
        x = x[0] if isinstance(x, list) else x
        return x + self.conv(x) * (1 if mode in {"plain"} else 2)

    for forward in (kinds, numbers, star, looked_up):
        module = block(forward, conv=conv())
        plain = copy.deepcopy(module)
        nn.init.normal_(se_inject.apply(module).se.fc2.bias)
        same = torch.equal(module(*arguments), plain(*arguments))
        assert same == torch.equal(plain(*arguments), plain.conv(X))  # the gate is where the add is


def test_keywords_of_any_name():
    def options(self, x, **options):
        return self.conv(x) if "bare" in options else x + self.conv(x) * options.get("scale", 1)

    module = block(options, conv=conv())
    plain = copy.deepcopy(module)
    assert_works(module)
    assert_same(module(X, bare=True), plain(X, bare=True))
    assert_works(block(options, conv=conv()), scale=2)


def test_code_that_is_not_python_gets_no_stand_in_for_a_tensor():
    def forward(self, x):
        return x + self.conv(x) if isinstance(torch.Tensor._make_subclass(torch.Tensor, x), torch.Tensor) else x

    assert_works(block(forward, conv=conv()))


def test_questions_what_a_value_has():
    def forward(self, x):
        return x + self.conv(x) * (1 if hasattr(x, "tensors") else 2) * getattr(x, "scale", 1)

    assert_works(block(forward, conv=conv()))


def test_children_whose_output_takes_no_gate():
    class Loops(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv()

        def forward(self, x):
            for layer in self.children():
                x = layer(x)
            return x

    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv()

        def __call__(self, x):
            return self.conv(x)

        def forward(self, x):
            return self.conv(x)

    def loop(self, x):
        for branch in self.branches:
            x = x + branch(x)
        return x

    for branch in (Loops(), Calls(), torch.fx.symbolic_trace(Loops())):
        module = block(loop, branches=nn.ModuleList([branch, conv()]))
        assert [site.gate_path for site in se_inject.find_sites(module)] == ["se", "branches.1.se"]
        assert_works(module)


def test_child_that_another_module_calls_takes_no_gate():
    def loop(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x

    def outer(self, x):
        return self.block.layers[0](self.block(x))

    model = block(outer, block=block(loop, layers=nn.ModuleList([conv(), conv()])))
    found = se_inject.find_sites(model)
    assert [site.gate_path for site in found] == ["block.layers.1.se"]
    assert any("shared" in reason for _, reason in found.skipped)


def test_none_among_several_results_is_not_taken_for_a_value():
    class Pair(nn.Module):
        def forward(self, x):
            return x, None

    def forward(self, x):
        x, more = self.pair(x)
        return x + self.conv(x) if more is None else x + self.conv(x) * more

    assert_works(block(forward, conv=conv(), pair=Pair()))


def test_children_that_return_several_values():
    class Body(nn.Module):
        """A pre-activation branch, with the activated input for the projection."""

        def __init__(self):
            super().__init__()
            self.norm, self.conv, self.last = nn.BatchNorm2d(16), conv(16, 8), conv(8, 24)

        def forward(self, x):
            y = F.relu(self.norm(x))
            return self.last(self.conv(y)), y

    def forward(self, x):
        y, activated = self.body(x)
        return y + self.project(activated)

    module = block(forward, body=Body(), project=nn.Conv2d(16, 24, 1))
    [site] = se_inject.find_sites(module)
    assert site.channels == 24
    assert_works(module)


def test_varargs():
    assert_works(block(lambda self, *x: x[0] + self.conv(x[0]), conv=conv()))
    assert_works(block(lambda self, x, *args, **kwargs: x + self.conv(x), conv=conv()))


def test_module_in_a_plain_list_that_is_also_a_child():
    module = block(lambda self, x: x + self.order[1](self.order[0](x)), a=conv(), b=conv())
    module.order = [module.a, module.b]
    assert_works(module)


def test_init_subclass_is_not_triggered():
    registry = []

    class Registered(nn.Module):
        def __init_subclass__(cls, *, name, **kwargs):
            registry.append(name)

    class Block(Registered, name="block"):
        def __init__(self):
            super().__init__()
            self.conv = conv()

        def forward(self, x):
            return x + self.conv(x)

    assert_works(Block())
    assert registry == ["block"]


def test_required_argument_that_may_be_none():
    def forward(self, x, mask):
        y = self.conv(x)
        if mask is not None:
            y = y * mask
        return x + y

    module = block(forward, conv=conv())
    plain = copy.deepcopy(module)
    se_inject.apply(module)
    assert_same(module(X, None), plain(X, None))
    assert_same(module(X, torch.full((1,), 2.0)), plain(X, torch.full((1,), 2.0)))


def test_flag_that_is_no_flag():
    module = se_inject.apply(block(lambda self, x, alpha=True: x + self.conv(x) * alpha, conv=conv()))
    plain = se_inject.remove(copy.deepcopy(module))
    for alpha in (False, True, 0.5):
        assert_same(module(X, alpha=alpha), plain(X, alpha=alpha))


def test_gates_stay_with_their_layer_in_every_case():
    def swapped(self, x):
        for layer in (self.a, self.b) if self.training else (self.b, self.a):
            x = x + layer(x)
        return x

    assert_gated_on_a_child(block(swapped, a=conv(), b=conv()), "a", "b")

    def other(self, x):
        return x + (self.a(x) if self.training else self.b(x))

    assert "sites differ between" in refused(block(other, a=conv(), b=conv()))  # one would run without having learned


def test_questions_about_types_and_modes():
    def kind(self, x):
        return x + self.conv(x) if type(x) is torch.Tensor else x

    def helper(self, x):
        return self.kind(x)

    def grad(self, x):
        return x + self.conv(x) * (2 if torch.is_grad_enabled() else 3)

    assert_works(block(kind, conv=conv()))
    module = block(helper, conv=conv())
    type(module).kind = kind
    assert_works(module)
    assert_works(block(grad, conv=conv()))


def test_own_and_child_training_flags():
    def forward(self, x):
        y = F.dropout(self.conv(x), 0.5, self.drop.training)
        return x + (y if self.training else y * 2)

    assert_works(block(forward, conv=conv(), drop=nn.Dropout()))


def test_bound_method_kept_as_an_attribute():
    def branch(self, x):
        return self.conv(x) if self.training else self.conv(x) * 2

    module = block(lambda self, x: x + self.function(x), conv=conv())
    type(module).branch = branch
    module.function = module.branch
    plain = copy.deepcopy(module)
    assert_same(se_inject.apply(module)(X), plain(X))
    assert len(list(se_inject.gates(module))) == 1


@pytest.mark.parametrize(
    "generator", [random.Random(0), torch.Generator(), np.random.default_rng(0)], ids=lambda g: type(g).__module__
)
def test_own_random_generators_are_not_advanced(generator):
    def forward(self, x):
        return x + self.conv(x) * (
            torch.rand(1, generator=self.generator)
            if isinstance(self.generator, torch.Generator)
            else float(self.generator.random())
        )

    def state():
        if isinstance(generator, torch.Generator):
            return generator.get_state().tolist()
        return generator.getstate() if isinstance(generator, random.Random) else generator.bit_generator.state

    module = block(forward, conv=conv())
    module.generator = generator
    before = state()
    found = se_inject.find_sites(module)
    assert len(found) == 1 and state() == before
    se_inject.apply(module)
    assert state() == before
    assert not torch.equal(module(X), module(X))


def test_data_of_a_value_is_set():
    def forward(self, x):
        y = self.conv(x)
        y.data = F.relu(y.data)
        return x + y

    assert_works(block(forward, conv=conv()))


def test_finding_has_no_side_effects_on_attributes_of_any_depth():
    class Counter:
        n = 0

        def __init__(self):
            self.n = 0

    def deep(self, x):
        self.store["seen"].append(x)
        return x + self.conv(x)

    def queue(self, x):
        self.store.append(x)
        return x + self.conv(x)

    def count(self, x):
        self.store.n += 1
        return x + self.conv(x)

    def inside(self, x):
        self.store.log.append(x)
        self.store.by["name"] = self.store.log
        return x + self.conv(x)

    for forward, store, clean in (
        (deep, {"seen": []}, lambda s: s == {"seen": []}),
        (queue, deque(), lambda s: not s),
        (count, Counter(), lambda s: s.n == 0),
        (inside, SimpleNamespace(log=[1], by={"a": [2]}), lambda s: s == SimpleNamespace(log=[1], by={"a": [2]})),
    ):
        module = block(forward, conv=conv())
        module.store = store
        found = se_inject.find_sites(module)
        assert len(found) == 1 and clean(store)
        se_inject.apply(module)
        assert clean(store)
        module(X)
        assert not clean(store)


def test_side_effects_before_a_question():
    def forward(self, x):
        self.store.n += 1
        return x + self.conv(x) if x.sum() > 0 else self.conv(x)

    module = block(forward, conv=conv())
    module.store = SimpleNamespace(n=0)
    se_inject.apply(module)
    assert module.store.n == 0
    module(X)
    assert module.store.n == 1


def test_children_and_class_attributes_read_by_forward_stay_live():
    def forward(self, x):
        y = self.conv(x)
        if self.tail is not None:
            y = self.tail(y)
        return F.relu(x + y) * self.scale

    module = block(forward, conv=conv(), tail=nn.ReLU())
    type(module).scale = 2.0
    plain = copy.deepcopy(module)
    se_inject.apply(module)
    for model in (plain, module):
        model.scale, model.conv = 3.0, plain.conv
    assert_same(module(X), plain(X))
    for model in (plain, module):
        model.tail = None
        del model.scale
    assert_same(module(X), plain(X))


@pytest.mark.parametrize(
    "lazy", [lambda: nn.LazyConv2d(16, 3, padding=1), lambda: nn.Sequential(conv(), nn.LazyBatchNorm2d())]
)
def test_lazy_layers(lazy):
    outputs = []
    for gated in (False, True):
        torch.manual_seed(0)
        module = block(lambda self, x: x + self.conv(x), conv=lazy())
        if gated:
            se_inject.apply(module)
        torch.manual_seed(0)
        outputs.append(module(X))
    assert_same(*outputs)


@pytest.mark.parametrize(
    "change",
    [lambda m: m.to(torch.bfloat16).apply(lambda c: c.float() if isinstance(c, nn.BatchNorm2d) else c), lambda m: m],
)
def test_values_of_another_dtype_than_the_parameters(change):
    module = change(block(lambda self, x: x + self.bn(self.conv(x)), conv=conv(), bn=nn.BatchNorm2d(16)))
    plain = copy.deepcopy(module)
    se_inject.apply(module)
    x = X.to(module.conv.weight.dtype)
    assert_same(module(x), plain(x))


def test_loops_that_a_shape_rules():
    """As in guided-diffusion's ResBlock."""

    def broadcast(self, x, t):
        h, t = self.conv(x), self.time(t)
        while len(t.shape) < len(h.shape):
            t = t[..., None]
        return x + self.other(h + t)

    assert_works(block(broadcast, conv=conv(), other=conv(), time=nn.Linear(4, 16)), X, torch.randn(2, 4))

    def squeezed(self, x):
        h = self.conv(x)
        while True:
            if h.dim() <= 4:
                break
            h = h.squeeze(-1)
        return x + h

    module = block(squeezed, conv=conv())
    plain = copy.deepcopy(module)
    if se_inject.find_sites(module):
        assert_same(se_inject.apply(module)(X), plain(X))


def test_ways_that_would_fail_do_not_cost_the_others():
    def without_projection(self, x, t=None):  # as latent diffusion's autoencoder
        h = self.conv(x)
        if t is not None:
            h = h + self.projection(t)[:, :, None, None]
        return x + self.other(h)

    def without_shapes(self, x, t=None):  # as pytorch_tcn's TemporalBlock
        h = self.conv(x)
        if t is not None:
            for part, shape in zip(t, self.shapes, strict=True):
                h = h + part.view(shape)
        return x + h

    assert_works(block(without_projection, conv=conv(), other=conv()))
    module = block(without_shapes, conv=conv())
    module.shapes = None
    assert_works(module)


def test_crops_of_what_a_convolution_padded():
    def forward(self, x):
        h = self.conv(x)
        if h.size(-1) > x.size(-1):
            h = h[..., : x.size(-1)]
        return x + h

    assert_works(block(forward, conv=nn.Conv1d(16, 16, 3, padding=2)), torch.randn(2, 16, 8))


def test_forwards_that_can_reach_themselves():
    def forward(self, x):
        if isinstance(x, dict):
            return self.loss(x)
        return x + self.conv(x)

    module = block(forward, conv=conv())
    type(module).loss = lambda self, batch: self.forward(batch["image"]).mean()
    assert_works(module)


def test_number_of_parts_that_the_text_tells():
    def forward(self, x):
        a, b, c = (part * 2 for part in self.conv(x).chunk(3, dim=1))
        return x + self.other(a * b + c)

    assert_works(block(forward, conv=conv(16, 48), other=conv()))


def test_many_layers_that_may_return_tuples():
    """As speechbrain's Sequential asks each of its layers."""

    class Steps(nn.ModuleDict):
        def forward(self, x):
            for layer in self.values():
                x = layer(x)
                if isinstance(x, tuple):
                    x = x[0]
            return x

    steps = Steps({f"{kind}{i}": layer for i in range(9) for kind, layer in (("conv", conv()), ("act", nn.ReLU()))})
    assert_works(block(lambda self, x: x + self.last(self.steps(x)), steps=steps, last=conv()))


def test_children_are_moved_only_when_it_runs():
    def forward(self, x):
        self.conv.to(x.device)
        return x + self.conv(x)

    assert_works(block(forward, conv=conv()))


def test_generators_and_coroutines_are_refused():
    def generator(self, x):
        yield x + self.conv(x)

    async def coroutine(self, x):
        return x + self.conv(x)

    for forward in (generator, coroutine):
        assert "generator or a coroutine" in refused(block(forward, conv=conv()))


def test_methods_of_tensors_by_their_class():
    def forward(self, x):
        return torch.Tensor.add(x, torch.Tensor.mul(self.conv(x), 0.5))

    assert_works(block(forward, conv=conv()))
