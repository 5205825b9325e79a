"""The part of a method's bytecode that can run, given the plain flags of its object."""

import dis
import types
from collections.abc import Collection, Mapping
from typing import Any

Flags = frozenset[tuple[str, bool]]


def reachable(code: types.CodeType, flags: Flags = frozenset()) -> list[dis.Instruction]:
    """The instructions of a method, but for bodies of ``if self.flag:`` and ``if not self.flag:`` that are ruled out.

    >>> def forward(self, x):
    ...     return type(x) if self.asks else x
    >>> [step.argval for step in reachable(forward.__code__, frozenset({("asks", False)})) if step.argval == "type"]
    []
    """
    steps = list(dis.get_instructions(code))
    known, dead = dict(flags), set()
    tests = [step for step in steps if step.opname != "TO_BOOL"]
    for owner, flag, jump in zip(tests, tests[1:], tests[2:], strict=False):
        is_flag = owner.opname == "LOAD_FAST" and owner.argval in code.co_varnames[:1] and flag.opname == "LOAD_ATTR"
        outcome = next((end == "TRUE" for end in ("TRUE", "FALSE") if jump.opname.endswith(f"_IF_{end}")), None)
        if is_flag and outcome is not None and known.get(flag.argval) == outcome:
            body = {step.offset for step in steps if jump.offset < step.offset < jump.argval}
            dead |= set() if _is_entered(body, steps) else body
    return [step for step in steps if step.offset not in dead]


def plain_flags(state: Mapping[str, Any]) -> Flags:
    """The flags among a block's attributes that only assignments change; setting one later traces the block anew.

    >>> plain_flags({"training": True, "dense": False, "width": 8})
    frozenset({('dense', False)})
    """
    return frozenset((name, value) for name, value in state.items() if isinstance(value, bool) and name != "training")


def _is_entered(body: Collection[int], steps: list[dis.Instruction]) -> bool:
    """Whether another jump leads into the middle of instructions."""
    jumps = (step for step in steps if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs)
    return any(step.argval in body and step.offset not in body for step in jumps)
