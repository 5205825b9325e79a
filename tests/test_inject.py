"""apply and remove: errors leave the model as it was, gates go where they are asked for."""

import copy

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812

import se_inject
from se_inject import errors

from .support.blocks import Residual, block, conv, network
from .support.families import small_inception_resnet, vgg_features
from .support.promises import assert_same, exact_state

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def names(model):
    return [name for name, _ in se_inject.gates(model)]


def ambiguous(channels=16):
    return block(lambda self, x: self.a(x) + self.b(x), a=conv(channels), b=conv(channels))


def untraceable():
    module = block(lambda self, x: x + self.conv(x), conv=conv())
    module.forward = lambda x: x
    return module


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda m: se_inject.apply(m, 0), ValueError),
        (lambda m: se_inject.apply(m, -1), ValueError),
        (lambda m: se_inject.apply(m, 16.0), TypeError),
        (lambda m: se_inject.apply(m, "16"), TypeError),
        (lambda m: se_inject.apply(m, True), TypeError),
        (lambda m: se_inject.apply(m, None), TypeError),
        (lambda m: se_inject.apply(m, init="zero"), ValueError),
        (lambda m: se_inject.apply(m, init=None), ValueError),
        (lambda m: se_inject.apply(m, kinds="residual"), TypeError),
        (lambda m: se_inject.apply(m, kinds=3), TypeError),
        (lambda m: se_inject.apply(m, kinds=()), ValueError),
        (lambda m: se_inject.apply(m, kinds=["resnet"]), ValueError),
        (lambda m: se_inject.apply(m, where=3), TypeError),
        (lambda m: se_inject.apply(m, where=[3]), TypeError),
        (lambda m: se_inject.apply(m, where=lambda site: False), errors.AllFilteredError),
        (lambda m: se_inject.apply(m, where="nowhere.*"), errors.AllFilteredError),
        (lambda m: se_inject.apply(m, where="9"), errors.AllFilteredError),
        (lambda m: se_inject.apply(m, where=["1", "9"]), errors.RewriteError),
        (lambda m: se_inject.remove(m), errors.NoGateError),
        (lambda m: se_inject.gate_parameters(m), errors.NoGateError),
        (lambda m: se_inject.freeze_backbone(m), errors.NoGateError),
    ],
)
def test_bad_calls_leave_the_model_untouched(call, error):
    model = network()
    before = exact_state(model)
    with pytest.raises(error) as raised:
        call(model)
    assert isinstance(raised.value, errors.SEInjectError)
    assert isinstance(raised.value, ValueError | TypeError)
    assert exact_state(model) == before


@pytest.mark.parametrize("function", [se_inject.apply, se_inject.find_sites, se_inject.remove, se_inject.gates])
@pytest.mark.parametrize("thing", [None, 3, "resnet50", torchvision.models.resnet18, [nn.ReLU()]])
def test_not_a_module(function, thing):
    with pytest.raises(errors.NotAModuleError, match=r"torch\.nn\.Module"):
        function(thing)


def wrapped_models():
    compiled_in_place = network()
    compiled_in_place.compile()
    return {
        "DataParallel": nn.DataParallel(network()),
        "torch.compile": torch.compile(network()),
        "compile in place": compiled_in_place,
    }


@pytest.mark.filterwarnings("ignore")  # jit is deprecated
def test_wrapped_and_compiled_models_are_refused(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        models = {
            **wrapped_models(),
            "DDP": nn.parallel.DistributedDataParallel(network()),
            "FSDP2": torch.distributed.fsdp.fully_shard(
                network(), mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
            ),
            "script": torch.jit.script(nn.Sequential(conv())),
            "trace": torch.jit.trace(network().eval(), X),
        }
        for name, model in models.items():
            for function in (se_inject.apply, se_inject.find_sites):
                with pytest.raises(errors.WrappedModelError, match="apply first, then wrap"):
                    function(model)
                    pytest.fail(name)
    finally:
        torch.distributed.destroy_process_group()


def test_wrapped_part_of_a_model_is_skipped():
    model = nn.Sequential(network(), nn.DataParallel(network()))
    found = se_inject.find_sites(model)
    assert [site.path for site in found if site.path.startswith("0.")] == ["0.1", "0.2", "0.3"]
    assert any(path == "1" and "wrapped" in reason for path, reason in found.skipped)


def test_three_ways_of_nothing_to_gate_have_three_messages():
    with pytest.raises(errors.NoBlockError, match="no residual or Inception block"):
        se_inject.apply(vgg_features())
    with pytest.raises(errors.AllFilteredError, match="leave out all 3 sites"):
        se_inject.apply(network(), where=lambda site: site.channels > 1000)
    with pytest.raises(errors.AllGatedError, match="3 blocks are gated already"):
        se_inject.apply(se_inject.apply(network()))


def test_second_apply_with_the_same_selection_says_that_it_is_gated():
    model = se_inject.apply(network(), where="1")
    for where in ("1", "[1]", lambda site: site.path == "1" and site.channels == 16):
        with pytest.raises(errors.AllGatedError):
            se_inject.apply(model, where=where)
    with pytest.raises(errors.AllFilteredError):
        se_inject.apply(model, where="nowhere")


def test_second_apply_gates_other_sites_with_another_reduction():
    model = se_inject.apply(torchvision.models.resnet18(), 4, where="layer4.*")
    se_inject.apply(model, 16)
    assert len(names(model)) == 8
    assert model.layer4[0].se.fc1.out_channels == 128 and model.layer3[0].se.fc1.out_channels == 16
    with pytest.raises(errors.AllGatedError):
        se_inject.apply(model)
    se_inject.remove(model)
    assert not names(model)


@pytest.mark.parametrize("make", [ambiguous, untraceable])
def test_named_block_that_cannot_be_gated_is_an_error(make):
    model = nn.Sequential(Residual(), make())
    before = exact_state(model)
    with pytest.raises(errors.RewriteError, match=r"^1: "):
        se_inject.apply(model, where=["0", "1"])
    assert exact_state(model) == before
    assert names(se_inject.apply(model, where="*")) == ["0.se"]


def test_where_takes_patterns_and_predicates():
    model = torchvision.models.resnet50()
    assert len(se_inject.find_sites(model, where="layer[34].*")) == 9
    assert len(se_inject.find_sites(model, where=["layer1.*", "layer2.0"])) == 4
    assert len(se_inject.find_sites(model, where=lambda site: site.channels >= 2048)) == 3
    assert [s.path for s in se_inject.find_sites(model, where="layer1.1")] == ["layer1.1"]


def test_error_in_the_predicate_comes_through():
    model = network()
    before = exact_state(model)
    with pytest.raises(ZeroDivisionError):
        se_inject.apply(model, where=lambda site: 1 / 0)
    assert exact_state(model) == before


def test_kinds():
    assert names(se_inject.apply(network(), kinds=["inception"])) == ["3.se"]
    assert names(se_inject.apply(network(), kinds=["residual"])) == ["1.se", "2.se"]


def test_sites_are_a_readable_sequence():
    found = se_inject.find_sites(nn.Sequential(Residual(), ambiguous()))
    assert found[0] == se_inject.Site("0", "residual", "bn2", 16, "0.se")
    [(path, reason)] = found.skipped
    assert path == "1" and "ambiguous" in reason
    assert str(found).splitlines()[2].split() == ["0", "residual", "16", "0.se"]
    with pytest.raises(TypeError):
        found[0] = None


def test_block_with_an_attribute_se():
    """An ``se`` that is None makes way and comes back, any other is left alone."""
    model = Residual()
    model.se = None
    before = exact_state(model)
    se_inject.apply(model)
    assert names(model) == ["se"]
    twin = copy.deepcopy(model)
    for each in (model, twin):
        se_inject.remove(each)
        assert each.se is None and "se" in vars(each)
    assert exact_state(model) == before
    model.se = nn.Identity()
    se_inject.apply(model)
    assert names(model) == ["se_gate"]
    se_inject.remove(model)
    assert isinstance(model.se, nn.Identity)


def test_timm_resnet50_gets_the_keys_of_seresnet50():
    gated = se_inject.apply(timm.create_model("resnet50"), init="standard")
    twin = timm.create_model("seresnet50")
    assert {k: v.shape for k, v in gated.state_dict().items()} == {k: v.shape for k, v in twin.state_dict().items()}


def two_sites():
    def forward(self, x):
        x = x + self.a(x)
        return x + self.b(x)

    return block(forward, a=conv(), b=conv())


def test_several_sites_in_one_block():
    model, x = two_sites(), torch.randn(2, 16, 8, 8)
    expected = model(x)
    before = exact_state(model)
    assert [site.gate_path for site in se_inject.find_sites(model)] == ["se.0", "se.1"]
    se_inject.apply(model, where=lambda site: site.gate_path == "se.1")
    assert names(model) == ["se.1"]
    se_inject.apply(model)
    assert sorted(names(model)) == ["se.0", "se.1"]
    assert_same(model(x), expected)
    assert_same(copy.deepcopy(model)(x), expected)
    se_inject.remove(model)
    assert exact_state(model) == before


def test_nested_blocks_each_get_a_gate():
    outer = block(lambda self, x: x + self.inner(x), inner=nn.Sequential(Residual(), Residual()))
    assert names(se_inject.apply(outer, where=lambda site: site.path)) == ["inner.0.se", "inner.1.se"]
    se_inject.apply(outer)
    assert sorted(names(outer)) == ["inner.0.se", "inner.1.se", "se"]


def test_shared_block_has_one_gate():
    shared = Residual()
    model = nn.Sequential(conv(3, 16), shared, nn.ReLU(), shared)
    expected = model(X)
    se_inject.apply(model)
    assert names(model) == ["1.se"] and {"1.se.fc1.weight", "3.se.fc1.weight"} <= set(model.state_dict())
    assert_same(model(X), expected)


@pytest.mark.parametrize(
    "build",
    [
        lambda: torchvision.models.resnet50(),
        lambda: torchvision.models.googlenet(init_weights=False, aux_logits=False),
        network,
        small_inception_resnet,
        lambda: two_sites(),
    ],
)
def test_graph_module_gets_the_same_gates_as_the_untraced_model(build):
    model = build().eval()
    traced = fx.symbolic_trace(model)
    before, code = exact_state(traced), traced.code
    x = torch.randn(1, 16, 16, 16) if len(list(model.modules())) == 3 else torch.randn(1, 3, 96, 96)
    expected = traced(x)
    assert [s.gate_path for s in se_inject.find_sites(traced)] == [s.gate_path for s in se_inject.find_sites(model)]
    se_inject.apply(traced)
    gates = {name: gate.fc1.weight.shape for name, gate in se_inject.gates(traced)}
    assert gates == {name: gate.fc1.weight.shape for name, gate in se_inject.gates(se_inject.apply(model))}
    assert_same(traced(x), expected)
    assert_same(copy.deepcopy(traced)(x), expected)
    for _, gate in se_inject.gates(traced):
        nn.init.normal_(gate.fc2.bias)
    assert not torch.equal(traced(x), expected)
    with pytest.raises(errors.AllGatedError):
        se_inject.apply(traced)
    se_inject.remove(traced)
    assert traced.code == code
    assert_same(traced(x), expected)
    after = exact_state(traced)
    assert {name: kind for name, (kind, _) in after.items()} == {name: kind for name, (kind, _) in before.items()}


def test_shared_block_in_a_graph_module():
    shared = Residual()
    model = nn.Sequential(conv(3, 16), shared, nn.ReLU(), shared).eval()
    traced = fx.symbolic_trace(model)
    expected = traced(X)
    se_inject.apply(traced)
    assert names(traced) == ["1.se"]
    assert sum(node.target == "1.se" for node in traced.graph.nodes) == 2
    assert_same(traced(X), expected)
    se_inject.remove(traced)
    assert_same(traced(X), expected)


def test_graph_module_inside_a_model():
    model = nn.Sequential(fx.symbolic_trace(network()[:3]), Residual())
    se_inject.apply(model)
    assert names(model) == ["0.1.se", "0.2.se", "1.se"]
    se_inject.remove(model)
    assert not names(model)


def custom_op_block(**children):
    """Its branch ends in a child that cannot be traced, so the graph does not tell the channels."""
    tail = block(lambda self, x: self.conv(x) if x.mean() > -9 else x, conv=conv(16, 24))
    return block(lambda self, x: self.proj(x) + self.tail(self.conv(x)), conv=conv(), tail=tail, proj=conv(16, 24))


class VectorHead(nn.Module):
    """The sum is one of vectors (N, C), though convolutions make them."""

    def __init__(self, norm):
        super().__init__()
        self.conv, self.project, self.norm = conv(16), conv(16), norm

    def forward(self, x):
        return x.mean((2, 3)) + self.norm(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(16), nn.GroupNorm(4, 16)])
def test_vectors_behind_a_norm_are_not_gated(norm):
    head = VectorHead(norm)
    found = se_inject.find_sites(head)
    assert len(found) == 0 and "example_inputs" in found.skipped[0].reason
    assert len(se_inject.find_sites(head, example_inputs=torch.randn(2, 16, 4, 4))) == 0


def test_unknown_channels_need_an_example_input():
    model, x = custom_op_block(), torch.randn(2, 16, 9, 9)
    found = se_inject.find_sites(model)
    assert len(found) == 0 and any("example_inputs" in reason for _, reason in found.skipped)
    before, expected = exact_state(model), model(x)
    [site] = se_inject.find_sites(model, example_inputs=x)
    assert site.channels == 24 and exact_state(model) == before
    assert model.training
    se_inject.apply(model, example_inputs=(x,))
    assert_same(model(x), expected)
    assert names(model) == ["se"]


def test_example_input_that_leaves_the_axis_open_is_followed_by_a_larger_one():
    [site] = se_inject.find_sites(custom_op_block(), example_inputs=torch.randn(2, 16, 24, 24))
    assert site.channels == 24 and not names(custom_op_block())


def test_width_of_an_image_is_no_number_of_channels():
    """A pixel shuffle whose last axis happens to be as wide as a layer, as in SRVGGNetCompact."""

    def forward(self, x):
        out = F.pixel_shuffle(self.body(x), 4)
        out += F.interpolate(x, scale_factor=4)
        return out

    body = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.PReLU(64), nn.Conv2d(64, 48, 3, padding=1))
    for size in (16, 12, 9):
        module = block(forward, body=copy.deepcopy(body))
        x = torch.randn(1, 3, size, size)
        found = se_inject.find_sites(module, example_inputs=x)
        assert [site.channels for site in found] in ([], [3])


def test_example_input_that_the_model_rejects():
    model = custom_op_block()
    before = exact_state(model)
    with pytest.raises(
        errors.InvalidArgumentError, match=r"example_inputs: the model fails on them \(RuntimeError"
    ) as raised:
        se_inject.apply(model, example_inputs=torch.randn(2, 5, 8, 8))
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert exact_state(model) == before


def test_second_apply_knows_blocks_with_parametrized_parameters():
    module = Residual()
    module.gamma = nn.Parameter(torch.ones(1))
    nn.utils.parametrize.register_parametrization(module, "gamma", nn.Identity())
    se_inject.apply(module)
    with pytest.raises(errors.AllGatedError):
        se_inject.apply(module)


def nhwc():
    def forward(self, x):  # (N, H, W, C)
        return x + self.fc(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

    return block(forward, conv=conv(), fc=nn.Linear(16, 24))


def test_channels_last_blocks_are_gated_on_their_last_axis():
    module = nhwc()
    module.fc = nn.Linear(16, 16)
    plain, x = copy.deepcopy(module), torch.randn(2, 5, 7, 16)
    assert_same(se_inject.apply(module)(x), plain(x))
    nn.init.normal_(module.se.fc2.bias)
    branch = plain(x) - x
    scale = 2 * torch.sigmoid(module.se.fc2.bias)
    assert torch.allclose(module(x) - x, branch * scale, atol=1e-5)
    assert_same(copy.deepcopy(module)(x), module(x))
    traced = torch.fx.symbolic_trace(plain)
    assert_same(se_inject.apply(traced)(x), plain(x))
    traced.load_state_dict(module.state_dict())
    assert torch.allclose(traced(x), module(x), atol=1e-5)


def test_tokens_are_gated_on_their_last_axis_when_an_example_tells():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv1d(16, 32, 3, padding=1, groups=16), nn.Linear(32, 16)

        def forward(self, x):  # (N, L, C)
            return x + self.fc(self.conv(x.transpose(1, 2)).transpose(1, 2))

    module, x = Tokens(), torch.randn(2, 9, 16)
    plain = copy.deepcopy(module)
    assert_same(se_inject.apply(module, example_inputs=x)(x), plain(x))
    nn.init.normal_(module.se.fc2.bias)
    assert torch.allclose(module(x) - x, (plain(x) - x) * 2 * torch.sigmoid(module.se.fc2.bias), atol=1e-5)


def test_value_that_is_used_again_after_an_in_place_add_is_refused():
    def forward(self, x):
        y = self.conv(x)
        z = y.view(-1)
        y += x
        return y, z

    module = block(forward, conv=conv())
    [(_, reason)] = se_inject.find_sites(module).skipped
    assert "in place" in reason


def test_standard_form():
    model = se_inject.apply(network(), init="standard")
    x = torch.randn(2, 16, 4, 4)
    gate = model[1].se
    expected = x * torch.sigmoid(gate.fc2(F.relu(gate.fc1(x.mean((2, 3), keepdim=True)))))
    assert torch.allclose(gate(x), expected, atol=1e-6)


def test_apply_under_inference_mode_gives_trainable_gates():
    model = network()
    with torch.inference_mode():
        se_inject.apply(model)
    model(X).sum().backward()
    assert model[1].se.fc2.weight.grad is not None


def test_seed_decides_the_gates():
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        weights.append(se_inject.apply(copy.deepcopy(network()))[1].se.fc1.weight)
    assert torch.equal(*weights)


def test_class_extended_after_apply_cannot_be_removed():
    model = se_inject.apply(nn.Sequential(Residual()))
    model[0].__class__ = type("Extended", (type(model[0]),), {})
    with pytest.raises(errors.WrappedModelError, match="extended"):
        se_inject.remove(model)
    assert names(model) == ["0.se"]


def test_where_may_be_an_iterator():
    assert names(se_inject.apply(network(), where=iter(["1", "3"]))) == ["1.se", "3.se"]


def test_predicate_sees_measured_channels():
    seen = []
    se_inject.find_sites(
        custom_op_block(), where=lambda site: seen.append(site.channels), example_inputs=torch.randn(1, 16, 9, 9)
    )
    assert 24 in seen and 0 not in seen


def site_nodes(forward, **children):
    return [site.node for site in se_inject.find_sites(block(forward, **children))]


def test_the_right_value_on_the_branch():
    def square(self, x):
        y = self.conv(x)
        return x + y * y

    def division(self, x):
        return x + 1.0 / (1.0 + torch.exp(-self.conv(x)))

    class ScaledConv(nn.Conv2d):
        pass

    assert site_nodes(square, conv=conv()) == ["mul"]
    assert site_nodes(division, conv=conv()) == ["truediv"]
    assert site_nodes(lambda self, x: x + self.b(self.a(x)), a=conv(), b=ScaledConv(16, 16, 1)) == ["b"]
    assert site_nodes(lambda self, x: x + 0.5 * self.a(x) / 3, a=conv()) == ["a"]


def test_sums_of_parallel_convolutions_are_ambiguous():
    def repvgg(self, x):
        return self.a(x) + self.b(x) + x

    found = se_inject.find_sites(block(repvgg, a=conv(), b=conv()))
    assert len(found) == 0 and all("ambiguous" in reason for _, reason in found.skipped)
    parallel = block(lambda self, x: self.a(x) + self.b(x), a=conv(), b=conv())
    outer = block(lambda self, x: self.parallel(x) + self.project(x), parallel=parallel, project=conv())
    assert len(se_inject.find_sites(outer)) == 0


def concat(channels=16):
    return block(lambda self, x: torch.cat([self.a(x), self.b(x)], 1), a=conv(16, 8), b=conv(16, 8))


def test_concat_of_a_child_is_a_part_of_a_larger_block():
    residual = block(lambda self, x: x + self.child(x), child=concat())
    assert names(se_inject.apply(residual)) == ["se"]
    outer = block(lambda self, x: torch.cat([self.child(x), self.c(x)], 1), child=concat(), c=conv())
    assert names(se_inject.apply(outer)) == ["se"]


def test_branch_in_two_adds_has_one_gate():
    def forward(self, x):
        y = 0.5 * self.conv(x)
        return x + y, F.relu(x) + y, x + y

    module, x = block(forward, conv=conv()), torch.randn(2, 16, 4, 4)
    expected = module(x)
    assert names(se_inject.apply(module)) == ["se"]
    assert_same(module(x), expected)


def test_value_changed_in_place_after_its_gate_is_refused():
    def forward(self, x):
        y = self.conv(x)
        out = x + y
        F.relu_(y)
        return out

    [(_, reason)] = se_inject.find_sites(block(forward, conv=conv())).skipped
    assert "in place" in reason


def test_own_squeeze_excitation_modules_are_the_users():
    class Tracer(fx.Tracer):
        def is_leaf_module(self, m, name):
            return isinstance(m, se_inject.SqueezeExcitation) or super().is_leaf_module(m, name)

    module = block(lambda self, x: x + self.se(self.conv(x)), conv=conv(), se=se_inject.SqueezeExcitation(16))
    traced = fx.GraphModule(module, Tracer().trace(module))
    for model in (module, traced):
        with pytest.raises(errors.AllGatedError):
            se_inject.apply(model)
        with pytest.raises(errors.NoGateError):
            se_inject.remove(model)
        assert names(model) == ["se"]


def test_names_when_all_are_taken():
    module = block(lambda self, x: x + self.conv(x), conv=conv(), se=nn.ReLU(), se_gate=nn.ReLU(), se_gate_2=nn.ReLU())
    assert names(se_inject.apply(module)) == ["se_gate_3"]


def test_parametrized_block_is_found():
    module = block(
        lambda self, x: x + F.conv2d(x, self.weight, padding=1), weight=nn.Parameter(torch.randn(16, 16, 3, 3))
    )
    nn.utils.parametrizations.weight_norm(module)
    found = se_inject.find_sites(module)
    assert len(found) + len(found.skipped) == 1


def test_second_apply_on_an_extended_class_is_an_error():
    model = se_inject.apply(nn.Sequential(two_sites()), where=lambda site: site.gate_path == "0.se.0")
    extended = type("Extended", (type(model[0]),), {})
    model[0].__class__ = extended
    with pytest.raises(errors.RewriteError, match="extended"):
        se_inject.apply(model)
    assert type(model[0]) is extended and names(model) == ["0.se.0"]


def test_extended_class_keeps_its_extension():
    module = block(lambda self, x: x + self.conv(x) * self.scale, conv=conv())
    module.scale = 1.0
    se_inject.apply(module)
    extended = type("Extended", (type(module),), {})
    module.__class__ = extended
    module.scale = 2.0
    assert type(module) is extended and module.scale == 2.0
    with pytest.raises(errors.WrappedModelError, match="extended"):
        se_inject.remove(module)
    assert type(module) is extended


def test_reduction_may_be_a_numpy_integer():
    assert se_inject.apply(network(), np.int64(2))[1].se.fc1.out_channels == 8


def test_parts_of_a_split_are_neither_identity_nor_paths():
    def split(self, x):
        left, right = x.chunk(2, dim=1)
        return left + self.conv(right)

    def grouped(self, x):
        left, right = x.chunk(2, dim=1)
        return torch.cat([self.conv(left), self.other(right)], dim=1)

    for forward in (split, grouped):
        [(_, reason)] = se_inject.find_sites(block(forward, conv=conv(8), other=conv(8))).skipped
        assert "split" in reason


def test_concat_with_its_own_input_is_dense():
    def forward(self, x):
        return torch.cat([x, self.a(x), self.b(x)], dim=1)

    [(_, reason)] = se_inject.find_sites(block(forward, a=conv(), b=conv())).skipped
    assert reason.startswith("dense")


def test_blocks_that_differ_only_in_what_they_share():
    def forward(self, x):
        return x + self.b(self.a(x))

    cls = type(block(forward))
    layer, x = conv(), torch.randn(2, 16, 8, 8)
    model = nn.Sequential()
    for children in ((layer, layer), (conv(), conv())):
        each = cls()
        each.a, each.b = children
        model.append(each)
    expected = model(x)
    assert_same(se_inject.apply(model)(x), expected)


class ChannelsLastConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class HalfConv(nn.Conv2d):
    def forward(self, x):
        x, gate = super().forward(x).chunk(2, 1)
        return x * gate.sigmoid()


def test_convolutions_that_move_channels():
    module = block(lambda self, x: x + self.conv(x), conv=ChannelsLastConv(8, 8, 3, padding=1))
    plain, x = copy.deepcopy(module), torch.randn(2, 5, 6, 8)
    assert_same(se_inject.apply(module)(x), plain(x))
    nn.init.normal_(module.se.fc2.bias)
    ratio = (module(x) - x) / (plain(x) - x)
    assert torch.allclose(ratio, 2 * module.se.fc2.bias.sigmoid().expand_as(ratio), rtol=1e-3)
    module = block(lambda self, x: x + self.conv(x), conv=HalfConv(8, 16, 3, padding=1))
    assert not se_inject.find_sites(module)
    [site] = se_inject.find_sites(module, example_inputs=torch.randn(2, 8, 5, 6))  # what grows with it is no channels
    assert site.channels == 8


class Frames(nn.Module):
    """Features are (N, T, C, H, W), for as many frames as the inner layer has channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x):
        return x + self.b(self.a(x.flatten(0, 1))).view(x.shape)


def test_frames_are_no_channels():
    found = se_inject.find_sites(Frames(), example_inputs=torch.randn(2, 4, 8, 3, 3))
    assert not found and "unknown" in found.skipped[0].reason


def test_scale_of_each_channel_is_no_convolution():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(16, 1, 1))

        def forward(self, x):
            return x * self.weight

    model = block(lambda self, x: x + self.scale(self.conv(x)), conv=conv(), scale=Scale())
    [site] = se_inject.find_sites(model)
    assert site.node == "conv"


@pytest.mark.parametrize(
    ("register", "value"),
    [
        ("register_buffer", lambda: torch.full((1,), 3.0)),
        ("register_parameter", lambda: nn.Parameter(torch.full((1,), 3.0))),
        ("__setattr__", lambda: torch.full((1,), 3.0)),
    ],
)
def test_attributes_that_are_registered_later_are_followed(register, value):
    def forward(self, x):
        if self.extra is not None:
            x = x * self.extra
        return x + self.conv(x)

    plain, x, value = block(forward, conv=conv()), torch.randn(2, 16, 4, 4), value()
    (plain.register_buffer if register == "__setattr__" else getattr(plain, register))("extra", None)
    gated = se_inject.apply(copy.deepcopy(plain))
    for model in (plain, gated):
        getattr(model, register)("extra", value)
    assert_same(gated(x), plain(x))


def test_buffer_that_is_none_at_apply_may_be_set_later():
    def forward(self, x):
        y = self.conv(x)
        return x + (y if self.mask is None else y * self.mask)

    module = block(forward, conv=conv())
    module.register_buffer("mask", None)
    plain = copy.deepcopy(module)
    se_inject.apply(module)
    x = torch.randn(2, 16, 4, 4)
    for model in (plain, module):
        model.mask = torch.full((1,), 2.0)
    assert_same(module(x), plain(x))
    assert "mask" in module._buffers and "mask" not in vars(module)


def test_gates_do_not_count_among_the_layers_of_a_block():
    """A second apply sees the same concat, over the last but one dimension of 1-D features, as the first."""

    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.one, self.two = Residual1d(), nn.Conv1d(4, 2, 1), nn.Conv1d(4, 2, 1)

        def forward(self, x):
            with torch.no_grad():
                x = x + self.inner(x)
            return torch.cat([self.one(x), self.two(x)], dim=-2)

    class Residual1d(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(4, 4, 1)

        def forward(self, x):
            return x + self.conv(x)

    model = se_inject.apply(Parts())
    with pytest.raises(se_inject.errors.AllGatedError):
        se_inject.apply(model)


def test_gates_on_outputs_inside_a_branch_do_not_count_as_its_own():
    """A second apply sees the same sites, under the same names, where a branch has an output gate of ours in it."""

    def forward(self, x):
        x = x + self.first(x)
        y = self.conv(x)
        for layer in self.layers:
            y = y + layer(y)
        x = x + torch.fft.fft(y).real  # of a width that is not known
        return x + self.last(x)

    layers = nn.ModuleList([nn.BatchNorm2d(16), conv()])
    module = block(forward, first=conv(), conv=conv(), last=conv(), layers=layers)
    assert names(se_inject.apply(module))
    with pytest.raises(errors.AllGatedError):
        se_inject.apply(module)


class Shift(nn.Identity):
    def forward(self, x):
        return x + 1


def test_a_child_that_adds_a_number_is_no_join():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.shift = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), Shift()

        def forward(self, x):
            return x + self.shift(self.norm(self.conv(x)))

    model, x = Block(), torch.randn(2, 8, 5, 5)
    expected = model(x)
    assert torch.equal(se_inject.apply(model)(x), expected)
