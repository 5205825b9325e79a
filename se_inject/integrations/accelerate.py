"""Accelerate's ``save_state`` and ``load_state`` with the gates in place of the whole network.

This module needs accelerate (``pip install 'se-inject[integrations]'``).
"""

from pathlib import Path
from typing import Any

from accelerate import Accelerator, DistributedType
from torch import nn

from ..errors import InvalidArgumentError
from ..files.load import load_gates
from ..files.save import save_gates
from ..training import gate_parameters, trained_names

_SAVED_OTHERWISE = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


def save_gates_only(accelerator: Accelerator) -> None:
    """From now on, ``accelerator.save_state`` saves what trains of each model: after ``freeze_backbone``, the gates.

    ``accelerator.load_state`` resumes from it, optimizers included, if the models were made as before: with the same
    weights of the backbone. Call this once, before either.

    Raises ``InvalidArgumentError`` where Accelerate saves in another way: with FSDP, DeepSpeed and Megatron.

    >>> save_gates_only(Accelerator(cpu=True))
    """

    if accelerator.distributed_type in _SAVED_OTHERWISE:
        raise InvalidArgumentError(
            f"with {accelerator.distributed_type.value}, Accelerate saves models in another way: leave this out and"
            " call se_inject.save_gates(model, path) in every process"
        )

    def save(models: list[nn.Module], weights: list[Any], folder: str) -> None:
        networks = [accelerator.unwrap_model(model) for model in models]
        for network in networks:
            gate_parameters(network)  # raises, before any file is written, where there are none
        for number, network in enumerate(networks):
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
