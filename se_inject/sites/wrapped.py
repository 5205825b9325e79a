"""Models that are wrapped, compiled or scripted already, where surgery would come too late."""

import torch
from torch import nn

from ..errors import NotAModuleError, WrappedModelError


def check_model(model: object) -> None:
    """Raise unless ``model`` is a module that is neither wrapped nor compiled nor scripted.

    >>> check_model(nn.ReLU())
    """
    if not isinstance(model, nn.Module):
        what = (
            f"the class {model.__name__}; make an instance first" if isinstance(model, type) else type(model).__name__
        )
        raise NotAModuleError(f"model must be a torch.nn.Module, got {what}")
    if is_wrapped(model):
        raise WrappedModelError(
            f"the model is already wrapped or compiled ({type(model).__name__}): apply first, then wrap."
            " Call se_inject.apply on the module inside, before DDP, FSDP, DataParallel, torch.compile or torch.jit"
        )


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
