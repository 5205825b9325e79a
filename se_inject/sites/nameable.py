"""Which modules below one a forward could call that cannot be followed: those that its code can name."""

import types
from collections.abc import Iterator

from torch import nn

from ..source.functions import closed_over, functions_in, names_in

_GENERIC = frozenset(
    "getattr attrgetter vars __dict__ _modules children modules named_children named_modules get_submodule".split()
)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def nameable(module: nn.Module) -> Iterator[nn.Module]:
    """The modules below ``module`` that its methods, and the functions that these call, have the names for.

    Items of containers need no name. All modules below, where code asks for attributes whose names it computes.

    >>> class Outer(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.inner = nn.Sequential(nn.ReLU())
    ...     def forward(self, x):
    ...         return self.inner(x)
    >>> len(list(nameable(Outer()))), len(list(nameable(nn.Sequential(Outer()))))
    (2, 1)
    """
    names = _names_in(type(module))
    for path, child in module.named_modules():
        if path and (names & _GENERIC or all(part in names for part in _named_parts(module, path))):
            yield child


def _named_parts(module: nn.Module, path: str) -> Iterator[str]:
    """The parts of a path that are names of attributes, not keys of containers."""
    for part in path.split("."):
        if not isinstance(module, _CONTAINERS):
            yield part
        module = module.get_submodule(part)


def _names_in(cls: type[nn.Module]) -> set[str]:
    """The names in the code of a class's methods, but for those that build it, and of functions that they use."""
    bases = [base for base in cls.__mro__ if not base.__module__.startswith("torch.nn.")]
    todo = [value for base in bases for name, value in vars(base).items() if name != "__init__"]
    names: set[str] = set()
    seen: set[int] = set()
    while todo:
        value = todo.pop()
        for function in functions_in(getattr(value, "fget", getattr(value, "__func__", value))):
            if id(function) not in seen and not (function.__module__ or "").startswith("torch."):
                seen.add(id(function))
                own = set(names_in(function.__code__))
                names |= own
                used = [function.__globals__[name] for name in own & function.__globals__.keys()]
                todo += (v for v in (*used, *closed_over(function)) if not isinstance(v, type | types.ModuleType))
    return names
