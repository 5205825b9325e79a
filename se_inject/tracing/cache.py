"""Telling equal blocks apart from different ones, so that each kind of block is traced once."""

from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from .module_proxies import MODULE_INTERNALS, own_state


class Fingerprints:
    """Numbers for modules: equal numbers mean that tracing them gives equal graphs.

    >>> fingerprints = Fingerprints()
    >>> [fingerprints.of(nn.Conv2d, vars(nn.Conv2d(3, channels, 1))) for channels in (8, 9, 8)]
    [0, 1, 0]
    """

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._of_module: dict[nn.Module, int] = {}

    def of(self, module_class: type[nn.Module], state: dict[str, Any]) -> int:
        """The number of a module of that class with the attributes ``state``."""
        plain = tuple([(name, _freeze(value)) for name, value in state.items() if name not in MODULE_INTERNALS])
        tensors = tuple(
            [
                (name, None if tensor is None or is_lazy(tensor) else (tensor.shape, tensor.dtype))
                for name, tensor in (*state["_parameters"].items(), *state["_buffers"].items())
            ]
        )
        children = tuple(
            [(name, None if child is None else self._of_child(child)) for name, child in state["_modules"].items()]
        )
        # Two children that are one module are traced under one name.
        below = [module for child in state["_modules"].values() if child is not None for module in child.modules()]
        first: dict[nn.Module, int] = {}
        again = tuple(first.setdefault(module, i) for i, module in enumerate(below))
        key = (module_class, plain, tensors, children, again)
        return self._numbers.setdefault(key, len(self._numbers))

    def _of_child(self, module: nn.Module) -> int:
        if module not in self._of_module:
            self._of_module[module] = self.of(type(module), own_state(module))
        return self._of_module[module]


def _freeze(value: Any) -> Any:
    """What a forward could tell apart: the exact number, or else the very object."""
    kind = type(value)
    if kind in (list, tuple):
        return (kind, *map(_freeze, value))
    if kind is dict:
        return (kind, *((_freeze(k), _freeze(v)) for k, v in value.items()))
    if kind is float:
        return kind, value.hex()  # 0.0 == -0.0
    return (kind, value) if kind in (str, int, bool, bytes, type(None)) else id(value)
