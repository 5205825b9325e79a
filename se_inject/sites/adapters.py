"""PEFT's adapters: modules that stand around others, or around copies of them, until they are merged or unloaded."""

from collections.abc import Iterator
from typing import Any

from torch import nn

_ADAPTERS = {"peft.tuners.tuners_utils": "BaseTunerLayer", "peft.utils.other": "AuxiliaryTrainingWrapper"}


def adapted(module: nn.Module) -> nn.Module | None:
    """The module that an adapter stands around; None for modules that are no adapters.

    >>> adapted(nn.ReLU())
    """
    # By name, as importing PEFT would cost seconds.
    if not any(_ADAPTERS.get(cls.__module__) == cls.__name__ for cls in type(module).__mro__):
        return None
    return module._modules.get("base_layer", module._modules.get("original_module"))


def idle_copies(module: nn.Module) -> Iterator[nn.Module]:
    """The copies of a module that an adapter holds beside the one that it calls.

    >>> list(idle_copies(nn.ReLU()))
    []
    """
    adapter: Any = module
    original = adapted(module)
    if original is None:
        return
    copies = module._modules.get("modules_to_save", module._modules.get("ln_tuning_layers"))
    if copies is None:
        return
    by_adapter = dict(copies.named_children())
    is_off = adapter.disable_adapters or getattr(adapter, "merged", False)
    active = [] if is_off else [by_adapter[name] for name in adapter.active_adapters if name in by_adapter]
    called = active[0] if active else original
    yield from (copy for copy in (original, *by_adapter.values()) if copy is not called)
