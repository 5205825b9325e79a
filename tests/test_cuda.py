"""The promises on a GPU; skipped where there is none."""

import copy

import pytest
import timm
import torch
import torchvision

import se_inject

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def awake(model):
    torch.manual_seed(0)
    for _, gate in se_inject.gates(model):
        for parameter in gate.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
    return model


def images(layout=torch.contiguous_format, size=96):
    return torch.randn(4, 3, size, size, device="cuda").contiguous(memory_format=layout)


def resnet():
    return torchvision.models.resnet18().cuda()


def mobilenet():
    return torchvision.models.mobilenet_v2(dropout=0.0).cuda()


def inception():
    return timm.create_model("inception_resnet_v2", drop_rate=0.0).cuda()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("amp", [None, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("training", [False, True])
def test_the_identity_is_exact(training, amp, layout):
    plain = resnet().to(memory_format=layout).train(training)
    gated, x = se_inject.apply(copy.deepcopy(plain)), images(layout)
    with torch.autocast("cuda", amp or torch.float16, enabled=amp is not None):
        assert torch.equal(gated(x), plain(x))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", [resnet, mobilenet])
def test_gradients_without_the_features(make, training, layout):
    model = awake(se_inject.apply(make())).double().to(memory_format=layout).train(training)
    hooked = copy.deepcopy(model)
    for _, gate in se_inject.gates(hooked):
        gate.fc1.register_forward_hook(lambda *_: None)  # then autograd's own way is taken
    x = images(layout).double()
    for each in (model, hooked):
        each(x).square().mean().backward()
    for (name, parameter), other in zip(model.named_parameters(), hooked.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.skipif(
    not hasattr(torch._C._autograd.SavedTensor, "data"), reason="this torch does not tell what autograd keeps"
)
def test_a_gate_keeps_no_feature():
    from benchmarks.training import kept

    plain = resnet()
    assert kept(se_inject.apply(copy.deepcopy(plain)), images()) < 1.005 * kept(plain, images())


def relative(output, expected):
    return ((output.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("make", [resnet, mobilenet, inception])
def test_an_optimized_copy_has_the_outputs(make, layout):
    model = awake(se_inject.apply(make())).eval().to(memory_format=layout)
    fast, x = se_inject.optimize(model), images(layout)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double())
        assert relative(fast(x), exact) < 1e-4
        assert relative(fast.double()(x.double()), exact) < 1e-10


@pytest.mark.parametrize("amp", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [resnet, mobilenet, inception])
def test_in_half_precision_it_is_as_exact_as_the_model(make, dtype, amp):
    model = awake(se_inject.apply(make())).eval()
    x = images()
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double())
        fast = se_inject.optimize(model)
        if not amp:
            model, fast, x = model.to(dtype), fast.to(dtype), x.to(dtype)
        with torch.autocast("cuda", dtype, enabled=amp):
            outputs = fast(x), model(x)
    assert outputs[0].dtype is outputs[1].dtype
    errors = [relative(output, exact) for output in outputs]
    assert errors[0] < max(2 * errors[1], 5 * torch.finfo(dtype).eps)


def test_compiled():
    model = awake(se_inject.apply(resnet())).eval()
    x = images()
    with torch.no_grad():
        assert relative(torch.compile(se_inject.optimize(model))(x), model(x).double()) < 1e-4
