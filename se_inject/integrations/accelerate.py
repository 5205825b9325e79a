"""Accelerate's ``save_state`` and ``load_state`` with the gates in place of the whole network.

This module needs accelerate (``pip install 'se-inject[integrations]'``).
"""

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from ..files.load import load_gates
from ..files.save import save_gates
from ..training import trained_names


def save_gates_only(accelerator: Accelerator) -> None:
    """From now on, ``accelerator.save_state`` saves what trains of each model: after ``freeze_backbone``, the gates.

    ``accelerator.load_state`` resumes from it, optimizers included, if the models were made as before: with the same
    weights of the backbone. Call this once, before either. Not for FSDP and DeepSpeed, which save in their own ways.

    >>> save_gates_only(Accelerator(cpu=True))
    """

    def save(models: list[nn.Module], weights: list[Any], folder: str) -> None:
        for number, model in enumerate(models):
            network = accelerator.unwrap_model(model)
            if accelerator.is_main_process:
                save_gates(network, _file(folder, number), include=trained_names(network))
        weights.clear()  # then nothing else is saved

    def load(models: list[nn.Module], folder: str) -> None:
        for number, model in enumerate(models):
            load_gates(accelerator.unwrap_model(model), _file(folder, number))
        models.clear()

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


def _file(folder: str, number: int) -> Path:
    return Path(folder, f"gates_{number}.safetensors" if number else "gates.safetensors")
