"""PEFT: gates as adapters, beside adapters, and put in after adapters."""

import copy

import pytest
import torch
from torch import nn

import se_inject
from se_inject import errors

from ..support.promises import assert_same
from .networks import awake, gated, images, names, small

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own, and of what it imports
peft = pytest.importorskip("peft", reason="PEFT is in the extra 'integrations'", exc_type=ImportError)
X = images()


def trained(model, steps=2):
    """What has learned, with batches that leave the statistics of norms alone."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
    return model


def out(model):
    with torch.no_grad():
        return model.eval()(X)


def test_gates_alone_are_adapters(tmp_path):
    plain = small("torchvision")
    base = se_inject.apply(copy.deepcopy(plain))
    config = peft.LNTuningConfig(target_modules=["se.fc1", "se.fc2"])
    model = trained(peft.get_peft_model(copy.deepcopy(base), config).eval())
    assert names(model) == [f"base_model.model.{name}" for name in names(base)]
    assert {name.split(".se.")[1] for name, p in model.named_parameters() if p.requires_grad} == {
        f"{layer}.ln_tuning_layers.default.{kind}" for layer in ("fc1", "fc2") for kind in ("weight", "bias")
    }
    assert (out(model) - out(plain)).abs().max() > 1e-4
    with model.disable_adapter():
        assert_same(out(model), out(plain))
    model.save_pretrained(tmp_path)
    weights = sum(p.nbytes for p in se_inject.gate_parameters(base))
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 1.1 * weights
    assert_same(out(peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)), out(model))
    merged = model.merge_and_unload()
    assert names(merged) == names(base) and len(list(se_inject.gate_parameters(merged))) == 16
    assert_same(out(merged), out(peft.PeftModel.from_pretrained(base, tmp_path)))


def saved_beside_lora():
    config = peft.LoraConfig(target_modules=["conv1"], modules_to_save=["se"], r=2)
    return peft.get_peft_model(gated("torchvision"), config)


def test_gates_beside_lora_are_counted_once(tmp_path):
    base = gated("torchvision")
    model = trained(saved_beside_lora().eval())
    assert names(model) == [f"base_model.model.{name}.modules_to_save.default" for name in names(base)]
    assert all(p.requires_grad for p in se_inject.gate_parameters(model))
    with model.disable_adapter():
        assert names(model) == [f"base_model.model.{name}.original_module" for name in names(base)]
        assert_same(out(model), out(base))
    model.save_pretrained(tmp_path)
    assert_same(out(peft.PeftModel.from_pretrained(base, tmp_path)), out(model))
    merged = copy.deepcopy(model).merge_and_unload()
    assert names(merged) == names(gated("torchvision"))
    for ours, theirs in zip(*map(se_inject.gate_parameters, (merged, model)), strict=True):
        assert torch.equal(ours, theirs)
    assert not names(se_inject.remove(merged))


def test_the_gates_of_the_active_adapter():
    model = saved_beside_lora()
    model.add_adapter("other", peft.LoraConfig(target_modules=["conv1"], modules_to_save=["se"], r=2))
    for adapter in ("other", "default"):
        model.set_adapter(adapter)
        assert {name.rpartition(".")[2] for name in names(model)} == {adapter} and len(names(model)) == 4
        assert len(se_inject.gate_parameters(model)) == 16


def with_lora(config=None):
    model = peft.get_peft_model(small("torchvision"), config or peft.LoraConfig(target_modules=["conv1", "conv2"], r=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.mark.parametrize("part", ["", "base_model", "base_model.model"])
@pytest.mark.parametrize("kind", ["lora", "dora", "modules_to_save"])
def test_gates_after_adapters(part, kind):
    targets = {"target_modules": ["conv1", "conv2"], "r": 2}
    config = {
        "lora": peft.LoraConfig(**targets),
        "dora": peft.LoraConfig(**targets, use_dora=True),
        "modules_to_save": peft.LoraConfig(target_modules=["fc"], modules_to_save=["bn1"], r=2),
    }[kind]
    model = with_lora(config)
    before, adapted = out(model), [name for name, p in model.named_parameters() if p.requires_grad]
    se_inject.apply(model.get_submodule(part))
    assert_same(out(model), before)
    assert len(names(model)) == 4
    awake(model)
    model.train()(X).square().mean().backward()
    assert all(model.get_parameter(name).grad is not None for name in adapted)
    assert all(p.grad is not None for p in se_inject.gate_parameters(model))
    expected = out(model)
    merged = model.merge_and_unload()
    assert len(names(merged)) == 4
    torch.testing.assert_close(out(merged), expected, rtol=1e-4, atol=1e-4)


def added(x, layer):
    return x + layer(x)


class NamesNoPlace(nn.Module):
    """A block whose gate can only be on the output of its convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return added(x, self.conv)


def test_a_gate_that_merging_would_take_away_is_refused():
    model = nn.Sequential(NamesNoPlace())
    assert [site.gate_path for site in se_inject.find_sites(model)] == ["0.conv.se"]
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["conv"], r=2))
    with pytest.raises(errors.NoBlockError, match="an adapter of PEFT, which would take the gate along"):
        se_inject.apply(adapted)


def test_adapters_are_no_blocks():
    """LoRA's own add, of a projection and of convolutions, is none of the network's."""
    model = with_lora(peft.LoraConfig(target_modules=r".*downsample\.0|.*conv\d", r=2))
    found = se_inject.find_sites(model, kinds=("residual", "inception", "dense"))
    assert [site.path for site in found] == [f"base_model.model.layer{i}.0" for i in range(1, 5)]
    assert {path for path, _ in found.skipped} <= {""}


def test_gates_with_adapters_in_them_are_shown():
    model = peft.get_peft_model(gated("torchvision"), peft.LNTuningConfig(target_modules=["se.fc1", "se.fc2"]))
    assert "64, init=identity" in repr(model)
