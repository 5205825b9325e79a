"""torch.func: other weights for one call, a gradient for each sample, and many networks in one call."""

import copy

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

from .networks import gated, images

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own use of torch.jit


@pytest.mark.parametrize("name", ["resnet", "convnext2"])
def test_other_weights_for_one_call(name):
    model, other = gated(name), gated(name, seed=1)
    x, before = images(), model(images())
    assert not torch.equal(other(x), before)
    assert torch.equal(functional_call(model, other.state_dict(), (x,)), other(x))
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("name", ["resnet", "convnext2"])
def test_a_gradient_for_each_sample(name):
    model, x = gated(name).double(), images(3, 3, 32, 32).double()
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights, image):
        return functional_call(model, weights, (image[None],)).square().sum()

    of_samples = vmap(grad(loss), (None, 0))(weights, x)
    for i, image in enumerate(x):
        model.zero_grad()
        model(image[None]).square().sum().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(of_samples[name][i], parameter.grad)


def test_many_networks_in_one_call():
    models = [gated("resnet", seed) for seed in range(3)]
    weights, buffers = stack_module_state(models)
    skeleton, x = copy.deepcopy(models[0]).to("meta"), images()
    outputs = vmap(lambda weights, buffers: functional_call(skeleton, (weights, buffers), (x,)))(weights, buffers)
    for output, model in zip(outputs, models, strict=True):
        torch.testing.assert_close(output, model(x), rtol=1e-4, atol=1e-4)
