"""The kernels for GPUs, interpreted where there is none, by themselves and where gates use them."""

import copy
import importlib
import math
from contextlib import nullcontext

import pytest
import torch
import torchvision

import se_inject
from se_inject.gate import affine, autograd, folding, inference

pytest.importorskip("triton", reason="the CPU's builds of torch have no Triton")

SHAPES = [(2, 8, 9), (2, 8, 5, 6), (3, 130, 7, 7), (1, 3, 40, 40), (2, 1, 3, 5), (1, 4, 3, 4, 5)]


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def kernels(monkeypatch):
    if DEVICE == "cpu":
        monkeypatch.setattr(torch.cuda, "device_of", lambda _: nullcontext())
    return importlib.import_module("se_inject.gate.kernels")


@pytest.fixture(params=[True, False], ids=["kernels", "operations"])
def everywhere(request, kernels, monkeypatch):
    """What a GPU does in half precision on the CPU, too, with kernels or with torch's operations."""
    monkeypatch.setattr(affine, "kernels_for", lambda *_: kernels if request.param else None)
    monkeypatch.setattr(autograd, "_is_exact", lambda *_: True)
    monkeypatch.setattr(inference, "goes_together", lambda *_: True)
    monkeypatch.setattr(folding, "is_on_cpu", lambda *_: False)


def layouts(shape):
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return [torch.contiguous_format, *([formats[len(shape)]] if len(shape) in formats else [])]


@pytest.mark.parametrize(("shape", "layout"), [(shape, layout) for shape in SHAPES for layout in layouts(shape)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_scale_and_shift(kernels, shape, layout, dtype):
    x = torch.randn(shape, device=DEVICE).to(dtype).contiguous(memory_format=layout)
    scale, shift = torch.randn(shape[0], 2, shape[1], device=DEVICE).unbind(1)  # not contiguous
    spread = [affine.spread(values.contiguous(), x) for values in (scale, shift)]
    exact = x.float() * spread[0] + spread[1]
    found = kernels.scale_and_shift(x, scale, shift, torch.empty_like(x))
    assert found.stride() == x.stride()
    torch.testing.assert_close(found.float(), exact, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    expected = (x.float() * spread[0]).to(dtype)
    assert torch.equal(kernels.scale_and_shift(x, scale, None, x), expected)  # in place


@pytest.mark.parametrize(("shape", "layout"), [(shape, layout) for shape in SHAPES for layout in layouts(shape)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sums(kernels, shape, layout, dtype):
    a, b = (torch.randn(shape, device=DEVICE).to(dtype).contiguous(memory_format=layout) for _ in range(2))
    products, values = kernels.sums(a, b)
    dims = tuple(range(2, len(shape)))
    bound = 1e-6 * math.sqrt(math.prod(shape[2:])) * 10
    torch.testing.assert_close(products, (a.double() * b.double()).sum(dims).float(), rtol=0, atol=bound)
    torch.testing.assert_close(values, a.double().sum(dims).float(), rtol=0, atol=bound)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(16, 16, 3, padding=1, bias=False), torch.nn.BatchNorm2d(16)

    def forward(self, x):
        return (x + self.norm(self.conv(x))).relu()


def awake(model):
    torch.manual_seed(0)
    for parameter in se_inject.gate_parameters(model):
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.skipif(
    not hasattr(torch._C._autograd.SavedTensor, "data"), reason="this torch does not tell what autograd keeps"
)
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_training_in_half_precision(everywhere, monkeypatch, layout, autocast):
    model = awake(se_inject.apply(Block())).to(DEVICE, memory_format=layout)
    model = model if autocast else model.half()
    x = torch.randn(4, 16, 8, 8, device=DEVICE).contiguous(memory_format=layout)
    by_autograd, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    by_autograd.se.fc1.register_forward_hook(lambda *_: None)  # then autograd's own way is taken
    outputs = []
    for each in (model, by_autograd):
        with torch.autocast(DEVICE, torch.float16, enabled=autocast):
            outputs.append(each(x if autocast else x.half()))
        outputs[-1].float().square().sum().backward()
    exact(x.double()).square().sum().backward()
    assert torch.equal(*outputs)
    for ours, theirs, true in zip(model.parameters(), by_autograd.parameters(), exact.parameters(), strict=True):
        assert ours.grad.dtype is theirs.grad.dtype
        errors = [(each.grad.double() - true.grad).norm() / true.grad.norm() for each in (ours, theirs)]
        assert errors[0] < max(1.5 * errors[1], 0.02)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("make", [Block, lambda: torchvision.models.squeezenet.Fire(16, 8, 8, 8)])
def test_an_optimized_copy_in_half_precision(everywhere, make, autocast):
    block = make().to(DEVICE)
    model = awake(se_inject.apply(block, kinds=["inception", "residual"])).eval()
    fast, x = se_inject.optimize(model), torch.randn(2, 16, 8, 8, device=DEVICE)
    with torch.no_grad():
        exact = model.double()(x.double())
        model = model.float()
        if not autocast:
            model, fast, x = model.half(), fast.half(), x.half()
        with torch.autocast(DEVICE, torch.float16, enabled=autocast):
            outputs = fast(x), model(x)
    assert outputs[0].dtype is outputs[1].dtype
    errors = [(output.double() - exact).norm() / exact.norm() for output in outputs]
    assert errors[0] < max(1.5 * errors[1], 0.01)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_by_operations_are_exact_in_half_precision(layout, dtype):
    torch.manual_seed(0)
    a = torch.randn(2, 4, 16, 16, device=DEVICE).to(dtype).contiguous(memory_format=layout)
    b = (300 + torch.randn(2, 4, 16, 16, device=DEVICE)).to(dtype).contiguous(memory_format=layout)  # far from 0
    products, values = affine.dot_and_sum(a, b)
    exact = (a.double() * (b.double() - 300)).sum((2, 3))
    torch.testing.assert_close(products.double() - 300 * values.double(), exact, rtol=0, atol=0.02)
    assert affine.dot(b, b).isfinite().all()  # each product is too large for float16


def test_more_positions_than_a_grid_has_in_its_further_places(kernels, monkeypatch):
    grids = []

    class Launch:
        def __getitem__(self, grid):
            grids.append(grid)
            return lambda *_, **__: None

    monkeypatch.setattr(kernels, "_sums", Launch())
    volume = torch.empty(1, 8, 512, 512, 512, device="meta", dtype=torch.float16)
    kernels.sums(volume, volume)
    assert max(grids[0][1:]) < 2**16


@pytest.mark.parametrize("name", ["sums", "scale_and_shift"])
def test_where_a_kernel_cannot_be_compiled_operations_do_its_work(kernels, monkeypatch, name):
    device = torch.device(DEVICE)
    affine._kernels.cache_clear()
    assert affine._kernels(device, torch.float16) is kernels
    affine._kernels.cache_clear()

    def no_compiler(*_):
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(kernels, name, no_compiler)
    assert affine._kernels(device, torch.float16) is None
    affine._kernels.cache_clear()


def test_batches_of_gradients_have_no_memory_for_kernels():
    seen = []

    class Identity(torch.autograd.Function):
        @staticmethod
        def forward(_, x):
            return x.clone()

        @staticmethod
        def backward(_, gradient):
            seen.append(affine.is_in_memory(gradient))
            return gradient

    x = torch.ones(2, requires_grad=True)
    torch.autograd.grad(Identity.apply(x), x, torch.ones(3, 2), is_grads_batched=True)
    torch.autograd.grad(Identity.apply(x), x, torch.ones(2))
    assert seen == [False, True]


def test_a_gate_in_place_under_autocast_of_a_large_sum(everywhere):
    gate = se_inject.SqueezeExcitation(16).to(DEVICE).eval()
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    in_place = copy.deepcopy(gate)
    in_place.__class__ = inference.InPlaceGate
    folding.join(in_place, None, in_place)
    x = 20 + torch.randn(1, 16, 64, 64, device=DEVICE)  # of float32, as the norms that autocast keeps in it make it
    with torch.no_grad(), torch.autocast(DEVICE, torch.float16):
        torch.testing.assert_close(gate(x), in_place(x.clone()), rtol=1e-2, atol=1e-2)


@pytest.mark.skipif(
    not hasattr(torch._C._autograd.SavedTensor, "data"), reason="this torch does not tell what autograd keeps"
)
def test_a_convolution_is_made_again_under_autocast(everywhere):
    conv = torch.nn.Conv2d(16, 16, 3, padding=1).to(DEVICE)
    model = awake(torch.nn.Sequential(conv, se_inject.SqueezeExcitation(16, memory="recompute"))).to(DEVICE)
    by_autograd, x = copy.deepcopy(model), torch.randn(4, 16, 8, 8, device=DEVICE)
    by_autograd[1].memory = "keep"
    gradients = []
    for each in (model, by_autograd):
        with torch.autocast(DEVICE, torch.bfloat16):
            output = each(x)
        gradients.append(torch.autograd.grad(output.float().square().sum(), list(each.parameters())))
        made = type(output.grad_fn).__name__
        assert (made == "_GateBackward") is (each is model)
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()
