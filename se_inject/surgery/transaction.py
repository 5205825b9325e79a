"""Changing modules all or nothing, also where Ctrl-C falls in the middle."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, fx, nn

from ..graphs.traced import is_traced
from ..source.subclass import set_class


def change_all(
    modules: Iterable[nn.Module], changes: Iterable[Callable[[], object]], tensors: Iterable[Tensor] = ()
) -> None:
    """Make all changes to these modules, their children and the values of tensors, or, if one is interrupted, none.

    >>> model = nn.Sequential(nn.ReLU())
    >>> def interrupted():
    ...     del model[0]
    ...     raise KeyboardInterrupt
    >>> try:
    ...     change_all([model], [interrupted])
    ... except KeyboardInterrupt:
    ...     print(len(model))
    1
    """
    before = [_Snapshot(module) for module in modules]
    values = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        for change in changes:
            change()
    except BaseException:
        for snapshot in before:
            snapshot.restore()
        for tensor, value in values:
            write(tensor, value)
        raise


def write(tensor: Tensor, value: Tensor) -> None:
    """Give a parameter or a buffer other values, in place.

    >>> bias = nn.Parameter(torch.zeros(1))
    >>> write(bias, torch.ones(1))
    >>> bias.item(), bias.requires_grad
    (1.0, True)
    """
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        tensor.copy_(value)
    torch.clear_autocast_cache()  # which holds casts of what it was


class _Snapshot:
    """The class and attributes of a module, and of what is below a traced one, whose gates are put anywhere."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._class = type(module)
        containers = [child for child in module.children() if isinstance(child, nn.ModuleDict)]  # of gates, perhaps
        below = module.modules() if is_traced(module) else [module, *containers]
        self._attributes = [(m, dict(vars(m))) for m in below]
        parts = [part for m, _ in self._attributes for part in (m._modules, m._buffers)]
        self._parts = [(part, dict(part)) for part in parts]

    def restore(self) -> None:
        if isinstance(self._module, fx.GraphModule):
            vars(self._module)["_graph"] = self._attributes[0][1]["_graph"]
            self._module.recompile()  # its forward belongs to its class
        else:
            set_class(self._module, self._class)
        for module, attributes in self._attributes:
            vars(module).clear()
            vars(module).update(attributes)
        for part, before in self._parts:
            part.clear()
            part.update(before)  # type: ignore[arg-type]
