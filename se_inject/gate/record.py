"""What a gated block remembers: its class and its attributes without gates, and where the gates are."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from ..source.edits import Edit
from ..source.subclass import QuietSubclass
from .marks import injection_of


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

    @property
    def gates(self) -> set[str]:
        """The names of the block's children that are gates, or hold some."""
        names = {edit.gate.partition(".")[0] for edit in self.edits}
        return names if self.output is None else {*names, self.output.gate}

    def original_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """The block's attributes as they were without gates."""
        children = {name: child for name, child in state["_modules"].items() if name not in self.gates}
        return {**state, "_modules": children, **dict.fromkeys(self.displaced)}


class Gated(QuietSubclass):
    """What every generated class of a gated block is known by."""

    _se_rewrite: ClassVar[Rewrite]


def originally(block: nn.Module) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class and the attributes of a block without its gates."""
    state: dict[str, Any] = vars(block)
    slots = filled_slots(block)
    if slots:
        children = {name: child for name, child in state["_modules"].items() if name not in slots}
        state = {**state, "_modules": children, **dict.fromkeys(slots)}
    if isinstance(block, Gated):
        rewrite: Rewrite = type(block)._se_rewrite
        return rewrite.original, rewrite.original_state(state)
    return type(block), state


def is_gated(block: nn.Module) -> bool:
    """Whether a module has gates of ours in its text, on its output or in a place that its author made."""
    return isinstance(block, Gated) or bool(filled_slots(block))


def filled_slots(block: nn.Module) -> list[str]:
    """The children that are gates of ours in places that the author made for gates."""
    of_class = type(block)._se_rewrite.gates if isinstance(block, Gated) else set()
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
    return injection_of(gate) is not None and vars(gate).get("_se_in_slot", False)
