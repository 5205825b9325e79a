"""A block whose forward has gates in it: a generated subclass of the block's own class, or an edited GraphModule.

The block object stays the same object; only its class and its children change, as with ``parametrize`` in torch.
"""

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from torch import nn

from .codegen import Insertion, OutputGate, dispatch, function, gated_code, with_output_gate
from .errors import RewriteError
from .held import HeldNorm, held_class
from .subclass import QuietSubclass, reduce_to
from .trace import Trace, trace_block


@dataclass(frozen=True)
class Rewrite:
    """How a gated block came about; with it the block can be restored, extended and pickled."""

    original: type[nn.Module]
    insertions: tuple[Insertion, ...] = ()
    displaced: frozenset[str] = frozenset()  # attributes that were None and made way for gates, as ``se`` in timm's
    output: OutputGate | None = None
    reads: frozenset[str] = frozenset()
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

    def original_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """The block's attributes as they were without gates."""
        names = {insertion.gate.partition(".")[0] for insertion in self.insertions}
        if self.output is not None:
            names.add(self.output.gate)
        children = {name: child for name, child in state["_modules"].items() if name not in names}
        return {**state, "_modules": children, **dict.fromkeys(self.displaced)}


_ABSENT = object()


class GatedBlock(QuietSubclass):
    """What every generated class adds to the block's own class."""

    _se_rewrite: ClassVar[Rewrite]

    def __setattr__(self, name: str, value: Any) -> None:
        with self._followed(name):
            super().__setattr__(name, value)

    def register_buffer(self, name: str, *args: Any, **kwargs: Any) -> None:
        """As of any module; the forward follows."""
        with self._followed(name):
            super().register_buffer(name, *args, **kwargs)  # type: ignore[misc]

    def register_parameter(self, name: str, *args: Any) -> None:
        """As of any module; the forward follows."""
        with self._followed(name):
            super().register_parameter(name, *args)  # type: ignore[misc]

    def add_module(self, name: str, *args: Any) -> None:
        """As of any module; the forward follows."""
        with self._followed(name):
            super().add_module(name, *args)  # type: ignore[misc]

    @contextmanager
    def _followed(self, name: str) -> Iterator[None]:
        """Write the forward anew if it held the attribute's old value, or a path that it chose; undo it on failure."""
        rewrite = type(self)._se_rewrite
        if name not in rewrite.reads:
            yield
            return
        before = {key: dict(vars(self)[key]) for key in ("_modules", "_parameters", "_buffers")}
        old = _held_by(self, name)
        plain = vars(self).get(name, _ABSENT)
        yield
        try:
            if _held_by(self, name) is not old:
                if "_se_rewrite" not in vars(type(self)):
                    raise RewriteError(f"{name} cannot change: the block's class was extended after apply")
                _regenerate(self, rewrite)  # type: ignore[arg-type]
        except RewriteError:
            for key, items in before.items():
                vars(self)[key].clear()
                vars(self)[key].update(items)
            vars(self).pop(name, None)
            if plain is not _ABSENT:
                vars(self)[name] = plain
            raise

    def __delattr__(self, name: str) -> None:
        if name in type(self)._se_rewrite.reads:
            raise RewriteError(f"{name} is read by the forward with gates: call se_inject.remove(model) first")
        super().__delattr__(name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        rewrite = type(self)._se_rewrite
        above = super(HeldNorm, self) if rewrite.held else super()  # type: ignore[misc]
        return reduce_to(rewrite.original, above.__reduce_ex__(max(int(protocol), 2)), _restore, rewrite)


def _held_by(block: Any, name: str) -> Any:
    """An attribute of a block's own, wherever it keeps it."""
    places = [vars(block), *(vars(block)[key] for key in ("_modules", "_parameters", "_buffers"))]
    return next((place[name] for place in places if name in place), _ABSENT)


def _restore(rewrite: Rewrite, *arguments: Any) -> nn.Module:
    """Unpickling, first half: the children are not there yet, so the class follows when the state is set."""

    class Pending(QuietSubclass, rewrite.original):  # type: ignore[misc, name-defined]
        def __setstate__(self, state: Any) -> None:
            super().__setstate__(state)
            self.__class__ = rewrite.original  # type: ignore[assignment]
            _regenerate(self, rewrite)

    return Pending.__new__(Pending, *arguments)  # type: ignore[return-value]


def _regenerate(block: nn.Module, rewrite: Rewrite) -> None:
    try:
        trace = trace_block(rewrite.original, rewrite.original_state(vars(block))) if rewrite.insertions else None
        cls = gated_class(trace, rewrite)
    except Exception as error:
        raise RewriteError(
            f"{rewrite.original.__qualname__}: its forward can no longer be rewritten with gates ({error});"
            " call se_inject.remove(model) before the change and se_inject.apply(model) after it"
        ) from error
    block.__class__ = cls


# Blocks with equal code share a class, so that compilers see one class for a stage of blocks and not one for each.
_classes: "WeakValueDictionary[Any, type[nn.Module]]" = WeakValueDictionary()


@functools.lru_cache(maxsize=64)  # equal blocks of a model share their trace
def gated_class(trace: Trace | None, rewrite: Rewrite) -> type[nn.Module]:
    """The subclass of ``rewrite.original`` whose forward has the gates. Raises ``RewriteError``.

    ``trace`` is that of the original's forward, which a gate on the output does not need.
    """
    rewrite = replace(rewrite, reads=trace.reads if trace else frozenset())
    codes = [gated_code(case.graph, rewrite.insertions, i) for i, case in enumerate(trace.cases if trace else ())]
    key = (rewrite, *((code.src, tuple((k, id(v)) for k, v in code.globals.items())) for code in codes))
    # No lock: threads that make the same class at once may each use their own, and Ctrl-C could leave a lock taken.
    return _classes.get(key) or _classes.setdefault(key, _subclass(rewrite, _forward(trace, rewrite, codes)))


def _forward(trace: Trace | None, rewrite: Rewrite, codes: list[Any]) -> Callable[..., Any]:
    if trace is None:
        forward: Callable[..., Any] = rewrite.original.forward
    else:
        forwards = [function("forward", code.src, dict(code.globals)) for code in codes]
        forward = forwards[0] if len(forwards) == 1 else dispatch(trace, forwards)
    return forward if rewrite.output is None else with_output_gate(forward, rewrite.output)


def _subclass(rewrite: Rewrite, forward: Callable[..., Any]) -> type[nn.Module]:
    original = rewrite.original
    base = held_class(original) if rewrite.held else original  # type: ignore[arg-type]
    forward.__module__ = original.forward.__module__  # tells a forward of torch's own; a class may be generated
    body = {
        "__module__": original.__module__,
        "__qualname__": f"SE{original.__qualname__}",
        "__doc__": original.__doc__,
        "forward": forward,
        "_se_rewrite": rewrite,
    }
    try:
        cls: type[nn.Module] = types.new_class(
            f"SE{original.__name__}", (GatedBlock, base), {}, lambda ns: ns.update(body)
        )
        object.__new__(base).__class__ = cls
    except TypeError as error:
        raise RewriteError(f"{original.__qualname__} cannot be extended by a subclass: {error}") from error
    return cls


def install(block: nn.Module, cls: type[nn.Module], gates: dict[str, nn.Module]) -> None:
    """Turn a block into a gated one. Nothing here can fail."""
    for name, gate in gates.items():
        child, _, index = name.partition(".")
        vars(block).pop(child, None)  # an attribute that was None
        if index:
            container = block._modules.setdefault(child, nn.ModuleDict().train(block.training))
            container._modules[index] = gate  # type: ignore[union-attr]
        else:
            block._modules[child] = gate
    block.__class__ = cls


def uninstall(block: nn.Module) -> None:
    """Turn a gated block into what it was."""
    rewrite: Rewrite = type(block)._se_rewrite  # type: ignore[attr-defined]
    state = rewrite.original_state(vars(block))
    block.__class__ = held_class(rewrite.original) if rewrite.held else rewrite.original  # type: ignore[arg-type]
    for child in set(block._modules) - set(state["_modules"]):
        del block._modules[child]
    vars(block).update(dict.fromkeys(rewrite.displaced))


def held_gated_class(block: nn.Module) -> type[nn.Module]:
    """The class with which a gated block that has running statistics stays in eval mode. Raises ``RewriteError``."""
    rewrite = replace(Rewrite.of(block), held=True)
    trace = trace_block(rewrite.original, rewrite.original_state(vars(block))) if rewrite.insertions else None
    return gated_class(trace, rewrite)
