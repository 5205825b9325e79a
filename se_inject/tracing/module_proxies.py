"""Shadows: stand-ins for a block and the modules below it, made when they are asked for."""

import copy
import functools
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn

from ..source.subclass import QuietSubclass, quiet_class
from .lazy import Lazy

# Attributes that every module has; forward code does not branch on them, but for ``training``.
MODULE_INTERNALS = frozenset(vars(nn.Module())) - {"training"}


class Shadows:
    """The stand-ins of one run, by the modules that they stand for."""

    def __init__(self, run: Any, block: nn.Module, state: dict[str, Any]) -> None:
        self._run = run
        self._block = block
        self._state = state
        self.is_quiet = False  # while parameters are listed, among which a gate's may be
        self._made: dict[int, tuple[Any, Any]] = {}  # what was seen, which stays alive, and what stands for it

    def root(self, block_class: type[nn.Module]) -> Any:
        """The stand-in for the block itself."""
        return self._make(self._block, "", block_class, self._state)

    @functools.cached_property
    def _paths(self) -> dict[nn.Module, str]:
        children = {name: child for name, child in self._state["_modules"].items() if child is not None}
        return {module: path for name, child in children.items() for path, module in child.named_modules(prefix=name)}

    def class_at(self, node: fx.Node) -> str | None:
        """The class of the module that a node calls."""
        module = self._block.get_submodule(str(node.target)) if node.op == "call_module" else None
        return None if module is None else f"{type(module).__module__}.{type(module).__qualname__}"

    def of(self, module: nn.Module) -> Any:
        """The stand-in for a module, which calls itself by its path below the block, or by none."""
        if id(module) in self._made:
            return self._made[id(module)][1]
        if "_modules" not in vars(module):  # a back reference that is being unpickled
            return module
        return self._make(module, self._paths.get(module), type(module), own_state(module))

    def _make(self, module: nn.Module, path: str | None, module_class: type[nn.Module], state: dict[str, Any]) -> Any:
        shadow: Any = object.__new__(shadow_class(module_class))  # type: ignore[arg-type]
        attributes = vars(shadow)
        attributes.update(_se_run=self._run, _se_path=path, _se_class=module_class)
        self._made[id(module)] = module, shadow  # before its attributes, which may lead back to it
        for name, value in state.items():
            if name in ("_parameters", "_buffers"):
                attributes[name] = Lazy(value, lambda name, _: self._run.tensor(path, name), lambda: None)
            elif name == "_modules":
                attributes[name] = Lazy(
                    value, lambda _, child: self.of(child), lambda: self.is_quiet or self._run.note_walk(path)
                )
            elif isinstance(value, torch.Tensor):
                attributes[name] = self._run.tensor(path, name)
            elif name in MODULE_INTERNALS:
                attributes[name] = _copied(value)
            else:
                attributes[name] = self.held(value)
        return shadow

    def held(self, value: Any) -> Any:
        """``own`` for what was there before the run: an iterator is not read, as nothing could put it back."""
        return (self._run.unknown() for _ in range(2)) if isinstance(value, Iterator) else self.own(value)

    def own(self, value: Any) -> Any:
        """A value as the run may hold it: with stand-ins for modules, copies of containers, unknown tensors."""
        if isinstance(value, nn.Module):
            return value if is_shadow(value) else self.of(value)
        if isinstance(value, torch.Tensor):
            return self._run.unknown()
        kind = type(value)
        if kind in (tuple, *CONTAINERS):
            return self._own_container(value)
        if isinstance(value, CONTAINERS) and not hasattr(kind, "_se_is_stand_in"):
            return self._copy(value)
        if kind is types.MethodType and isinstance(value.__self__, nn.Module):
            return types.MethodType(value.__func__, self.own(value.__self__))
        if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
            return self._remember(value, value.copy)
        return value

    def _own_container(self, value: Any) -> Any:
        if id(value) in self._made:
            return self._made[id(value)][1]
        if isinstance(value, dict):
            made = self._remember(value, value.copy)
            for key, item in dict.items(value):
                dict.__setitem__(made, key, self.own(item))
            return made
        items = [self.own(item) for item in value]
        return self._remember(value, lambda: type(value)(items))

    def _copy(self, value: Any) -> Any:
        """A container of a class of its own, which is copied as its class has it."""
        try:
            return self._remember(value, lambda: copy.copy(value))
        except Exception:  # whatever the class does
            return value

    def is_own(self, container: Any) -> bool:
        """Whether a container is the run's own, which may be written into."""
        is_copy = id(container) in self._made and self._made[id(container)][1] is container
        return type(container) in CONTAINERS or is_copy

    def _remember(self, value: Any, make: Callable[[], Any]) -> Any:
        if id(value) not in self._made:
            made = make()
            self._made[id(value)] = value, made
            self._made[id(made)] = made, made
        return self._made[id(value)][1]


def own_state(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module; of one that is scripted or compiled, which keeps them elsewhere, none."""
    is_plain = not isinstance(module, torch.jit.ScriptModule) and "training" in vars(module)
    return vars(module) if is_plain else vars(nn.Module())


# Exactly these: what others make of their subclasses is theirs.
CONTAINERS = (list, set, deque, dict, OrderedDict, defaultdict)


@functools.lru_cache(maxsize=512)
def shadow_class(module_class: Any) -> type[nn.Module]:
    """The class of stand-ins for modules of a class.

    >>> shadow_class(nn.ReLU).__mro__[2]
    <class 'torch.nn.modules.activation.ReLU'>
    """
    if issubclass(module_class, torch.jit.ScriptModule):
        module_class = nn.Module  # it cannot be extended; only calling it works
    # A held normalization layer, for one, has the base already.
    bases = (module_class,) if issubclass(module_class, QuietSubclass) else (QuietSubclass, module_class)
    cls: type[nn.Module] = quiet_class(
        "Shadow", bases, {"__call__": _call, "__module__": __name__, "_se_is_shadow": True}
    )
    return cls


def _call(self: Any, *args: Any, **kwargs: Any) -> Any:
    run = vars(self).get("_se_run")
    if run is not None:
        return run.call_shadow(self, args, kwargs)
    # A part of a Sequential, made by the forward, which runs its children.
    run = next(vars(child)["_se_run"] for child in self._modules.values())
    return run.instrument(type(self).forward, (self, *args), kwargs)


def is_shadow(value: Any) -> bool:
    """Whether a value is a stand-in for a module.

    >>> is_shadow(nn.ReLU())
    False
    """
    return isinstance(value, nn.Module) and hasattr(type(value), "_se_is_shadow")


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, dict | set) else value
