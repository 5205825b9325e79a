"""Shadows: stand-ins for a block and its children, on which a forward runs; what it does becomes nodes of a graph."""

import functools
import inspect
import keyword
import operator
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn

from .bytecode import CHANGES_MODE
from .frames import is_unpacking
from .paths import Paths, unknown
from .proxy import UntraceableError, Value
from .standin import MODULE_INTERNALS, shadow_class
from .watch import is_same, snapshot

_UNWATCHED = MODULE_INTERNALS - {"_modules", "_parameters", "_buffers"} | {"_se_tracer", "_se_path"}


class _Lazy(dict[str, Any]):
    """Children or parameters of a shadow: stand-ins for the real ones, made when they are asked for."""

    def __init__(self, real: dict[str, Any], make: Callable[[str, Any], Any]) -> None:
        super().__init__(real)
        self._make = functools.cache(make)

    def __getitem__(self, key: str) -> Any:
        real = super().__getitem__(key)
        return None if real is None else self._make(key, real)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401 - that would get the real one

    def values(self) -> Any:
        return [self[key] for key in self]

    def items(self) -> Any:
        return [(key, self[key]) for key in self]


class ShadowTracer(fx.Tracer):
    """Makes shadows, and notes what is called on them, read and written."""

    def __init__(self, state: dict[str, Any], paths: Paths | None) -> None:
        super().__init__()
        self._state = state
        self.paths = paths
        self.graph = fx.Graph()
        self.reads: set[tuple[str, str]] = set()
        self.refusal: str | None = None
        self._modes = _torch_modes()
        self._handed_over: dict[int, Any] = {}  # containers that children got and may have kept or changed
        self._shadows: dict[int, tuple[nn.Module, dict[str, Any]]] = {}  # by the id of the real attributes

    def shadow(self, path: str | None, module_class: type[nn.Module], state: dict[str, Any]) -> nn.Module:
        """A stand-in for a module of that class with those attributes."""
        if id(state) in self._shadows:
            return self._shadows[id(state)][0]
        prefix = f"{path}." if path else ""
        shadow: nn.Module = object.__new__(shadow_class(module_class))  # type: ignore[arg-type]
        attributes = vars(shadow)
        self._shadows[id(state)] = shadow, attributes
        for name, value in state.items():
            attributes[name] = self._plain(value) if name not in MODULE_INTERNALS else _copied(value)

        def child(name: str, real: nn.Module) -> nn.Module:
            return self.shadow(None if path is None else prefix + name, type(real), vars(real))

        def tensor(name: str, real: Any) -> Any:
            return self.tensor(path, name)

        attributes["_modules"] = _Lazy(state["_modules"], child)
        attributes["_parameters"] = _Lazy(state["_parameters"], tensor)
        attributes["_buffers"] = _Lazy(state["_buffers"], tensor)
        self._shadows[id(state)] = (
            shadow,
            {name: snapshot(value) for name, value in attributes.items() if name not in _UNWATCHED},
        )
        attributes["_se_tracer"] = self
        attributes["_se_path"] = path
        return shadow

    def tensor(self, path: str | None, name: str) -> fx.Proxy:
        """The value of a tensor that a module holds; tied ones keep their names, as they may be untied."""
        if path is None:
            raise self.refuse("it uses a module that is not among its children")
        return self.create_proxy("get_attr", f"{path}.{name}" if path else name, (), {})

    @functools.cached_property
    def _paths(self) -> dict[nn.Module, str]:
        children = {name: child for name, child in self._state["_modules"].items() if child is not None}
        return {module: path for name, child in children.items() for path, module in child.named_modules(prefix=name)}

    def _plain(self, value: Any) -> Any:
        """A plain attribute, with shadows for modules that it holds: a call of a real one would change the model."""
        if isinstance(value, Iterator):
            return _Unread()  # nothing can put it back
        if isinstance(value, nn.Module):
            is_complete = "_modules" in vars(value)  # not so while a back reference is unpickled
            return self.shadow(self._paths.get(value), type(value), vars(value)) if is_complete else value
        if type(value) in (list, tuple, set, deque):
            return type(value)(map(self._plain, value))
        if isinstance(value, dict):
            shallow = value.copy()
            shallow.update((key, self._plain(item)) for key, item in value.items())
            return shallow
        if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
            return _refuse_bound_method
        return value

    def refuse(self, reason: str) -> UntraceableError:
        """The error to raise; it is noted too, as the forward may catch it."""
        self.refusal = self.refusal or reason
        return UntraceableError(reason)

    def call(self, path: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note the call of a child."""
        if path is None:
            raise self.refuse("it calls a module that is not among its children")
        called = self.create_proxy("call_module", path, args, kwargs)
        self._handed_over |= {id(a): a for a in (*args, *kwargs.values()) if type(a) in (list, dict)}
        return called

    def placeholder(self, parameter: inspect.Parameter, fixed: dict[str, Any]) -> Any:
        """The value that forward gets for an argument."""
        default = () if parameter.default is parameter.empty else (parameter.default,)
        value = self.create_proxy("placeholder", parameter.name, default, {})
        return fixed.get(parameter.name, value)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A value of the graph."""
        return Value(node, self)

    def create_arg(self, a: Any) -> Any:
        """What stands in the graph for an argument of a call."""
        if isinstance(a, fx.Proxy):
            return a.node
        if isinstance(a, torch.Tensor):
            if self.paths is None:
                raise self.refuse("it creates a tensor that tracing would freeze")
            return self.create_node("call_function", unknown, (), {})
        if self.paths is None and isinstance(a, dict) and type(a) is not dict:
            raise self.refuse(f"it makes a {type(a).__name__}, which a graph would not keep")
        if self.paths is None and id(a) in self._handed_over and (not a or _holds_values(a)):
            raise self.refuse("it uses a list or dictionary again that a child got, and may have changed")
        if isinstance(a, nn.Module):
            raise self.refuse("it passes a module to a function, as for checkpointing")
        return super().create_arg(a)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Where a branch goes."""
        if self.paths is not None:
            return self.paths.choose()
        raise self.refuse("it branches on a value (data-dependent control flow)")

    def iter(self, obj: fx.Proxy) -> Any:
        """The items of an unpacked value."""
        if self.paths is not None and is_unpacking(sys._getframe(2)):
            return self.unpack(obj)
        try:
            return super().iter(obj)  # knows "a, b = x"
        except fx.proxy.TraceError as error:
            raise self.refuse("it loops over a value (data-dependent control flow)") from error

    def unpack(self, obj: fx.Proxy) -> Iterator[fx.Proxy]:
        """The items of ``*size`` in a call: any number of them does, as long as they only tell a shape."""
        for index in range(2):
            item = self.create_proxy("call_function", operator.getitem, (obj, index), {})
            item.node.meta["shape_only"] = True
            yield item

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """A node, unless it depends on a mode of torch that a graph does not hold."""
        if self.paths is None and _torch_modes() != self._modes:
            raise self.refuse(CHANGES_MODE)
        node = super().create_node(*args, **kwargs)
        if self.paths is None and node.kwargs.get("out") is not None:
            raise self.refuse("it writes into a value (out=), which a graph does not show")
        named = str(node.target).split(".") if node.op in ("call_module", "get_attr") else []
        if self.paths is None and any(map(keyword.iskeyword, named)):
            raise self.refuse(f"it uses {node.target}, a name with a word of Python's own")
        return node

    def put_back_writes(self) -> list[str]:
        """The attributes that the forward wrote; objects that shadows share with the real modules are put back."""
        written = []
        for shadow, before in self._shadows.values():
            after = vars(shadow)
            names = [n for n in after.keys() - _UNWATCHED if n not in before or not is_same(after[n], before[n])]
            written += [".".join(filter(None, ("self", after.get("_se_path"), name))) for name in names]
        return sorted(written)


def _torch_modes() -> tuple[bool, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
    )


class _Unread:
    """Stands for an iterator."""

    def __iter__(self) -> "_Unread":
        return self

    def __next__(self) -> Any:
        raise UntraceableError("it reads from an iterator that it keeps as an attribute")


def _holds_values(container: Any) -> bool:
    return any(
        isinstance(item, fx.Proxy) for item in (container.values() if isinstance(container, dict) else container)
    )


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, dict | set) else value


def _refuse_bound_method(*args: Any, **kwargs: Any) -> Any:
    raise UntraceableError("it calls a bound method that it keeps as an attribute")
