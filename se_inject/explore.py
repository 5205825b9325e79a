"""Where a forward that cannot be rewritten makes the value to gate: in which child, on every way through it.

Such a forward is not touched. If one call of one child makes the value on every way, the gate goes on the output of
that child instead.
"""

import dis
import inspect
import itertools
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from .bytecode import asks_for_modes, asks_for_types, compared_with_none, names_children
from .flow import Flow
from .nodes import is_crop
from .paths import DeadEnd, Paths
from .proxy import UntraceableError
from .reachable import plain_flags
from .rules import Candidate
from .shadow import trace_shadow
from .wrapped import is_wrapped


def explore_block(block_class: type[nn.Module], state: dict[str, Any]) -> list[fx.Graph]:
    """One graph for each way through a forward that does not end in an error. Raises ``UntraceableError``."""
    if "forward" in state:
        raise UntraceableError("its forward is set on the instance, not by its class")
    if asks_for_types(block_class, plain_flags(state)):
        raise UntraceableError("it asks for the type of a value (type), which is known only when it runs")
    compared = compared_with_none(block_class)
    graphs: dict[str, fx.Graph] = {}
    modes = (True, False) if asks_for_modes(block_class) else (torch.is_grad_enabled(),)
    for grad, parameters in itertools.product(modes, _arguments(block_class)):
        paths = Paths()
        while paths.start():
            fixed = paths.arguments(parameters, compared)
            try:
                with torch.set_grad_enabled(grad):
                    graph = trace_shadow(block_class, state, parameters, fixed, set(), paths)
            except DeadEnd:
                continue
            graphs.setdefault(str(graph), graph)
    if not graphs:
        raise UntraceableError("every way through it ends in an error")
    return list(graphs.values())


def _arguments(block_class: type[nn.Module]) -> list[list[inspect.Parameter]]:
    """The arguments of a forward; where it looks at ``*args``, with none and with one of them."""
    forward = inspect.unwrap(block_class.forward)
    declared = list(inspect.signature(block_class.forward).parameters.values())[1:]
    named = [p for p in declared if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    steps = list(dis.get_instructions(forward))
    # A child that gets ``**kwargs`` handed on is called all the same, whatever they are.
    used = {
        str(step.argval)
        for step, after in itertools.pairwise(steps)
        if step.opname.startswith("LOAD") and after.opname != "DICT_MERGE"
    }
    variable = [p for p in declared if p not in named and p.name in used]
    if any(p.kind is p.VAR_KEYWORD for p in variable):
        raise UntraceableError("its forward takes **kwargs, whose values are known only when it runs")
    if not variable:
        return [named]
    one, two = (p.replace(name=f"{p.name}_{i}", kind=p.POSITIONAL_ONLY) for p in variable for i in range(2))
    return [[*named, one], [*named, one, two]] if not named else [named, [*named, one]]


def producer(flow: Flow, candidate: Candidate) -> str | None:
    """The path of the layer whose output is the value to gate, and nothing else; None if there is none such."""
    value, users = candidate.value, candidate.users
    while value is not None and is_crop(value):
        value, users = value.all_input_nodes[0], (value,)
    if value is None or value.op != "call_module" or "inner" in value.meta:
        return None
    if any(flow.is_data(user) and user not in users for user in value.users):
        return None
    path = str(value.target)
    calls = [str(node.target) for node in flow.nodes if node.op == "call_module"]
    related = [call for call in calls if f"{call}.".startswith(f"{path}.") or f"{path}.".startswith(f"{call}.")]
    if related != [path]:
        return None
    module = flow.owner.get_submodule(path)
    while type(module).forward is nn.Sequential.forward and len(module._modules):
        # A gate among the children of a Sequential would become a step of it.
        last = next(reversed(module._modules))
        path, module = f"{path}.{last}", module.get_submodule(last)
    return path


def can_hold_gate(module: nn.Module) -> bool:
    """Whether a module's class can be extended by a gate on its output, for good.

    >>> can_hold_gate(nn.ReLU()), can_hold_gate(nn.LazyConv2d(8, 1))
    (True, False)
    """
    changes_class = isinstance(module, nn.modules.lazy.LazyModuleMixin) or parametrize.is_parametrized(module)
    # A gate among children that a forward loops over would be run as one of them.
    loops = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict | fx.GraphModule) or names_children(
        type(module)
    )
    is_called = type(module).__call__ is nn.Module.__call__ and "forward" not in vars(module)
    return is_called and not (changes_class or loops or is_wrapped(module))
