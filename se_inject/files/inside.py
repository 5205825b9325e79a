"""The modules and tensors of a model by the names that they have without wrappers around them."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import InvalidArgumentError, NotAModuleError, WrappedModelError
from ..graphs.traced import is_program
from ..sites.qualified_names import join
from ..sites.wrapped import check_not_optimized
from ..surgery.values import own_tensors
from ..training import gates

# By name, as importing what defines them would cost seconds.
_WRAPPERS = {
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "timm.utils.model_ema.ModelEmaV2": "module",
    "timm.utils.model_ema.ModelEmaV3": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper": "_checkpoint_wrapped_module",
}
_REFUSED = {
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": (
        "the model is wrapped in FullyShardedDataParallel, whose weights are flat: use fully_shard"
    ),
    "peft.peft_model.PeftModel": (
        "the model is one of PEFT: save its adapters with its own save_pretrained, or call merge_and_unload() first"
    ),
}


class Inside(NamedTuple):
    """What a model holds: its gates and its other tensors that a state dict has, each by its name."""

    model: nn.Module  # without wrappers
    gates: dict[str, nn.Module]
    also: dict[str, list[str]]  # the other names of gates
    base: dict[str, Tensor]


def inside(model: object) -> Inside:
    """Look into a model, through wrappers.

    Raises ``NotAModuleError``, and ``WrappedModelError`` where the tensors are not those of the model.

    >>> list(inside(nn.DataParallel(nn.Linear(2, 2))).base)
    ['weight', 'bias']
    """
    if not isinstance(model, nn.Module):
        advice = ": use the model that it was exported from" if is_program(model) else ""
        raise NotAModuleError(f"model must be a torch.nn.Module, got {type(model).__name__}{advice}")
    if isinstance(model, torch.jit.ScriptModule):
        raise WrappedModelError("the model is scripted or traced by torch.jit: use the model that it was made from")
    check_not_optimized(model)
    named = list(_modules(model, ""))
    names: dict[nn.Module, list[str]] = {}
    for name, module in named:
        names.setdefault(module, []).append(name)
    found, also = {}, {}
    for path, gate in gates(model):
        if gate not in names:
            raise WrappedModelError(f"{path}: is beside the model that a wrapper holds: save or load that by itself")
        first, *others = names[gate]
        found[first], also[first] = gate, others
    of_gates = {tensor for gate in found.values() for tensor in tensors_of(gate).values()}
    base = {
        join(path, name): tensor
        for path, module in named
        for name, tensor in own_tensors(module).items()
        if tensor not in of_gates
    }
    lazy = next((name for name, tensor in base.items() if is_lazy(tensor)), None)
    if lazy is not None:
        raise InvalidArgumentError(f"{lazy} is lazy and has no shape: run the model once")
    return Inside(named[0][1], found, also, base)


def tensors_of(gate: nn.Module) -> dict[str, Tensor]:
    """The tensors of a gate, by their names in it.

    >>> list(tensors_of(nn.Linear(2, 2)))
    ['weight', 'bias']
    """
    named = _modules(gate, "")
    return {join(path, name): tensor for path, module in named for name, tensor in own_tensors(module).items()}


def digest(tensors: dict[str, Tensor]) -> str:
    """A checksum of names and values.

    >>> digest({"weight": torch.zeros(2)}) == digest({"weight": torch.zeros(2, dtype=torch.half)})
    False
    """
    sum_of_all = hashlib.sha256()
    for name in sorted(tensors):
        tensor = whole(tensors[name])
        sum_of_all.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sum_of_all.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sum_of_all.hexdigest()


def whole(tensor: Tensor) -> Tensor:
    """A tensor's values in memory of their own, gathered where they are sharded.

    >>> whole(torch.ones(2, requires_grad=True))
    tensor([1., 1.])
    """
    tensor = tensor.detach()
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    return tensor.to("cpu", copy=True).contiguous()


def _modules(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """A module and all below, by names in which wrappers do not stand; one with two names comes twice."""
    classes = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(module).__mro__]
    why = next((_REFUSED[name] for name in classes if name in _REFUSED), None)
    if why is not None:
        raise WrappedModelError(why)
    wrapped = _WRAPPERS.get(classes[0])
    if wrapped is not None:
        yield from _modules(getattr(module, wrapped), path)
        return
    yield path, module
    for name, child in module._modules.items():
        if child is not None:
            yield from _modules(child, join(path, name))
