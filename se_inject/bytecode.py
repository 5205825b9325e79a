"""What a forward's code asks that leaves no mark on a proxy: seen in its bytecode instead."""

import dis
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

from .frames import start
from .reachable import Flags, reachable

# Global modes of torch; what they say while tracing need not be what they say when the forward runs.
_MODE_QUESTIONS = frozenset(
    "is_grad_enabled is_inference_mode_enabled is_autocast_enabled is_compiling is_tracing is_in_onnx_export".split()
)
# A change to the mode that happens to hold while tracing would leave no mark at all.
_MODE_SWITCHES = frozenset("autocast no_grad enable_grad set_grad_enabled inference_mode".split())
_MODE_DECORATORS = frozenset({"torch.utils._contextlib", "torch.amp.autocast_mode"})
CHANGES_MODE = "it changes the grad, inference or autocast mode, which a graph would lose"
_SEEDS = frozenset("manual_seed seed_all manual_seed_all set_rng_state fork_rng".split())


def unanswerable(block_class: Any, flags: Flags = frozenset()) -> str | None:
    """Why a class's forward, or a method that it may call, cannot be followed; None if nothing stands against it.

    ``flags`` are plain attributes of the block that rule out parts of its methods.

    >>> class Block:
    ...     def forward(self, x):
    ...         return x if type(x) is tuple else self.other(x)
    >>> unanswerable(Block)
    'it asks for the type of a value (type), which is known only when it runs'
    """
    if not _MODE_DECORATORS.isdisjoint(_modules_of_wrappers(block_class.forward)):
        return CHANGES_MODE
    reasons = (_question(code, flags) for code in _codes(block_class))
    return next((reason for reason in reasons if reason is not None), None)


def _modules_of_wrappers(function: Any) -> Iterator[str]:
    while hasattr(function, "__wrapped__"):
        yield getattr(function, "__globals__", {}).get("__name__", "")
        function = function.__wrapped__


def asks_for_types(block_class: Any, flags: Flags = frozenset()) -> bool:
    """Whether a class's forward, or a method that it may call, uses ``type``.

    >>> asks_for_types(type("Block", (), {"forward": lambda self, x: x}))
    False
    """
    return any(_names_type(step) for code in _codes(block_class) for step in reachable(code, flags))


def asks_for_modes(block_class: Any) -> bool:
    """Whether a class's forward, or a method that it may call, asks for a global mode of torch.

    >>> asks_for_modes(type("Block", (), {"forward": lambda self, x: x if torch.is_grad_enabled() else -x}))
    True
    """
    return any(
        instruction.argval in _MODE_QUESTIONS
        for code in _codes(block_class)
        for instruction in dis.get_instructions(code)
    )


def names_children(block_class: Any) -> bool:
    """Whether a class's forward, or a function that it may call, may go through all its children.

    >>> names_children(type("Block", (), {"forward": lambda self, x: [layer(x) for layer in self.children()]}))
    True
    """
    names = {"children", "modules", "named_children", "named_modules", "_modules"}
    return any(not names.isdisjoint(code.co_names) for code in _codes(block_class))


def _names_type(instruction: dis.Instruction) -> bool:
    return instruction.opname == "LOAD_GLOBAL" and instruction.argval == "type"


def asks_for_none(code: types.CodeType, flags: Flags = frozenset()) -> bool:
    """Whether code compares with None what a child has returned, or one of several values: those of a trace never are.

    >>> def forward(self, x):
    ...     x, weights = self.attention(x)
    ...     return x if weights is None else x * weights
    >>> asks_for_none(forward.__code__)
    True
    """
    returned: dict[Any, bool] = {}
    steps = reachable(code, flags)
    for i, step in enumerate(steps):
        if step.opname == "STORE_FAST":
            before = steps[i - 1]
            is_unpacked = before.opname == "STORE_FAST" and returned.get(before.argval, False)
            returned[step.argval] = (
                is_unpacked or before.opname.startswith("UNPACK") or _calls_child(before, steps, code)
            )
        elif step.opname == "LOAD_FAST" and returned.get(step.argval) and _tests_for_none(steps[i + 1 : i + 3]):
            return True
    return False


def _calls_child(call: dis.Instruction, steps: list[dis.Instruction], code: types.CodeType) -> bool:
    """Whether an instruction calls something that the first argument holds: its load begins where the call does."""
    if not call.opname.startswith("CALL") or not code.co_argcount:
        return False
    loads = (step for step in steps if step.opname == "LOAD_FAST" and step.argval == code.co_varnames[0])
    return start(call) in map(start, loads)


def _tests_for_none(steps: list[dis.Instruction]) -> bool:
    """Whether instructions ask if the value loaded before them is None."""
    test, after = (*steps, *steps)[:2]
    return "NONE" in test.opname or (test.argval is None and after.opname == "IS_OP")


@functools.lru_cache(maxsize=1024)
def _question(code: types.CodeType, flags: Flags) -> str | None:
    if asks_for_none(code, flags):
        return "it compares with None one of the values that a call has returned, which is known only when it runs"
    is_none_test = False
    for instruction in reachable(code, flags):
        if _names_type(instruction):
            return "it asks for the type of a value (type), which is known only when it runs"
        if instruction.argval in _MODE_QUESTIONS and "LOAD" in instruction.opname:
            return f"it asks for a mode of torch ({instruction.argval}), which may differ when it runs"
        if instruction.argval in _MODE_SWITCHES and "LOAD" in instruction.opname:
            return CHANGES_MODE
        if instruction.opname == "IS_OP" and not is_none_test:
            return "it compares objects by identity (is), which values of a trace do not have"
        is_none_test = instruction.opname == "LOAD_CONST" and instruction.argval in (None, True, False)
        if instruction.argval in _SEEDS and "LOAD" in instruction.opname:
            return f"it sets the random stream ({instruction.argval})"
    return None


def compared_with_none(block_class: Any) -> set[str]:
    """The names of arguments that a class's forward, or a function that it may call, compares with None.

    A function's own names are taken for the forward's, but for that of its first argument, the feature: ``exists(x)``.

    >>> forward = lambda self, x, mask, bias: x if mask is None else bias
    >>> sorted(compared_with_none(type("Block", (), {"forward": forward})))
    ['mask']
    """
    own = {function.__code__ for function in _methods(block_class, "forward")}
    feature = set(list(inspect.signature(block_class.forward).parameters)[1:2])
    compared = (_compared_with_none(code) - (set() if code in own else feature) for code in _codes(block_class))
    return set().union(*compared)


@functools.lru_cache(maxsize=1024)
def _compared_with_none(code: types.CodeType) -> set[str]:
    steps = list(dis.get_instructions(code))
    names = {
        str(load.argval)
        for i, load in enumerate(steps[:-1])
        if load.opname.startswith("LOAD_FAST") and _tests_for_none(steps[i + 1 : i + 3])
    }
    return names & set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


@functools.lru_cache(maxsize=1024)
def _codes(block_class: Any) -> tuple[types.CodeType, ...]:
    """The code of a class's forward and of all functions that it may reach: methods, helpers, nested functions."""
    waiting = _methods(block_class, "forward")
    codes: dict[types.CodeType, None] = {}
    while waiting:
        function = waiting.pop()
        for code in _with_nested(function.__code__):
            if code in codes:
                continue
            codes[code] = None
            if not _is_torchs(function):
                for name in code.co_names:
                    helpers = _functions(function.__globals__.get(name))
                    waiting += [*_methods(block_class, name), *(f for f in helpers if not _is_torchs(f))]
        cells = function.__closure__ or ()
        waiting += [f for cell in cells for f in _functions(content(cell)) if f.__code__ not in codes]
    return tuple(codes)


def _methods(block_class: Any, name: str) -> list[types.FunctionType]:
    """All definitions of a method: one may call another by ``super()``."""
    return [f for cls in block_class.__mro__ for f in _functions(vars(cls).get(name))]


def _functions(value: Any) -> list[types.FunctionType]:
    if isinstance(value, property):
        value = value.fget
    value = inspect.unwrap(getattr(value, "__func__", value)) if callable(value) else value
    return [value] if isinstance(value, types.FunctionType) and not _is_torchs(value, "torch.nn.modules.module") else []


def _is_torchs(function: types.FunctionType, package: str = "torch") -> bool:
    return f"{function.__module__}.".startswith(f"{package}.")


def content(cell: Any) -> Any:
    """What a cell of a closure holds; None if nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _with_nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _with_nested(constant)
