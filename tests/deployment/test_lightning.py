"""Lightning: checkpoints of the gates alone, from which a run goes on as if it had not stopped."""

import pytest
import torch

import se_inject
from se_inject import errors

from ..support.promises import assert_same
from .networks import images, small

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: loggers, workers, and what it finds too small
lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is in the extra 'integrations'")


class Task(lightning.LightningModule):
    def __init__(self, gated=True, seed=0):
        super().__init__()
        self.network = small("torchvision")
        if gated:
            se_inject.freeze_backbone(se_inject.apply(self.network))
        self.network.fc.requires_grad_()  # a new head
        torch.manual_seed(seed)
        torch.nn.init.normal_(self.network.fc.weight)

    def training_step(self, batch, index):
        return self.network(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1, momentum=0.9)


class Failing(Task):
    def training_step(self, batch, index):
        raise RuntimeError("out of luck")


def trainer(folder, *, epochs, **options):
    from se_inject.integrations.lightning import GatesCheckpoint

    checkpoints = lightning.callbacks.ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, **options)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(accelerator="cpu", max_epochs=epochs, callbacks=[GatesCheckpoint(), checkpoints], **quiet)


def fit(folder, *, epochs, start=None, task=None, **options):
    task = task or Task()
    batches = torch.utils.data.DataLoader(images(4, 3, 32, 32), batch_size=2)
    trainer(folder, epochs=epochs, **options).fit(task, batches, ckpt_path=start)
    return task


def test_checkpoints_hold_the_gates_and_resume(tmp_path):
    whole = fit(tmp_path, epochs=2)
    saved = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["state_dict"]
    gates = {f"network.{name}.{key}" for name, gate in se_inject.gates(whole.network) for key in gate.state_dict()}
    assert saved.keys() == gates | {"network.fc.weight", "network.fc.bias"}
    resumed = fit(tmp_path / "again", epochs=2, start=tmp_path / "epoch=0.ckpt", task=Task(seed=1))
    assert_same(resumed.state_dict(), whole.state_dict())


def test_a_checkpoint_without_a_gate_is_an_error(tmp_path):
    fit(tmp_path, epochs=1)
    checkpoint = torch.load(tmp_path / "epoch=0.ckpt", weights_only=False)
    del checkpoint["state_dict"]["network.layer1.0.se.fc1.bias"]
    torch.save(checkpoint, tmp_path / "broken.ckpt")
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"network.layer1.0.se.fc1.bias\"\."):
        fit(tmp_path, epochs=2, start=tmp_path / "broken.ckpt")


def test_afterwards_a_model_loads_as_before(tmp_path):
    task = fit(tmp_path, epochs=1)
    with pytest.raises(RuntimeError, match="Missing key"):
        task.load_state_dict(torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["state_dict"])


def test_after_an_error_a_model_loads_as_before(tmp_path):
    task = Failing()
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(tmp_path, epochs=1, task=task)
    with pytest.raises(RuntimeError, match="Missing key"):
        task.load_state_dict({name: t for name, t in task.state_dict().items() if ".se." in name or ".fc." in name})


def test_what_cannot_work_is_an_error(tmp_path):
    with pytest.raises(errors.NoGateError):
        fit(tmp_path, epochs=1, task=Task(gated=False))
    with pytest.raises(errors.InvalidArgumentError, match="save_weights_only"):
        fit(tmp_path, epochs=1, save_weights_only=True)
