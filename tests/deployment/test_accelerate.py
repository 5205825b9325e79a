"""Accelerate: ``save_state`` of the gates alone, and a run that goes on from it as if it had not stopped."""

import pytest
import torch
from accelerate import Accelerator, DistributedType

import se_inject
from se_inject import errors
from se_inject.integrations.accelerate import save_gates_only

from ..support.promises import assert_same
from .networks import images, small

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # of accelerate


def run(folder, *, until, start=None):
    """Train, up to a step at which the state is saved, from a state or from the start."""
    accelerator = Accelerator(cpu=True)
    save_gates_only(accelerator)
    network = se_inject.freeze_backbone(se_inject.apply(small("torchvision")))
    network.fc.requires_grad_()  # a new head
    if start is not None:
        for parameter in (*se_inject.gate_parameters(network), network.fc.weight):
            torch.nn.init.normal_(parameter)
    trained = [p for p in network.parameters() if p.requires_grad]
    model, optimizer = accelerator.prepare(network, torch.optim.SGD(trained, lr=0.1, momentum=0.9))
    if start is not None:
        accelerator.load_state(start)
    for step in range(0 if start is None else 2, until):
        optimizer.zero_grad()
        accelerator.backward(model.train()(images(2, 3, 32, 32, seed=step)).square().mean())
        optimizer.step()
    accelerator.save_state(folder)
    return network


def test_gates_alone_are_saved_and_resumed(tmp_path):
    run(str(tmp_path / "2"), until=2)
    whole = run(str(tmp_path / "4"), until=4)
    resumed = run(str(tmp_path / "again"), until=4, start=str(tmp_path / "2"))
    assert_same(resumed.state_dict(), whole.state_dict())
    weights = [file.name for file in (tmp_path / "2").glob("*.safetensors")]
    assert weights == ["gates.safetensors"]
    trained = sum(p.nbytes for p in whole.parameters() if p.requires_grad)
    assert trained < (tmp_path / "2" / "gates.safetensors").stat().st_size < 1.3 * trained


def test_two_models_have_two_files(tmp_path):
    accelerator = Accelerator(cpu=True)
    save_gates_only(accelerator)
    models = [se_inject.apply(small("resnet", seed)) for seed in range(2)]
    accelerator.prepare(*models)
    for model in models:
        torch.nn.init.normal_(se_inject.gate_parameters(model)[0])
    expected = [{key: value.clone() for key, value in model.state_dict().items()} for model in models]
    accelerator.save_state(str(tmp_path))
    for model in models:
        torch.nn.init.zeros_(se_inject.gate_parameters(model)[0])
    accelerator.load_state(str(tmp_path))
    assert_same([model.state_dict() for model in models], expected)
    assert sorted(file.name for file in tmp_path.glob("*.safetensors")) == ["gates.safetensors", "gates_1.safetensors"]


def test_what_is_saved_in_another_way_is_refused(monkeypatch):
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.FSDP)
    with pytest.raises(errors.InvalidArgumentError, match="with FSDP"):
        save_gates_only(accelerator)


def test_a_model_without_gates_is_an_error(tmp_path):
    accelerator = Accelerator(cpu=True)
    save_gates_only(accelerator)
    accelerator.prepare(se_inject.apply(small("resnet")), small("resnet"))
    with pytest.raises(errors.NoGateError):
        accelerator.save_state(str(tmp_path))
    assert not list(tmp_path.iterdir())
