"""The tensors of a model, and the values that these can take."""

import torch
from torch import Tensor, nn

from ..errors import InvalidArgumentError


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and persistent buffers of a module itself: what a state dict has of it, whatever hooks make of it.

    >>> list(own_tensors(nn.BatchNorm2d(8)))
    ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
    """
    passing = getattr(module, "_non_persistent_buffers_set", ())  # a scripted module does not tell
    buffers = dict(module.named_buffers(recurse=False, remove_duplicate=False))
    parameters = dict(module.named_parameters(recurse=False, remove_duplicate=False))
    return parameters | {name: buffer for name, buffer in buffers.items() if name not in passing}


def check_writable(tensor: Tensor, name: str) -> None:
    """Raise if numbers of a model's tensor are one in memory, so that no values can be written into it.

    >>> check_writable(torch.ones(3), "scale")
    """
    if any(step == 0 and size > 1 for size, step in zip(tensor.shape, tensor.stride(), strict=True)):
        raise InvalidArgumentError(f"{name} of the model is expanded, without memory of its own: make it contiguous()")


def cast(value: Tensor, like: Tensor, name: str, error: type[Exception]) -> Tensor:
    """A copy of a value in the dtype of the model's tensor, on the value's device; ``error`` if it is too large for it.

    >>> cast(torch.ones(2), torch.ones(2, dtype=torch.half), "bias", InvalidArgumentError).dtype
    torch.float16
    """
    fitting = value.detach().to(like.dtype, copy=True)
    if not torch.equal(fitting.isfinite(), value.isfinite()):
        raise error(f"{name} has values that are too large for the model's {like.dtype}")
    return fitting
