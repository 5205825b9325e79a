"""Gates in exported programs: the new program is valid, trains, travels, and becomes what it was."""

import functools
import io
import pickle

import pytest
import torch
import torchvision
from torch import nn

import se_inject
from se_inject import errors

from ..support.families import small_resnet

X = torch.randn(2, 16, 8, 8)


class Block(nn.Module):
    def __init__(self, channels=16):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.bn(self.conv(x)))


def network():
    return nn.Sequential(Block(), Block())


def export(model=None, x=X, **options):
    return torch.export.export((model or network()).eval(), (x,), strict=False, **options)


def dynamic(model=None):
    sizes = {0: torch.export.Dim("batch", max=64), 2: torch.export.Dim("height", max=64)}
    return export(model, dynamic_shapes=(sizes,))


@functools.cache
def plain_program():
    """Of open sizes; tests leave it as it is, as ``apply`` and ``remove`` do."""
    return dynamic()


def trained(program):
    for name, tensor in program.state_dict.items():
        if name.endswith("fc2.bias"):
            nn.init.normal_(tensor)
    return program


def names(program):
    return [name for name in program.state_dict if ".se." in name]


GATE = ["se.fc1.weight", "se.fc1.bias", "se.fc2.weight", "se.fc2.bias", "se.identity_form"]


def test_a_new_program_comes_back_and_the_old_one_is_as_it_was():
    program = export()
    before, state = str(program.graph), dict(program.state_dict)
    gated = se_inject.apply(program)
    assert gated is not program and str(program.graph) == before and program.state_dict == state
    assert sorted(names(gated)) == sorted(f"{block}.{name}" for block in "01" for name in GATE)
    assert torch.equal(gated.module()(X), program.module()(X))
    assert all(gated.state_dict[name] is value for name, value in state.items())
    parameters = [name for name in names(gated) if not name.endswith("identity_form")]
    assert all(isinstance(gated.state_dict[name], nn.Parameter) for name in parameters)


def test_signature_weights_and_graph_are_restored():
    program = plain_program()
    back = se_inject.remove(se_inject.apply(program))
    assert str(back.graph) == str(program.graph) and back.graph_signature == program.graph_signature
    assert back.state_dict.keys() == program.state_dict.keys()
    with pytest.raises(errors.NoGateError):
        se_inject.remove(back)


@pytest.mark.parametrize("make", [export, plain_program], ids=["static", "dynamic"])
def test_a_gated_program_is_decomposed_exported_and_unflattened(make):
    gated = trained(se_inject.apply(make()))
    expected = gated.module()(X)
    again = [
        gated.run_decompositions().module(),
        torch.export.export(gated.module(), (X,), strict=False).module(),
        torch.export.unflatten(gated),
    ]
    for module in again:
        assert torch.allclose(module(X), expected, atol=1e-6)
        assert "1.se.fc2.bias" in module.state_dict()


def test_open_sizes_stay_open():
    program = plain_program()
    gated = trained(se_inject.apply(program))
    assert str(gated.range_constraints) == str(program.range_constraints)
    for shape in [(1, 16, 5, 8), (40, 16, 33, 8)]:
        assert gated.module()(torch.randn(shape)).shape == torch.Size(shape)
        assert gated.run_decompositions().module()(torch.randn(shape)).shape == torch.Size(shape)


def test_gates_are_known_again_after_decomposition_and_another_export():
    program = plain_program()
    gated = se_inject.apply(program)
    others = {
        "decomposed": (gated.run_decompositions(), program.run_decompositions()),
        "exported": (
            torch.export.export(gated.module(), (X,), strict=False),
            torch.export.export(program.module(), (X,), strict=False),
        ),
    }
    for name, (other, plain) in others.items():
        if name == "exported" and torch.__version__ < "2.9":
            continue  # its export forgets what is noted on nodes
        with pytest.raises(errors.AllGatedError):
            se_inject.apply(other)
        back = se_inject.remove(other)
        assert [node.target for node in back.graph.nodes if node.op == "call_function"] == [
            node.target for node in plain.graph.nodes if node.op == "call_function"
        ]
        assert not names(back)


def test_a_program_travels_through_a_file(tmp_path):
    gated = trained(se_inject.apply(export()))
    file = io.BytesIO()
    torch.export.save(gated, file)
    file.seek(0)
    loaded = torch.export.load(file)
    assert torch.equal(loaded.module()(X), gated.module()(X))
    with pytest.raises(errors.AllGatedError):
        se_inject.apply(loaded)


def test_gates_of_a_program_are_trained_in_its_module():
    program = torch.export.export(network().train(), (X,), strict=False)
    module = se_inject.apply(program).module()
    assert torch.equal(module(X), program.module()(X))
    assert [name for name, _ in se_inject.gates(module)] == ["0.se", "1.se"]
    optimizer = torch.optim.SGD(se_inject.gate_parameters(module), lr=1.0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module(X).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert {f"{block}.se.fc2.{kind}" for block in "01" for kind in ("weight", "bias")} <= changed
    assert not any(name.endswith("conv.weight") for name in changed)


def test_gates_have_the_dtype_of_their_block():
    program = export(network().to(torch.bfloat16), X.bfloat16())
    gated = se_inject.apply(program)
    assert {gated.state_dict[name].dtype for name in names(gated) if ".fc" in name} == {torch.bfloat16}
    assert torch.equal(gated.module()(X.bfloat16()), program.module()(X.bfloat16()))


def test_sites_that_were_found_in_the_model_choose_those_of_the_program():
    model = network()
    sites = se_inject.find_sites(model)
    gated = se_inject.apply(export(model), where=sites[1:])
    assert {name.split(".")[0] for name in names(gated)} == {"1"}
    assert len(names(se_inject.apply(gated, where="0"))) == 2 * len(GATE)


def test_an_argument_may_have_any_name():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, input, p_block_se_fc1_weight=None):  # noqa: A002 (a name that fx would change)
            return self.block(input)

    program = torch.export.export(Named().eval(), (X, X), strict=False)
    gated = se_inject.apply(program)
    assert torch.equal(gated.module()(X, X), program.module()(X, X))
    assert len(names(gated)) == len(GATE)
    assert [node.name for node in gated.graph.nodes if node.op == "placeholder"][-2:] == [
        "input",
        "p_block_se_fc1_weight",
    ]


def test_modules_may_have_any_name():
    model = nn.Sequential()
    model.add_module("block-1", Block())
    program = export(model)
    gated = se_inject.apply(program)
    assert names(gated) == [f"block-1.{name}" for name in GATE]
    assert torch.equal(gated.module()(X), program.module()(X))


def test_a_module_that_leaves_no_trace_keeps_its_name():
    class Named(Block):
        def __init__(self):
            super().__init__()
            self.se = nn.Identity()

        def forward(self, x):
            return x + self.se(self.bn(self.conv(x)))

    assert [site.gate_path for site in se_inject.find_sites(export(Named()))] == ["se_gate"]


def test_a_value_that_the_program_returns():
    class Concat(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 24, 1)

        def forward(self, x):
            return torch.cat([self.a(x), self.b(x)], 1)

    program = export(Concat())
    gated = se_inject.apply(program)
    assert torch.equal(gated.module()(X), program.module()(X))
    assert not torch.equal(trained(se_inject.apply(program)).module()(X), program.module()(X))
    assert str(se_inject.remove(gated).graph_signature) == str(program.graph_signature)


class NoGrad(nn.Module):
    """One block runs under ``torch.no_grad``, the other one partly under autocast."""

    def __init__(self):
        super().__init__()
        self.frozen, self.lower, self.block = Block(), Block(), Block()

    def forward(self, x):
        with torch.no_grad():
            x = self.frozen(x)
        x = self.block(x)
        with torch.autocast("cpu", torch.bfloat16):
            return self.lower(x)


def test_parts_under_an_operator_are_read_and_refused_with_their_place():
    program = export(NoGrad())
    found = se_inject.find_sites(program)
    assert [site.path for site in found] == ["block"]
    assert {path for path, _ in found.skipped} == {"frozen", "lower"}
    for _, reason in found.skipped:
        assert "operator" in reason and "test_programs.py:" in reason
    for traced in (program, program.module(), torch.export.unflatten(program)):
        before = run(traced)
        assert torch.equal(run(se_inject.apply(traced)), before)


def run(traced):
    return traced.module()(X) if isinstance(traced, torch.export.ExportedProgram) else traced(X)


def test_a_failed_apply_leaves_the_program_as_it_was():
    program = export(NoGrad())
    before = program.graph_module.code
    modules = dict(program.graph_module.named_modules())
    with pytest.raises(errors.InvalidArgumentError):
        se_inject.apply(program, gate=lambda channels: nn.Conv2d(channels, 1, 1))
    assert program.graph_module.code == before
    assert modules == dict(program.graph_module.named_modules())


@pytest.mark.parametrize("gate", ["eca", "cbam", "ese"])
def test_gates_by_name(gate):
    program = plain_program()
    gated = se_inject.apply(program, gate=gate)
    assert torch.equal(gated.module()(X), program.module()(X))
    assert torch.equal(gated.run_decompositions().module()(X), program.run_decompositions().module()(X))
    assert str(se_inject.remove(gated).graph) == str(program.graph)


@pytest.mark.parametrize("position", ["pre", "post", "identity"])
def test_positions(position):
    program = export()
    gated = se_inject.apply(program, position=position)
    assert torch.equal(gated.module()(X), program.module()(X)) and len(names(gated)) == 2 * len(GATE)
    back = se_inject.remove(gated)
    assert str(back.graph) == str(program.graph) and back.graph_signature == program.graph_signature


class Tied(nn.Module):
    """One block by two names."""

    def __init__(self):
        super().__init__()
        self.first = Block()
        self.second = self.first

    def forward(self, x):
        return self.second(self.first(x))


def test_a_block_with_two_names_has_one_gate():
    program = export(Tied())
    found = se_inject.find_sites(program)
    assert [site.gate_path for site in found] == [site.gate_path for site in se_inject.find_sites(Tied())]
    gated = se_inject.apply(program)
    assert len(names(gated)) == len(GATE) and torch.equal(gated.module()(X), program.module()(X))


class Tokens(nn.Module):
    """A block whose channels are the last dimension."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 16)

    def forward(self, x):
        y = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.linear(y)


def test_channels_last_blocks_are_gated_on_their_last_axis():
    model, x = Tokens().eval(), torch.randn(2, 5, 6, 16)
    program = torch.export.export(model, (x,), strict=False)
    for traced in (program, program.module(), torch.export.unflatten(program), torch.fx.symbolic_trace(model)):
        gated = se_inject.apply(traced)
        run = gated.module() if gated is not traced else gated
        assert torch.equal(run(x), model(x))
        nn.init.normal_(dict(run.named_parameters())["se.fc2.bias"])
        reference = se_inject.apply(Tokens().eval())
        reference.load_state_dict(run.state_dict())
        assert torch.allclose(run(x), reference(x), atol=1e-5)
        again = se_inject.remove(gated)
        assert "movedim" not in str((again if gated is not traced else run).graph)


def test_frozen_backbones():
    module = se_inject.apply(torch.export.export(network().train(), (X,), strict=False)).module()
    with pytest.raises(errors.RewriteError, match="batch_norm"):
        se_inject.freeze_backbone(module)
    module = se_inject.freeze_backbone(se_inject.apply(export()).module())
    assert {name for name, p in module.named_parameters() if p.requires_grad} == {
        f"{block}.{name}" for block in "01" for name in GATE if ".fc" in name
    }


@pytest.mark.parametrize("decomposed", [False, True])
def test_programs_in_training_mode(decomposed):
    model, x = small_resnet(num_classes=4).train(), torch.randn(2, 3, 64, 64)
    program = torch.export.export(model, (x,), strict=False)
    program = program.run_decompositions() if decomposed else program
    sites = se_inject.find_sites(program)
    assert [site.gate_path for site in sites] == [site.gate_path for site in se_inject.find_sites(model)]
    gated = se_inject.apply(program)
    assert torch.equal(gated.module()(x), program.module()(x))
    assert str(se_inject.remove(gated).graph) == str(program.graph)


@pytest.mark.filterwarnings("ignore")  # jit is deprecated
def test_jit_is_refused_with_the_way_to_do_it():
    for jitted in (torch.jit.script(network().eval()), torch.jit.trace(network().eval(), X)):
        for call in (se_inject.find_sites, se_inject.apply, se_inject.remove):
            with pytest.raises(errors.WrappedModelError, match="then script or trace"):
                call(jitted)


def test_gates_of_a_program_are_known_in_what_becomes_of_it():
    gated = se_inject.apply(export())
    for module in (gated.module(), torch.export.unflatten(gated)):
        before = module(X)
        assert [name for name, _ in se_inject.gates(module)] == ["0.se", "1.se"]
        with pytest.raises(errors.AllGatedError):
            se_inject.apply(module)
        se_inject.remove(module)
        assert torch.equal(module(X), before) and not list(se_inject.gates(module))
        assert not any(".se." in name for name in module.state_dict())


class Scaled(Block):
    """It has something called ``se`` that is no module."""

    def __init__(self, kind):
        super().__init__()
        if kind == "parameter":
            self.se = nn.Parameter(torch.ones(1))
        else:
            self.register_buffer("se", torch.ones(1), persistent=kind == "buffer")

    def forward(self, x):
        return x + self.se * self.conv(x)


@pytest.mark.parametrize("kind", ["parameter", "buffer", "unsaved buffer"])
def test_other_things_keep_their_names(kind):
    model = nn.Sequential(Scaled(kind)).eval()
    program = export(model)
    [site] = se_inject.find_sites(model)
    for traced in (program, program.module(), torch.export.unflatten(program), torch.fx.symbolic_trace(model)):
        assert [found.gate_path for found in se_inject.find_sites(traced)] == [site.gate_path] == ["0.se_gate"]
        assert torch.equal(run(se_inject.apply(traced)), model(X))


class Sometimes(nn.Module):
    """A block that is called in two ways, of which one has a site."""

    def __init__(self, first):
        super().__init__()
        self.block, self.first = Chosen(), first

    def forward(self, x):
        return self.block(self.block(x, self.first), not self.first)


class Chosen(Block):
    def forward(self, x, adds):
        return x + self.bn(self.conv(x)) if adds else self.conv(x)


@pytest.mark.parametrize("first", [True, False])
def test_blocks_that_are_called_in_two_ways(first):
    model = Sometimes(first).eval()
    for traced in (export(model), export(model).module(), torch.export.unflatten(export(model))):
        assert [site.gate_path for site in se_inject.find_sites(traced)] == ["block.se"]
        gated = se_inject.apply(traced)
        assert torch.equal(run(gated), model(X))
        assert [name for name, _ in se_inject.gates(gated if gated is traced else gated.module())] == ["block.se"]
        assert torch.equal(run(se_inject.remove(gated)), model(X))


def test_statistics_that_a_function_updates_cannot_be_held():
    class Functional(Block):
        def forward(self, x):
            norm = torch.nn.functional.batch_norm
            return x + norm(self.conv(x), self.bn.running_mean, self.bn.running_var, training=True)

    gated = se_inject.apply(torch.fx.symbolic_trace(nn.Sequential(Functional())))
    with pytest.raises(errors.RewriteError, match="node batch_norm"):
        se_inject.freeze_backbone(gated)


def graph_of_a_backend(model):
    graphs = []
    torch.compiler.reset()
    torch.compile(model, backend=lambda graph, inputs: graphs.append(graph) or graph)(X)
    return graphs[0]


def test_a_graph_that_cannot_hold_a_gate_by_its_name_is_refused_and_left_alone():
    model = nn.Sequential()
    model.add_module("meta", Block())
    graph = graph_of_a_backend(model.eval())
    before = graph.code
    with pytest.raises(errors.RewriteError, match="'meta' is the name of something else"):
        se_inject.apply(graph)
    assert graph.code == before and not list(graph.children())


@torch.fx.wrap
def wrapped_conv(x, weight):
    return torch.nn.functional.conv2d(x, weight, padding=1)


def test_wrapped_functions_are_named():
    class Wraps(Block):
        def forward(self, x):
            return x + wrapped_conv(x, self.conv.weight)

    [(path, reason)] = se_inject.find_sites(torch.fx.symbolic_trace(nn.Sequential(Wraps()))).skipped
    assert path == "0" and "wrapped_conv" in reason


def test_a_concat_whose_shape_alone_is_used_outside_is_not_returned():
    model = torchvision.models.shufflenet_v2_x0_5().eval()
    assert not se_inject.find_sites(model) and not se_inject.find_sites(torch.fx.symbolic_trace(model))


class DropGate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(x)


class GroupNormed(Block):
    """Nothing in its graph says in which mode it was traced."""

    def __init__(self):
        super().__init__()
        self.bn = nn.GroupNorm(4, 16)


def test_gates_have_the_mode_of_the_program():
    model = nn.Sequential(GroupNormed())
    for traced in (export(model), export(model).module(), torch.export.unflatten(export(model)), export().module()):
        gated = se_inject.apply(traced, gate=DropGate, init="standard")
        assert torch.equal(run(gated), run(gated))
    gated = se_inject.apply(torch.export.export(network().train(), (X,), strict=False), gate=DropGate, init="standard")
    assert not torch.equal(run(gated), run(gated))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about modules whose signature is kept
@pytest.mark.parametrize("position", ["standard", "pre", "post", "identity"])
@pytest.mark.parametrize("kept", [(), ("1",)])
def test_gates_in_any_position_are_unflattened(position, kept):
    model = nn.Sequential(nn.Conv2d(16, 16, 1), *network()).eval()
    program = export(model, preserve_module_call_signature=kept)
    gated = trained(se_inject.apply(program, position=position))
    assert torch.allclose(torch.export.unflatten(gated)(X), gated.module()(X), atol=1e-6)


def test_gates_that_are_no_operations_are_refused():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            self.count.add_(1)
            return x * 1

    class Numbers(nn.Module):
        def forward(self, x):
            return x * float(x.detach().abs().max()) / float(x.detach().abs().max())

    program = export()
    before = str(program.graph)
    with pytest.raises(errors.RewriteError, match="cannot be written as operations"):
        se_inject.apply(program, gate=lambda channels: Numbers())
    with pytest.raises(errors.RewriteError, match="torch refuses"):
        se_inject.apply(program.run_decompositions(), gate=lambda channels: Counts())
    assert str(program.graph) == before


def test_blocks_keep_their_paths_where_notes_are_lost():
    decomposed = export(NoGrad()).run_decompositions()
    assert {site.path for site in se_inject.find_sites(decomposed)} >= {"block"}
    assert "" not in {site.path for site in se_inject.find_sites(decomposed)}
    traced = torch.fx.symbolic_trace(network())
    for again in (pickle.loads(pickle.dumps(traced)), torch.fx.symbolic_trace(traced)):
        assert [site.gate_path for site in se_inject.find_sites(again)] == ["0.se", "1.se"]
    gated = pickle.loads(pickle.dumps(se_inject.apply(traced)))
    with pytest.raises(errors.AllGatedError):
        se_inject.apply(gated)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # read by dynamo
def test_what_cannot_be_looked_into_is_refused():
    class Chooses(Block):
        def forward(self, x):
            return x + torch.cond(x.sum() > 0, lambda y: self.bn(y), lambda y: y + 1, (self.conv(x),))

    [(path, reason)] = se_inject.find_sites(export(nn.Sequential(Chooses()))).skipped
    assert path == "0" and "into which se_inject cannot look" in reason


def test_weights_that_are_computed_and_arguments_that_are_named():
    class Standardized(Block):
        def forward(self, x):
            weight = self.conv.weight - self.conv.weight.mean((1, 2, 3), keepdim=True)
            return x + torch.nn.functional.conv2d(input=x, weight=weight, bias=self.conv.bias, padding=1)

    model = nn.Sequential(Standardized()).eval()
    for traced in (export(model), torch.fx.symbolic_trace(model)):
        sites, x = se_inject.find_sites(traced, example_inputs=X), X
        assert [site.gate_path for site in sites] == ["0.se"]
        gated = se_inject.apply(traced, example_inputs=x)
        assert torch.equal(run(gated), model(X))
