"""Models of transformers keep their gates in ``from_pretrained``, and Trainer's checkpoints can be of gates alone."""

import pytest
import torch

import se_inject
from se_inject import errors

from ..support.promises import assert_same
from .networks import awake, images, names

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers
transformers = pytest.importorskip("transformers", reason="transformers is in the extra 'integrations'")
X = images()


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def config(**more):
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}
    return transformers.ResNetConfig(**sizes, layer_type="basic", num_labels=5, **more)


def plain():
    torch.manual_seed(0)
    return transformers.ResNetForImageClassification(config()).eval()


def gated_class():
    from se_inject.integrations.transformers import GatedModel

    class SEResNet(GatedModel, transformers.ResNetForImageClassification):
        pass

    return SEResNet


def out(model):
    with torch.no_grad():
        return model.eval()(X).logits


def test_gates_in_a_file_of_their_own(tmp_path):
    model = plain()
    before = out(model)
    se_inject.apply(model)
    assert_same(out(model), before)
    awake(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(errors.GateFileNotFoundError, match=r"has gates in model.safetensors \(resnet.*se.fc1"):
        se_inject.load_gates(plain(), tmp_path)
    se_inject.save_gates(model, tmp_path / "gates.safetensors")
    loaded = transformers.ResNetForImageClassification.from_pretrained(tmp_path)
    assert not names(loaded) and (out(loaded) - out(model)).abs().max() > 1e-2  # what transformers does by itself
    assert_same(out(se_inject.load_gates(loaded, tmp_path)), out(model))


@pytest.mark.parametrize("form", ["identity", "standard"])
def test_gates_in_the_checkpoint_of_a_gated_class(form, tmp_path):
    model = awake(gated_class()(config(se_inject={"init": form, "reduction": 4})))
    model.save_pretrained(tmp_path)
    loaded = gated_class().from_pretrained(tmp_path)
    assert loaded.config.se_inject == {"init": form, "reduction": 4}
    torch.testing.assert_close(out(loaded), out(model), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(*map(se_inject.gate_parameters, (loaded, model)), strict=True):
        assert torch.equal(ours, theirs)
    half = gated_class().from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_a_gated_class_of_plain_weights_is_the_plain_network(tmp_path):
    model = plain()
    model.save_pretrained(tmp_path)
    loaded, info = gated_class().from_pretrained(tmp_path, output_loading_info=True)
    assert len(names(loaded)) == 2 and len(info["missing_keys"]) == 10
    torch.testing.assert_close(out(loaded), out(model), rtol=1e-5, atol=1e-5)
    fresh = se_inject.apply(plain())
    assert loaded.state_dict().keys() == fresh.state_dict().keys()
    for gate, expected in zip(*map(se_inject.gates, (loaded, fresh)), strict=True):
        assert torch.equal(gate[1].identity_form, expected[1].identity_form) and not gate[1].fc2.weight.any()


def test_a_part_of_a_gate_is_an_error(tmp_path):
    model = gated_class()(config())
    weights = model.state_dict()
    del weights[f"{names(model)[1]}.fc2.bias"]
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(errors.GateMismatchError, match=r"stages.1.layers.0.se.fc2.bias is not in the checkpoint"):
        gated_class().from_pretrained(tmp_path)


def test_the_other_order_of_classes_is_an_error():
    from se_inject.integrations.transformers import GatedModel

    with pytest.raises(errors.ArgumentTypeError, match=r"class SEResNet\(GatedModel, ...\)"):
        type("SEResNet", (transformers.ResNetForImageClassification, GatedModel), {})


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"pixel_values": images(3, 32, 32, seed=index), "labels": index % 5}


def trainer(model, folder, *, steps, callbacks=True):
    from se_inject.integrations.transformers import GatesCheckpoint

    options = {"per_device_train_batch_size": 4, "learning_rate": 0.1, "lr_scheduler_type": "constant", "use_cpu": True}
    arguments = transformers.TrainingArguments(folder, max_steps=steps, save_steps=2, report_to=[], **options)
    callbacks = [GatesCheckpoint()] if callbacks else []
    return transformers.Trainer(model, arguments, train_dataset=Images(), callbacks=callbacks)


def frozen(seed=0):
    model = se_inject.freeze_backbone(se_inject.apply(plain()))
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.classifier[1].weight.requires_grad_())  # a new head, which trains with the gates
    return model


def test_trainer_saves_gates_and_resumes(tmp_path):
    whole, resumed = frozen(), frozen()
    trainer(whole, tmp_path / "whole", steps=4, callbacks=False).train()
    trainer(resumed, tmp_path / "gates", steps=2).train()
    saved = tmp_path / "gates" / "checkpoint-2"
    files = saved / "model.safetensors", tmp_path / "whole" / "checkpoint-2" / "model.safetensors"
    size, of_whole = (file.stat().st_size for file in files)
    assert size < of_whole / 2 and not (saved / "config.json").exists()
    with pytest.raises((OSError, ValueError), match=r"config\.json"):
        transformers.AutoModelForImageClassification.from_pretrained(saved)
    again = frozen(seed=1)
    trainer(again, tmp_path / "gates", steps=4).train(resume_from_checkpoint=str(saved))
    assert_same(again.state_dict(), whole.state_dict())
    shared = se_inject.load_gates(plain(), tmp_path / "gates" / "checkpoint-4" / "model.safetensors")
    assert_same(shared.state_dict(), whole.state_dict())
