"""How aten writes what an author writes otherwise: items of a tuple that only backward needs, slices one by one."""

from typing import Any

from torch import fx

from .operations import is_a


def returns_statistics(node: fx.Node) -> bool:
    """Whether an operator of aten returns, beside its value, what its backward pass needs.

    >>> returns_statistics(fx.Graph().placeholder("x"))
    False
    """
    is_one = "constants" in node.meta or any(is_a(kind, node) for kind in ("norm", "dropout", "pool", "attention"))
    return is_one and isinstance(node.meta.get("val"), list | tuple)


def index_taken(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The index of ``x[index]`` that "slice" or "select" takes of its first argument; none where it takes all.

    >>> index_taken("slice", ("x", 1, 0, 8))
    (slice(None, None, None), slice(None, 8, None))
    """
    dim: Any = args[1] if len(args) > 1 else 0
    bounds = (*args[2:], None, None, None)
    before = [slice(None)] * dim if dim >= 0 else [...]
    after = [slice(None)] * (-1 - dim) if dim < 0 else []
    if name == "select":
        return (*before, bounds[0], *after)
    start, end, step = bounds[:3]
    end = None if isinstance(end, int) and end >= 2**62 else end
    taken = slice(start or None, end, None if step in (None, 1) else step)
    return () if taken == slice(None) else (*before, taken, *after)
