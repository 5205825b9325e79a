"""Attributes and items, as an instrumented forward gets and sets them: nothing real is written."""

import functools
import inspect
import types
from abc import ABC, abstractmethod
from typing import Any

from torch import nn
from torch.nn.modules.container import ModuleDict, ModuleList

from .module_proxies import is_shadow
from .reachable import is_library
from .value_proxy import Value
from .ways import TRAINING

_MISSING = object()
_WHAT_A_CLASS_IS = frozenset("__name__ __qualname__ __mro__ __bases__ __base__ __dict__ mro".split())


class _Places(ABC):
    """What an object holds under keys; of what is changed in place, a copy."""

    __slots__ = ("_is_changed", "_owner", "_run")

    def __init__(self, run: Any, owner: Any, is_changed: bool = False) -> None:
        self._run = run
        self._owner = owner
        self._is_changed = is_changed

    def __getitem__(self, index: Any) -> Any:
        value = self._get(index)
        return self._run.augmented(value) if self._is_changed else value

    @abstractmethod
    def _get(self, index: Any) -> Any: ...


class Attributes(_Places):
    """The attributes of one object, by name."""

    def _get(self, name: str) -> Any:
        run, owner = self._run, self._owner
        if isinstance(owner, Value):
            return run.class_of(owner) if name == "__class__" else getattr(owner, name)
        if is_shadow(owner):
            return self._of_shadow(name)
        if name in _WHAT_A_CLASS_IS:
            run.note_classes(owner)
        if type(owner) is super:
            value = getattr(owner, name)
            return run.bind(value, name, True) if isinstance(value, types.MethodType) else run.own(value)
        written = run.overlaid(owner, name)
        if written is not None:
            return written[1]
        value = getattr(owner, name)
        return value if isinstance(owner, types.ModuleType) and callable(value) else run.held(value)

    def _of_shadow(self, name: str) -> Any:
        run, shadow = self._run, self._owner
        attributes = vars(shadow)
        path, cls = attributes.get("_se_path"), attributes.get("_se_class", type(shadow))
        if name == "__class__":
            return run.class_of(shadow)
        if name == "__dict__":
            return {key: value for key, value in attributes.items() if not key.startswith("_se_")}
        run.reads.add((path, name))
        if name == "training":
            return run.paths.choose(f"{TRAINING}{path}", first=attributes["training"])
        if (path, name) in run.unsettled and (path, name) not in run.writes and not _holds_state(attributes, name):
            return run.unknown()
        if name not in attributes and not _holds_state(attributes, name):
            written = next(filter(None, (run.overlaid(base, name) for base in cls.__mro__)), None)
            if written is not None:
                return written[1]
            found = inspect.getattr_static(cls, name, _MISSING)
            if (get := _getter(cls, found)) is not None:
                return run.instrument(get[0], (*get[1], shadow, *get[2]), {})
            if isinstance(found, types.MemberDescriptorType):
                raise run.refuse(f"it reads {name} from __slots__; make {name} an ordinary attribute")
            if found is _MISSING:
                return self._missing(cls, name)
        value = run.own(getattr(shadow, name))
        if isinstance(value, types.MethodType) and value.__self__ is type(shadow):
            value = types.MethodType(value.__func__, run.class_of(shadow))  # of the class
        if path == "" and isinstance(value, types.MethodType) and name not in attributes:
            run.bind(value, name, False)
        return value

    def _missing(self, cls: type, name: str) -> Any:
        """What the author's ``__getattr__`` makes of a name that a module does not have."""
        get = inspect.getattr_static(cls, "__getattr__", None)
        if isinstance(get, types.FunctionType) and get is not nn.Module.__getattr__:
            return self._run.instrument(get, (self._owner, name), {})
        error = AttributeError(f"{cls.__name__!r} object has no attribute {name!r}")
        self._run.missing.append(error)
        raise error

    def __setitem__(self, name: str, value: Any) -> None:
        run, owner = self._run, self._owner
        if isinstance(owner, Value):
            setattr(owner, name, value)
        elif is_shadow(owner):
            attributes = vars(owner)
            found = inspect.getattr_static(attributes.get("_se_class", type(owner)), name, None)
            if isinstance(found, property) and isinstance(found.fset, types.FunctionType):
                run.instrument(found.fset, (owner, value), {})
                return
            run.writes.add((attributes.get("_se_path"), name))
            places = [attributes[key] for key in ("_parameters", "_buffers", "_modules")]
            next((place for place in places if name in place), attributes)[name] = value
        else:
            run.overlay(owner, name, value)

    def __delitem__(self, name: str) -> None:
        if is_shadow(self._owner):
            self._run.writes.add((vars(self._owner).get("_se_path"), name))
            vars(self._owner).pop(name, None)


def _getter(cls: type, found: Any) -> tuple[types.FunctionType, tuple[Any, ...], tuple[Any, ...]] | None:
    """The author's function behind an attribute of a class, and its arguments before and after the object."""
    if isinstance(found, property | functools.cached_property):
        function = found.fget if isinstance(found, property) else found.func
        return (function, (), ()) if isinstance(function, types.FunctionType) else None
    get = inspect.getattr_static(type(found), "__get__", None)
    is_authors = isinstance(get, types.FunctionType) and not is_library(get.__module__)
    return (get, (found,), (cls,)) if is_authors else None


def _holds_state(attributes: dict[str, Any], name: str) -> bool:
    return any(name in attributes[key] for key in ("_parameters", "_buffers", "_modules"))


class Items(_Places):
    """The items of one object, by index or key."""

    def _get(self, index: Any) -> Any:
        run, owner = self._run, self._owner
        run.note_classes(index)
        if isinstance(owner, Value):
            return owner[index]
        if isinstance(index, Value):
            return self._any_of(index)
        return run.own(owner[index])

    def _any_of(self, index: Value) -> Any:
        """The item under an index that only a real input tells: each of them is tried."""
        run, owner = self._run, self._owner
        if isinstance(owner, dict | ModuleDict):
            keys = list(owner)
        elif isinstance(owner, list | tuple | ModuleList | nn.Sequential):
            keys = list(range(len(owner)))
        else:
            raise run.refuse("it looks up an item by a value that is known only at run time")
        if not any(callable(owner[key]) for key in keys):
            return run.unknown()
        for key in keys[:-1]:
            if run.paths.choose(f"{index.node.name} is {key!r}"):
                return run.own(owner[key])
        return run.own(owner[keys[-1]])

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(self._owner, Value) or self._run.shadows.is_own(self._owner):
            self._owner[index] = value

    def __delitem__(self, index: Any) -> None:
        if self._run.shadows.is_own(self._owner):
            del self._owner[index]


class Keywords(dict[str, Any]):
    """The ``**kwargs`` of the forward itself: whether there is one of a name is explored."""

    _se_is_stand_in = True

    def __init__(self, run: Any) -> None:
        super().__init__()
        self._run = run

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or bool(self._run.expect(f"there is an argument {name}", False))

    def __bool__(self) -> bool:
        return bool(self._run.paths.choose("there are keyword arguments", first=False))

    def __len__(self) -> int:
        return super().__len__() or int(bool(self))

    def __iter__(self) -> Any:
        raise self._run.refuse("it iterates over its keyword arguments; read them by name")

    keys = values = items = __iter__  # type: ignore[assignment]

    def __getitem__(self, name: str) -> Any:
        if not super().__contains__(name):
            super().__setitem__(name, self._run.create_proxy("placeholder", name, (), {}))
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """As of any dict."""
        return self[name] if name in self else default  # noqa: SIM401 - this asks

    def pop(self, name: str, default: Any = None) -> Any:
        """What ``get`` returns."""
        return self.get(name, default)
