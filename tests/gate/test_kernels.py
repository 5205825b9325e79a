"""The kernels for GPUs, interpreted where there is none, by themselves and where gates use them."""

import copy
import importlib
import math
from contextlib import nullcontext

import pytest
import torch
import torchvision

import se_inject
from se_inject.gate import affine, autograd, inference

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
    monkeypatch.setattr(inference, "_goes_together", lambda *_: True)


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
