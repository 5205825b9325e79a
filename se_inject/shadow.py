"""Running a forward on a stand-in: values are proxies, children are shadows that note their calls in a graph.

Unlike ``fx.Tracer.trace`` this patches no class of torch, runs none of the model's layers, and sees which attributes
the forward reads and writes.
"""

import inspect
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from .bytecode import content
from .nodes import SHAPING
from .paths import DeadEnd, Paths, Unknowns
from .proxy import UntraceableError
from .randomness import no_randomness
from .tracer import ShadowTracer
from .watch import MAX_DEPTH, containers, put_back


def trace_shadow(
    block_class: type[nn.Module],
    state: dict[str, Any],
    parameters: list[inspect.Parameter],
    fixed: dict[str, Any],
    reads: set[str],
    paths: Paths | None = None,
) -> fx.Graph:
    """Run ``block_class.forward`` on a shadow with attributes ``state`` and return the graph of what it did.

    Arguments in ``fixed`` have these values, the others are proxies. Names of the plain attributes that it reads are
    added to ``reads``. With ``paths`` the graph is for looking at only: it shows one way through the forward, where
    branches go as ``paths`` says and what a graph would lose is let pass. Raises ``UntraceableError``.
    """
    tracer = ShadowTracer(state, paths)
    outside = _outside(inspect.unwrap(block_class.forward))
    unknowns = nullcontext() if paths is None else Unknowns(tracer)
    try:
        shadow = tracer.shadow("", block_class, state)
        with no_randomness(of_torch=False) as drawn, _no_real_calls(), _OnlyConstants(), unknowns:
            arguments = [tracer.placeholder(parameter, fixed) for parameter in parameters]
            positional = [a for a, p in zip(arguments, parameters, strict=True) if p.kind is not p.KEYWORD_ONLY]
            keyword = {p.name: a for a, p in zip(arguments, parameters, strict=True) if p.kind is p.KEYWORD_ONLY}
            result = block_class.forward(shadow, *positional, **keyword)
            tracer.create_node("output", "output", (tracer.create_arg(result),), {})
    except UntraceableError:
        raise
    except Exception as error:  # the user's forward runs here, so anything can be raised
        if paths is not None and _is_raised_by_a_check(error):
            raise DeadEnd from error
        raise UntraceableError(_first_line(error)) from error
    finally:
        written = tracer.put_back_writes() + ["a global or enclosing variable"] * put_back(outside)
    if tracer.refusal is not None:  # and the forward has caught it
        raise UntraceableError(tracer.refusal)
    if drawn:
        raise UntraceableError("it draws random numbers that tracing would freeze")
    if paths is not None:
        both = {f"self.{'.'.join(filter(None, (path, name)))}" for path, name in tracer.reads} & set(written)
        if both:
            raise UntraceableError(f"it reads and writes {min(both)}, on which its ways may depend")
        if any(user.target not in SHAPING for n in tracer.graph.nodes if "shape_only" in n.meta for user in n.users):
            raise UntraceableError("it unpacks a value (data-dependent control flow)")
        return tracer.graph
    if written:
        raise UntraceableError(f"it writes {written[0]}, which a graph would lose")
    if any(path != "" and name == "training" for path, name in tracer.reads):
        raise UntraceableError("it reads the training flag of a child, which tracing would freeze")
    reads |= {name for path, name in tracer.reads if path == ""}
    return tracer.graph


def _outside(forward: Any) -> list[tuple[Any, Any]]:
    """The containers that a forward names as globals or closes over, each with a copy."""
    if not isinstance(forward, types.FunctionType):
        return []
    named = [forward.__globals__[name] for name in forward.__code__.co_names if name in forward.__globals__]
    return list(containers([*named, *map(content, forward.__closure__ or ())], set(), MAX_DEPTH))


class _OnlyConstants(TorchDispatchMode):
    """Refuses what torch must not do while tracing, in this thread: draw, change real tensors or read their numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise UntraceableError("it draws random numbers that tracing would freeze")
        if func._schema.is_mutable:
            raise UntraceableError("it changes a tensor in place that is not a value of the graph")
        if torch.Tag.data_dependent_output in func.tags:
            raise UntraceableError("it reads the numbers of a tensor, which tracing would freeze")
        return func(*args, **(kwargs or {}))


@contextmanager
def _no_real_calls() -> Iterator[None]:
    """Refuse calls of real modules in this thread, which would change their statistics."""
    thread = threading.get_ident()

    def refuse(module: nn.Module, args: Any) -> None:
        if threading.get_ident() == thread:
            raise UntraceableError("it calls a module that is not among its children")

    handle = register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


def _is_raised_by_a_check(error: Exception) -> bool:
    """Whether the user's own code raises it, as an assert on shapes does."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return isinstance(error, AssertionError | ValueError | RuntimeError) and not raised_in.startswith(
        ("torch.", "se_inject.")
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
