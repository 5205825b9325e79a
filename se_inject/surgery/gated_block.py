"""A block with gates in its author's text: its class becomes a generated subclass of its own class.

The block object stays the same object; only its class and its children change, as with ``parametrize`` in torch.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import nn

from ..errors import RewriteError
from ..gate.record import Gated, OutputGate, Rewrite, filled_slots
from ..source.edits import by_method
from ..source.subclass import QuietSubclass, handing_up, quiet_class, reduce_to, set_class
from ..source.write_gates import edited_method
from .frozen_norm import HeldNorm, held_class


def rewrite_of(block: nn.Module) -> Rewrite:
    """How a block came about; of a block without gates, how it stays what it is. Raises ``RewriteError``."""
    if isinstance(block, Gated):
        if "_se_rewrite" not in vars(type(block)):
            name = type(block).__name__
            raise RewriteError(f"its class was extended to {name} after an earlier apply; undo that first")
        return type(block)._se_rewrite
    held = isinstance(block, HeldNorm)
    return Rewrite(type(block).__bases__[1] if held else type(block), held=held)


class GatedBlock(Gated):
    """What every generated class adds to the block's own class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """``type(block)()`` makes what the author's class makes."""
        original = type(self)._se_rewrite.original
        if "_se_rewrite" in vars(type(self)):
            set_class(self, original)  # type: ignore[arg-type]
        original.__init__(self, *args, **kwargs)  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: Any) -> Any:
        rewrite = type(self)._se_rewrite
        above = super(HeldNorm, self) if rewrite.held else super()  # type: ignore[misc]
        return reduce_to(rewrite.original, above.__reduce_ex__(max(int(protocol), 2)), _restore, rewrite)


def _restore(rewrite: Rewrite, *arguments: Any, **keywords: Any) -> nn.Module:
    cls = gated_class(rewrite)
    return cls.__new__(cls, *arguments, **keywords)


# Blocks with equal edits share a class, so that compilers see one class for a stage of blocks and not one for each.
@functools.lru_cache(maxsize=512)
def gated_class(rewrite: Rewrite) -> type[nn.Module]:
    """The subclass of ``rewrite.original`` whose text has the gates. Raises ``RewriteError``."""
    original = rewrite.original
    base = held_class(original) if rewrite.held else original  # type: ignore[arg-type]
    body: dict[str, Any] = {
        "__module__": original.__module__,
        "__qualname__": f"SE{original.__qualname__}",
        "__doc__": original.__doc__,
        "_se_rewrite": rewrite,
        "_se_above": original,
    }
    above: dict[type, dict[str, Any]] = {}
    for (owner, method), edits in by_method(rewrite.edits).items():
        place = body if owner is None else above.setdefault(owner, {"__module__": owner.__module__})
        place[method] = edited_method(owner or original, method, edits)
    if issubclass(original, nn.Sequential):
        body |= {"__iter__": _without_gates, "__len__": lambda self: len(list(_without_gates(self)))}
    if rewrite.output is not None:
        body["forward"] = _with_output_gate(body.get("forward", original.forward), rewrite.output)
    try:
        # What super() finds comes before the class that its text is from.
        owners = sorted(above, key=original.__mro__.index)
        inherited = [quiet_class(f"SE{c.__name__}", (QuietSubclass, c), above[c]) for c in owners]
        cls: type[nn.Module] = quiet_class(f"SE{original.__name__}", (GatedBlock, base, *inherited), body, handing_up)
        object.__new__(base).__class__ = cls
    except TypeError as error:
        raise RewriteError(f"{original.__qualname__} cannot be extended by a subclass: {error}") from error
    return cls


def _without_gates(sequential: Any) -> Iterator[nn.Module]:
    """The steps of a Sequential, among which its gates are not."""
    names = type(sequential)._se_rewrite.gates
    return iter([module for name, module in sequential._modules.items() if name not in names])


def _with_output_gate(forward: Any, output: OutputGate) -> Any:
    """A forward whose result passes a gate."""

    @functools.wraps(forward)
    def gated(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = forward(self, *args, **kwargs)
        gate = getattr(self, output.gate)
        return gate(result.movedim(-1, 1)).movedim(1, -1) if output.channels_last else gate(result)

    gated.__module__ = forward.__module__
    return gated


def install(block: nn.Module, rewrite: Rewrite, gates: dict[str, nn.Module]) -> Callable[[], None]:
    """A function that turns a block into a gated one, and cannot fail. Raises ``RewriteError``."""
    is_changed = bool(rewrite.edits or rewrite.output)
    cls = gated_class(rewrite) if is_changed else type(block)

    def commit() -> None:
        for name, gate in gates.items():
            child, _, index = name.partition(".")
            vars(block).pop(child, None)  # an attribute that was None
            if index:
                container = block._modules.setdefault(child, nn.ModuleDict().train(block.training))
                container._modules[index] = gate  # type: ignore[union-attr]
            else:
                block._modules[child] = gate
        if is_changed:
            set_class(block, cls)

    return commit


def uninstall(block: nn.Module) -> None:
    """Turn a gated block into what it was."""
    for name in filled_slots(block):
        del block._modules[name]
        vars(block)[name] = None
    if not isinstance(block, GatedBlock):
        return
    rewrite: Rewrite = type(block)._se_rewrite
    state = rewrite.original_state(vars(block))
    set_class(block, held_class(rewrite.original) if rewrite.held else rewrite.original)  # type: ignore[arg-type]
    for child in set(block._modules) - set(state["_modules"]):
        del block._modules[child]
    vars(block).update(dict.fromkeys(rewrite.displaced))


def held_gated_class(block: nn.Module) -> type[nn.Module]:
    """The class with which a gated block that has running statistics stays in eval mode. Raises ``RewriteError``."""
    return gated_class(replace(rewrite_of(block), held=True))
