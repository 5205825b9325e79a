"""A gated model is an ordinary module: what PyTorch does with modules works on it."""

import copy
import pickle
import subprocess
import sys
import textwrap

import pytest
import timm
import torch
import torchvision
from torch import fx, nn

import se_inject

from ..support.blocks import network
from ..support.families import small_googlenet, small_resnet
from ..support.promises import assert_same

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def trained(model):
    """Gates that do something, so that a lost gate shows."""
    for _, gate in se_inject.gates(model):
        nn.init.normal_(gate.fc2.weight)
        nn.init.normal_(gate.fc2.bias)
    return model


@pytest.fixture(params=["resnet", "googlenet", "timm resnetv2_50", "own"])
def gated(request):
    torch.manual_seed(0)
    model = {
        "resnet": small_resnet,
        "googlenet": small_googlenet,
        "timm resnetv2_50": lambda: timm.create_model("resnetv2_50", layers=(1, 1, 2, 1)),
        "own": network,
    }[request.param]()
    return trained(se_inject.apply(model)).eval()


def gate_names(model):
    return [name for name, _ in se_inject.gates(model)]


def test_deepcopy(gated):
    twin = copy.deepcopy(gated)
    assert_same(twin(X), gated(X))
    assert gate_names(twin) == gate_names(gated)
    se_inject.remove(twin)
    assert not gate_names(twin) and gate_names(gated)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in gated.parameters()}


def test_pickle(gated):
    twin = pickle.loads(pickle.dumps(gated))
    assert_same(twin(X), gated(X))
    outputs = []
    for model in (twin, gated):
        torch.manual_seed(0)
        outputs.append(model.train()(X))
    assert_same(*outputs)
    assert [type(m).__name__ for m in se_inject.remove(twin).modules()] == [
        type(m).__name__ for m in se_inject.remove(gated).modules()
    ]


def test_save_whole_model_and_load_in_another_process(tmp_path):
    model = trained(se_inject.apply(torchvision.models.resnet18())).eval()
    torch.save(model, tmp_path / "model.pt")
    torch.save(X, tmp_path / "x.pt")
    code = f"""
        import torch
        model = torch.load({str(tmp_path / "model.pt")!r}, weights_only=False)
        torch.save(model(torch.load({str(tmp_path / "x.pt")!r})), {str(tmp_path / "y.pt")!r})
        import se_inject
        assert len(list(se_inject.gates(model))) == 8 and se_inject.remove(model) is model
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    assert torch.allclose(torch.load(tmp_path / "y.pt"), model(X), atol=1e-5)


def test_state_dict_round_trip(gated, tmp_path):
    torch.save(gated.state_dict(), tmp_path / "weights.pt")
    other = copy.deepcopy(gated)
    for parameter in other.parameters():
        nn.init.constant_(parameter, 0.5)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert_same(other(X), gated(X))


@pytest.mark.filterwarnings("ignore")  # the compiler's own, about its caches and deprecations
def test_compile_fullgraph():
    torch.manual_seed(0)
    model = trained(se_inject.apply(network())).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for training in (False, True):
        model.train(training)
        twin = copy.deepcopy(model)
        assert torch.allclose(compiled(X), twin(X), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_compile_inductor():
    torch.manual_seed(0)
    model = trained(se_inject.apply(network(blocks=1))).eval()
    assert torch.allclose(torch.compile(model, fullgraph=True)(X), model(X), atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_export(gated):
    batch = torch.export.Dim("batch", min=2, max=8)
    program = torch.export.export(gated, (X,), dynamic_shapes=({0: batch},))
    more = torch.cat([X, X + 1])
    assert torch.allclose(program.module()(more), gated(more), atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # jit is deprecated, and people still deploy with it
def test_jit_trace(gated):
    traced = torch.jit.trace(gated, X)
    assert torch.allclose(traced(X[:1]), gated(X[:1]), atol=1e-4)


def test_fx_retrace():
    gated = trained(se_inject.apply(torchvision.models.resnet18())).eval()
    retraced = fx.symbolic_trace(gated)
    assert_same(retraced(X), gated(X))
    forms = {f"{name}.identity_form" for name, _ in se_inject.gates(gated)}  # a trace has what it computes with
    assert set(retraced.state_dict()) == set(gated.state_dict()) - forms
    found = se_inject.find_sites(retraced)
    assert len(found) == 0 and all(reason.startswith("already gated") for _, reason in found.skipped)
    assert len(found.skipped) == 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    before = torchvision.models.resnet18().to(dtype).eval()
    gated = se_inject.apply(copy.deepcopy(before))
    assert {p.dtype for p in se_inject.gate_parameters(gated)} == {dtype}
    assert_same(gated(X.to(dtype)), before(X.to(dtype)))
    converted = se_inject.apply(torchvision.models.resnet18()).to(dtype).eval()
    assert converted(X.to(dtype)).dtype == dtype


def test_half_after_apply_stays_identity():
    before = torchvision.models.resnet18().eval()
    gated = se_inject.apply(copy.deepcopy(before))
    assert_same(gated.half()(X.half()), before.half()(X.half()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [False, True])
def test_autocast_stays_identity(dtype, training):
    before = torchvision.models.resnet18().train(training)
    gated = se_inject.apply(copy.deepcopy(before))
    with torch.autocast("cpu", dtype):
        assert_same(gated(X), before(X))


@pytest.mark.parametrize("size", [32, 33, 224])
def test_channels_last_stays_identity(size):
    before = torchvision.models.resnet18().to(memory_format=torch.channels_last).eval()
    gated = se_inject.apply(copy.deepcopy(before))
    x = torch.randn(1, 3, size, size).to(memory_format=torch.channels_last)
    assert_same(gated(x), before(x))
    gate = next(gate for _, gate in se_inject.gates(gated))
    feature = torch.randn(2, 64, 5, 7).to(memory_format=torch.channels_last)
    assert gate(feature).is_contiguous(memory_format=torch.channels_last)


def test_gates_follow_device_and_mode():
    with torch.device("meta"):
        model = torchvision.models.resnet18()
    model.layer1.eval()
    se_inject.apply(model)
    assert all(p.is_meta for p in se_inject.gate_parameters(model))
    modes = {name: gate.training for name, gate in se_inject.gates(model)}
    assert modes["layer1.0.se"] is False and modes["layer2.0.se"] is True


def test_gates_follow_mixed_dtypes():
    model = network()
    model[1].double()
    se_inject.apply(model)
    assert model[1].se.fc1.weight.dtype == torch.float64 and model[2].se.fc1.weight.dtype == torch.float32


def test_ema_copy(gated):
    average = torch.optim.swa_utils.AveragedModel(gated, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    average.update_parameters(gated)
    before = average(X)
    for parameter in se_inject.gate_parameters(gated):
        nn.init.normal_(parameter)
    average.update_parameters(gated)
    assert not torch.equal(average(X), before)


def test_optimizer_built_before_surgery_still_trains_the_backbone():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    se_inject.apply(model)
    weight = model[1].conv1.weight.clone()
    model(X).sum().backward()
    optimizer.step()
    assert not torch.equal(model[1].conv1.weight, weight)


def test_equal_blocks_share_a_class():
    model = se_inject.apply(torchvision.models.resnet50())
    assert type(model.layer1[1]) is type(model.layer3[2])
    assert type(model.layer1[0]).__name__ == "SEBottleneck"
    assert isinstance(model.layer1[0], torchvision.models.resnet.Bottleneck)


@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="this torch cannot shard on a CPU")
def test_fsdp2_after_apply(tmp_path):
    from torch.distributed import device_mesh, fsdp

    plain = network()
    gated = trained(se_inject.apply(copy.deepcopy(plain)))
    expected = copy.deepcopy(gated)(X)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = device_mesh.init_device_mesh("cpu", (1,))
        for block in gated[1:4]:
            fsdp.fully_shard(block, mesh=mesh)
        output = fsdp.fully_shard(gated, mesh=mesh)(X)
        assert torch.allclose(output, expected, atol=1e-5)
        output.sum().backward()
        assert all(p.grad is not None for p in se_inject.gate_parameters(gated))
    finally:
        torch.distributed.destroy_process_group()
