"""A block with gates in its author's text: its class becomes a generated subclass of its own class.

The block object stays the same object; only its class and its children change, as with ``parametrize`` in torch.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from ..errors import RewriteError
from ..gate import injected_channels
from ..held import HeldNorm, held_class
from ..source.edit import Edit, by_method
from ..source.gated_text import edited_method
from ..subclass import QuietSubclass, handing_up, quiet_class, reduce_to, set_class


@dataclass(frozen=True)
class OutputGate:
    """A gate on what a module returns, by its name within the module; the module's text stays as it is."""

    gate: str
    channels_last: bool = False


@dataclass(frozen=True)
class Rewrite:
    """How a gated block came about; with it the block can be restored, extended and pickled."""

    original: type[nn.Module]
    edits: tuple[Edit, ...] = ()
    displaced: frozenset[str] = frozenset()  # attributes that were None and made way for gates, as ``se`` in timm's
    output: OutputGate | None = None
    held: bool = False  # whether it is a normalization layer that stays in eval mode

    @staticmethod
    def of(block: nn.Module) -> "Rewrite":
        """How a block came about; of a block without gates, how it stays what it is. Raises ``RewriteError``."""
        if isinstance(block, GatedBlock):
            if "_se_rewrite" not in vars(type(block)):
                name = type(block).__name__
                raise RewriteError(f"its class was extended to {name} after an earlier apply; undo that first")
            return type(block)._se_rewrite
        held = isinstance(block, HeldNorm)
        return Rewrite(type(block).__bases__[1] if held else type(block), held=held)

    @property
    def gates(self) -> set[str]:
        """The names of the block's children that are gates, or hold some."""
        names = {edit.gate.partition(".")[0] for edit in self.edits}
        return names if self.output is None else {*names, self.output.gate}

    def original_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """The block's attributes as they were without gates."""
        children = {name: child for name, child in state["_modules"].items() if name not in self.gates}
        return {**state, "_modules": children, **dict.fromkeys(self.displaced)}


class GatedBlock(QuietSubclass):
    """What every generated class adds to the block's own class."""

    _se_rewrite: ClassVar[Rewrite]

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


def filled_slots(block: nn.Module) -> list[str]:
    """The children that are gates of ours in places that the author made for gates."""
    of_class = type(block)._se_rewrite.gates if isinstance(block, GatedBlock) else set()
    return [
        name
        for name, child in block._modules.items()
        if name not in of_class and child is not None and is_in_slot(child)
    ]


def mark_in_slot(gate: nn.Module) -> None:
    """Note on a gate that it fills a place of the author's, whose class stays as it is."""
    vars(gate)["_se_in_slot"] = True


def is_in_slot(gate: nn.Module) -> bool:
    """Whether a gate of ours fills a place of the author's.

    >>> is_in_slot(nn.ReLU())
    False
    """
    return injected_channels(gate) is not None and vars(gate).get("_se_in_slot", False)


def originally(block: nn.Module) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class and the attributes of a block without its gates."""
    state: dict[str, Any] = vars(block)
    slots = filled_slots(block)
    if slots:
        children = {name: child for name, child in state["_modules"].items() if name not in slots}
        state = {**state, "_modules": children, **dict.fromkeys(slots)}
    if isinstance(block, GatedBlock):
        rewrite: Rewrite = type(block)._se_rewrite
        return rewrite.original, rewrite.original_state(state)
    return type(block), state


def is_gated(block: nn.Module) -> bool:
    """Whether a module has gates of ours in its text, on its output or in a place that its author made."""
    return isinstance(block, GatedBlock) or bool(filled_slots(block))


def held_gated_class(block: nn.Module) -> type[nn.Module]:
    """The class with which a gated block that has running statistics stays in eval mode. Raises ``RewriteError``."""
    return gated_class(replace(Rewrite.of(block), held=True))
