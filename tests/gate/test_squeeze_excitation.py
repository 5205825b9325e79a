"""SqueezeExcitation as a module of its own."""

import copy

import pytest
import timm.layers
import torch
import torch.nn.utils.prune
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

import se_inject
from se_inject import SqueezeExcitation
from se_inject.errors import GateMismatchError


@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(1, 70),
    reduction=st.integers(1, 64),
    spatial=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    batch=st.integers(0, 3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    contiguous=st.booleans(),
)
def test_identity_form_is_the_identity(channels, reduction, spatial, batch, dtype, contiguous):
    gate = SqueezeExcitation(channels, reduction, dtype=dtype)
    assert gate.fc1.weight.shape == (max(channels // reduction, 8), channels, 1, 1)
    x = 10 * torch.randn(batch, channels, *spatial, dtype=dtype)
    if not contiguous:
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    y = gate(x)
    assert y.dtype == x.dtype and y.shape == x.shape and torch.equal(y, x)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_equation_of_the_paper(rank):
    gate = SqueezeExcitation(32, 2, init="standard")
    x = torch.randn(2, 32, *[5] * rank)
    z = x.flatten(2).mean(2)
    s = torch.sigmoid(
        gate.fc2.weight[:, :, 0, 0] @ torch.relu(gate.fc1.weight[:, :, 0, 0] @ z.T + gate.fc1.bias[:, None])
        + gate.fc2.bias[:, None]
    ).T
    assert torch.allclose(gate(x), x * s.view(2, 32, *[1] * rank), atol=1e-6)


def test_keys_and_outputs_are_those_of_timm_and_torchvision():
    ours = SqueezeExcitation(64, init="standard")
    for theirs in (timm.layers.SEModule(64, rd_channels=8), torchvision.ops.SqueezeExcitation(64, 8)):
        theirs.load_state_dict(ours.state_dict(), strict=True)
        x = torch.randn(2, 64, 7, 5)
        assert torch.allclose(theirs(x), ours(x), atol=1e-6)


def test_gradients_of_the_input_are_untouched_at_first():
    gate, x = SqueezeExcitation(16), torch.randn(2, 16, 4, 4, requires_grad=True)
    gate(x).square().sum().backward()
    assert torch.equal(x.grad, 2 * x)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((0,), ValueError), ((2.5,), TypeError), ((True,), TypeError), ((8, 0), ValueError), ((8, 2.0), TypeError)],
)
def test_bad_arguments(arguments, error):
    with pytest.raises(error) as raised:
        SqueezeExcitation(*arguments)
    assert isinstance(raised.value, se_inject.errors.SEInjectError)


def test_bad_form():
    with pytest.raises(se_inject.errors.InvalidArgumentError, match="'identity', 'standard'"):
        SqueezeExcitation(8, init="sigmoid")


def test_bad_memory():
    with pytest.raises(se_inject.errors.InvalidArgumentError, match="'keep', 'recompute', got 'checkpoint'"):
        SqueezeExcitation(8, memory="checkpoint")


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("left_out", ["", "fc1.", "fc1.weight"])
def test_weights_of_the_other_form_are_refused_and_not_written(strict, left_out):
    for form, other in (("identity", "standard"), ("standard", "identity")):
        gate = SqueezeExcitation(8, init=form)
        state = SqueezeExcitation(8, init=other).state_dict()
        state = {key: torch.full_like(value, 3) for key, value in state.items() if not key.startswith(left_out or "-")}
        before = copy.deepcopy(gate.state_dict())
        with pytest.raises(GateMismatchError, match=f"is of the {form} form, and the weights are of the {other} form"):
            gate.load_state_dict(state, strict=strict)
        assert all(torch.equal(value, before[key]) for key, value in gate.state_dict().items())


def test_keys_of_the_weights_tell_the_form_however_they_are_computed():
    for change in (
        lambda layer: torch.nn.utils.prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: torch.nn.utils.parametrizations.weight_norm(layer),
    ):
        gates = [SqueezeExcitation(8, init=form) for form in ("identity", "standard")]
        for gate in gates:
            change(gate.fc1)
            change(gate.fc2)
        for gate, other in (gates, gates[::-1]):
            with pytest.raises(GateMismatchError):
                gate.load_state_dict(other.state_dict(), strict=False)


def test_the_standard_form_has_the_keys_of_timm():
    assert list(SqueezeExcitation(8, init="standard").state_dict()) == list(timm.layers.SEModule(8).state_dict())
