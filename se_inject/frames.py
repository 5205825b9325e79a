"""What the frame that asks a value something is doing, as its bytecode tells."""

import dis
import types


def start(step: dis.Instruction) -> tuple[int | None, int | None] | None:
    """Where in the source the expression of an instruction begins."""
    return (step.positions.lineno, step.positions.col_offset) if step.positions else None


def is_in_call(frame: types.FrameType) -> bool:
    """Whether a frame is in the middle of a call, and not of an operation or of reading an attribute.

    >>> import inspect
    >>> class Frames:
    ...     def __call__(self):
    ...         return is_in_call(inspect.currentframe().f_back)
    ...     attribute = property(__call__)
    >>> Frames()(), Frames().attribute
    (True, False)
    """
    steps = dis.get_instructions(frame.f_code)
    # Python 3.11 makes calls that it has specialized in PRECALL.
    return any(step.offset == frame.f_lasti and step.opname.startswith(("CALL", "PRECALL")) for step in steps)


def is_unpacking(frame: types.FrameType) -> bool:
    """Whether a frame is in the middle of ``*value`` in a call or display."""
    return any(
        step.offset == frame.f_lasti and step.opname == "LIST_EXTEND" for step in dis.get_instructions(frame.f_code)
    )


def asks_for_a_tensor(frame: types.FrameType) -> bool:
    """Whether the call that a frame is in the middle of is ``isinstance(..., torch.Tensor)``.

    >>> import inspect
    >>> asks_for_a_tensor(inspect.currentframe())
    False
    """
    steps = [step for step in dis.get_instructions(frame.f_code) if step.opname not in {"PRECALL", "CACHE", "KW_NAMES"}]
    call = next((step for step in steps if step.offset >= frame.f_lasti), None)
    if call is None or call.positions is None or call.positions.col_offset is None:
        return False
    begin = start(call)
    before = [step for step in steps if step.offset < call.offset]
    names_it = any(step.argval == "isinstance" and start(step) == begin for step in before)
    return call.opname.startswith("CALL") and names_it and before[-1].argval == "Tensor"
