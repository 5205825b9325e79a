"""Models that are wrapped, compiled or scripted already, where surgery would come too late."""

import torch
from torch import nn

from ..errors import NotAModuleError, WrappedModelError
from ..gate.folding import ForInference
from ..graphs.traced import Program, is_program


def as_module(model: object, function: str = "apply") -> nn.Module:
    """The model, or an exported program as a module; raises where it is none, or wrapped, compiled or scripted.

    ``function`` of se_inject is what the user is to call before.

    >>> as_module(nn.ReLU())
    ReLU()
    """
    if is_program(model):
        return Program(model)  # type: ignore[arg-type]
    if not isinstance(model, nn.Module):
        what = (
            f"the class {model.__name__}; make an instance first" if isinstance(model, type) else type(model).__name__
        )
        raise NotAModuleError(f"model must be a torch.nn.Module, got {what}")
    if isinstance(model, torch.jit.ScriptModule):
        raise WrappedModelError(
            f"the model is scripted or traced by torch.jit ({type(model).__name__}): {function} first, then wrap."
            f" Call se_inject.{function} on the model that it was made from, then script or trace that"
        )
    if is_wrapped(model):
        raise WrappedModelError(
            f"the model is already wrapped or compiled ({type(model).__name__}): {function} first, then wrap."
            f" Call se_inject.{function} on the module inside, before DDP, FSDP, DataParallel or torch.compile"
        )
    check_not_optimized(model)
    return model


def check_not_optimized(model: nn.Module) -> None:
    """Raise if a model is a copy for inference.

    >>> check_not_optimized(nn.ReLU())
    """
    if any(isinstance(module, ForInference) for module in model.modules()):
        raise WrappedModelError("the model is a copy that se_inject.optimize made: use the model that it was made from")


_WRAPPERS = {
    "torch.nn.parallel.distributed": "DistributedDataParallel",
    "torch.nn.parallel.data_parallel": "DataParallel",
    "torch.distributed.fsdp.fully_sharded_data_parallel": "FullyShardedDataParallel",
    "torch.distributed.fsdp": "FSDPModule",
    "torch._dynamo.eval_frame": "OptimizedModule",
}


def is_wrapped(module: nn.Module) -> bool:
    """Whether a module is a wrapper of another one, compiled or scripted.

    >>> is_wrapped(nn.DataParallel(nn.ReLU())), is_wrapped(nn.ReLU())
    (True, False)
    """
    if module._compiled_call_impl is not None or isinstance(module, torch.jit.ScriptModule):
        return True
    # By name, as importing FSDP or dynamo would cost seconds.
    return any(_WRAPPERS.get(cls.__module__) == cls.__name__ for cls in type(module).__mro__)
