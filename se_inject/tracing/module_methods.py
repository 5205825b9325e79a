"""What a method of a block or a child means while a forward runs on stand-ins."""

import types
from collections.abc import Iterator
from typing import Any

_QUERIES = frozenset("parameters named_parameters buffers named_buffers state_dict".split())
_CASTS = frozenset("to cuda cpu float double half bfloat16 type requires_grad_ zero_grad compile share_memory".split())


def module_method(run: Any, shadow: Any, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a method of a stand-in returns."""
    name, path = getattr(function, "__name__", ""), vars(shadow).get("_se_path")
    is_torchs = getattr(function, "__module__", "") == "torch.nn.modules.module"
    if name in _QUERIES and is_torchs:
        run.shadows.is_quiet = True
        result = function(shadow, *args, **kwargs)
        result = iter(list(result)) if isinstance(result, Iterator) else result
        run.shadows.is_quiet = False
        return result
    if name in ("children", "named_children", "modules", "named_modules"):
        return iter(list(function(shadow, *args, **kwargs)))  # at once, to see from where they are walked through
    if name in _CASTS and is_torchs:
        return shadow
    cached = getattr(function, "__wrapped__", None)  # a cache must not hold stand-ins
    if not isinstance(function, types.FunctionType) and isinstance(cached, types.FunctionType):
        return run.instrument(cached, (shadow, *args), kwargs)
    if name in ("_get_name", "__repr__"):
        run.note_text(shadow)
        return vars(shadow)["_se_class"].__name__ if name == "_get_name" else run.unknown()
    if is_torchs or not isinstance(function, types.FunctionType):
        return function(shadow, *args, **kwargs)
    if name == "forward" and path:
        return run.call_shadow(shadow, args, kwargs)
    return run.instrument(function, (shadow, *args), kwargs)
