"""Lightning's checkpoints with the gates in place of the whole network.

This module needs lightning (``pip install 'se-inject[integrations]'``).
"""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..errors import InvalidArgumentError
from ..training import frozen_names, gate_parameters


class GatesCheckpoint(Callback):  # type: ignore[misc]
    """Lets a trainer's checkpoints hold what trains of the model: after ``freeze_backbone``, the gates.

    ``trainer.fit(model, ckpt_path=...)`` resumes from them, optimizers and loops included, if the model was made as
    before: with the same weights of the backbone. When and where they are written is said by ``ModelCheckpoint``.

    ``trainer.fit`` raises ``NoGateError`` for a model without gates, and ``InvalidArgumentError`` for
    ``ModelCheckpoint(save_weights_only=True)``, which asks no callback.

    >>> trainer = Trainer(accelerator="cpu", logger=False, callbacks=[GatesCheckpoint()])
    """

    _loading: RemovableHandle | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the model load what its checkpoints hold."""
        gate_parameters(pl_module)
        if any(getattr(callback, "save_weights_only", False) for callback in trainer.checkpoint_callbacks):
            raise InvalidArgumentError(
                "ModelCheckpoint(save_weights_only=True) asks no callback: leave it out, or call"
                " se_inject.save_gates(model, path)"
            )
        self._loading = pl_module.register_load_state_dict_post_hook(_without_frozen)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let it load as before."""
        self._let_load_as_before()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same, as nothing is torn down after an error."""
        self._let_load_as_before()

    def _let_load_as_before(self) -> None:
        if self._loading is not None:
            self._loading.remove()
            self._loading = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out what does not train."""
        frozen = frozen_names(pl_module)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}


def _without_frozen(model: nn.Module, incompatible: Any) -> None:
    """Whatever else is missing, a gate among it, is still an error."""
    frozen = frozen_names(model)
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if key not in frozen]
