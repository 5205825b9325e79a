"""What is no state dict, or holds no weights for a model."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import ArgumentTypeError, InvalidArgumentError, WrappedModelError
from ..sites.qualified_names import join
from ..surgery.values import cast, own_tensors


def check_state_dict(state_dict: object) -> None:
    """Raise unless it is a mapping of names to tensors.

    >>> check_state_dict({"state_dict": {"fc.bias": torch.zeros(1)}, "epoch": 3})
    Traceback (most recent call last):
    ...
    se_inject.errors.InvalidArgumentError: a checkpoint, not a state dict: pass its part ["state_dict"]
    """
    if not isinstance(state_dict, Mapping):
        advice = ""
        if isinstance(state_dict, nn.Module):
            advice = ": pass its state_dict()"
        elif isinstance(state_dict, str) or hasattr(state_dict, "__fspath__"):
            advice = ": read the file first, with safetensors.torch.load_file or torch.load(..., weights_only=True)"
        raise ArgumentTypeError(f"a state dict of tensors is needed, got {type(state_dict).__name__}{advice}")
    for key, value in state_dict.items():
        if isinstance(value, Mapping) and any(isinstance(part, Tensor) for part in value.values()):
            raise InvalidArgumentError(f'a checkpoint, not a state dict: pass its part ["{key}"]')
    for key, value in state_dict.items():
        if not isinstance(key, str):
            raise ArgumentTypeError(f"the names in a state dict are strings, got {key!r}")
        if not isinstance(value, Tensor):
            raise ArgumentTypeError(f"{key} is no tensor, but {type(value).__name__}: leave it out, or make it one")
        if is_lazy(value) or value.is_nested:
            raise InvalidArgumentError(f"{key} has no shape: it is not initialized, or a nested tensor")
        if key.rpartition(".")[2] == "identity_form":
            raise InvalidArgumentError(
                f"{key}: these gates are se_inject's of the identity form, not published ones: load_state_dict loads"
                " them into a model of that form"
            )


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and persistent buffers of a model, by their names there: what hooks make of these is none.

    >>> list(tensors_of(nn.Linear(3, 2)))
    ['weight', 'bias']
    """
    return {
        join(path, name): tensor if is_lazy(tensor) else tensor.detach()
        for path, module in model.named_modules(remove_duplicate=False)
        for name, tensor in own_tensors(module).items()
    }


def check_own(own: Mapping[str, Tensor]) -> None:
    """Raise unless these are tensors of a model that can be read and written one by one.

    >>> check_own(nn.Linear(3, 2).state_dict())
    """
    for key, value in own.items():
        if value.is_meta:
            raise InvalidArgumentError(
                f"{key} of the model is on the meta device, without values: build it on another one"
            )
        if type(value) is not Tensor:
            raise WrappedModelError(
                f"{key} of the model is a {type(value).__name__}: do this before the model is sharded or quantized"
            )


def as_value(value: Tensor, like: Tensor, key: str) -> Tensor:
    """``value`` as the model has it, or an error where its type would not survive.

    It has memory of its own, since it may be another tensor of the model.

    >>> as_value(torch.ones(4, 8, dtype=torch.float16), torch.empty(4, 8, 1, 1), "fc.weight").shape
    torch.Size([4, 8, 1, 1])
    """
    if value.is_meta:
        raise InvalidArgumentError(f"{key} is on the meta device, without values")
    if value.layout != torch.strided or value.is_quantized:
        raise InvalidArgumentError(f"{key} is quantized or sparse ({value.dtype}, {value.layout}): make it dense first")
    if not _fits(value, like):
        raise InvalidArgumentError(f"{key} is {value.dtype}, and the model has {like.dtype} there: convert it first")
    return cast(value, like, key, InvalidArgumentError).to(like.device).reshape(like.shape)


def _fits(value: Tensor, like: Tensor) -> bool:
    if like.is_floating_point() or like.is_complex():
        return value.is_floating_point() or (value.is_complex() and like.is_complex())
    if value.is_floating_point():  # a counter, where somebody made all of the state dict half precision
        return bool((value.double() == value.double().round()).all() and value.isfinite().all())
    return not value.is_complex()
