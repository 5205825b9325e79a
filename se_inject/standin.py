"""The class of a shadow: the module's own class, with calls noted and telling questions refused."""

import functools
import random
import sys
from typing import Any

import torch
from torch import nn

from .frames import is_in_call
from .subclass import QuietSubclass

# Attributes that every module has; forward code does not branch on them, but for ``training``.
MODULE_INTERNALS = frozenset(vars(nn.Module())) - {"training"}


@functools.lru_cache(maxsize=256)
def shadow_class(module_class: Any) -> type[nn.Module]:
    """The class of stand-ins for modules of a class; they hold their tracer and their path.

    >>> shadow_class(nn.ReLU).__mro__[2]
    <class 'torch.nn.modules.activation.ReLU'>
    """
    if issubclass(module_class, torch.jit.ScriptModule):
        module_class = nn.Module  # it cannot be extended; only calling it works

    # A held normalization layer, for one, has the base already.
    bases = (module_class,) if issubclass(module_class, QuietSubclass) else (QuietSubclass, module_class)

    class Shadow(*bases):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            attributes = object.__getattribute__(self, "__dict__")
            if name in _SPECIAL and "_se_tracer" in attributes:
                return _special(self, attributes["_se_tracer"], name, module_class)
            if name not in MODULE_INTERNALS and not name.startswith("__") and "_se_tracer" in attributes:
                tracer = attributes["_se_tracer"]
                tracer.reads.add((attributes["_se_path"], name))
                if name == "training" and tracer.paths is not None:
                    return tracer.paths.choose_always("training")
                value = attributes.get(name)
                if isinstance(value, torch.Tensor):  # a plain attribute
                    return tracer.tensor(attributes["_se_path"], name)
                if _is_random_generator(value):
                    raise tracer.refuse(f"it draws from a random generator of its own (self.{name})")
            return super().__getattribute__(name)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            attributes = object.__getattribute__(self, "__dict__")
            return attributes["_se_tracer"].call(attributes["_se_path"], args, kwargs)

    return Shadow


_SPECIAL = frozenset({"__class__", "__dict__", "forward"})


def _special(shadow: Any, tracer: Any, name: str, module_class: type[nn.Module]) -> Any:
    """What a shadow must not answer as the object that it is."""
    path = object.__getattribute__(shadow, "__dict__")["_se_path"]
    frame = sys._getframe(2)
    is_users = not frame.f_globals.get("__name__", "").startswith(("torch.", "se_inject."))
    if name == "__class__":
        if is_users and path != "" and not is_in_call(frame):  # isinstance asks too, and may: gates keep that true
            raise tracer.refuse("it asks for the class of a child, which a gate may change")
        return module_class
    if name == "__dict__":
        if is_users:
            raise tracer.refuse("it reads the __dict__ of a module")
        return object.__getattribute__(shadow, name)
    if path == "":
        return object.__getattribute__(shadow, name)
    if tracer.paths is None:
        raise tracer.refuse(f"it calls {path}.forward, which would leave out a gate in there")
    return lambda *args, **kwargs: tracer.call(path, args, kwargs)


def _is_random_generator(value: Any) -> bool:
    is_numpy = type(value).__module__.startswith("numpy.random")
    return is_numpy or isinstance(value, random.Random | torch.Generator)
