"""Accelerate's engine, as ``accelerate launch``, ``torchrun`` or a plain ``python`` set this process up."""

from typing import Literal

import torch
from accelerate import Accelerator

from ..errors import SettingsError

Precision = Literal["no", "fp16", "bf16"]


def make_accelerator(precision: Precision = "no") -> Accelerator:
    """The engine on this process's device, which computes in ``precision`` where that is safe.

    Raises ``SettingsError`` if the device cannot train in that precision, or the process has begun with another.

    >>> make_accelerator().num_processes
    1
    """
    # without cpu=True, several processes on machines without a GPU would each train alone
    cpu = not torch.accelerator.is_available()
    if cpu and precision == "fp16":
        raise SettingsError("mixed_precision=fp16 needs a GPU; on a CPU there is bf16")
    try:
        return Accelerator(mixed_precision=precision, cpu=cpu)
    except ValueError as error:
        raise SettingsError(f"mixed_precision={precision}: {error}") from error
