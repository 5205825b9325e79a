"""The sites of a traced model: its graph, folded into calls of modules, is judged as their classes are."""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from ..gate.names import free_name_among
from ..graphs.folded import Folded
from ..graphs.folding import calls, folded
from ..graphs.rebuilt import shape_of
from ..graphs.traced import Program, TracedGraph, flat_graph, gate_paths, weights, whole_graphs
from .findings import Finding, Placement, named
from .qualified_names import join, with_parents
from .reasons import Reason
from .rules.candidate import Candidate

_TORCH = str(Path(torch.__file__).parent)
Judge = Callable[[Folded], Iterator[tuple[Candidate, Finding]]]


def findings_in(module: nn.Module, judge: Judge) -> list[Finding]:
    """The findings of a traced model. ``judge`` puts the rules to one call."""
    graphs = [_findings(traced, module, judge) for traced in whole_graphs(module)]
    first, *others = graphs
    for other in others:
        first = _in_both(first, other)
    return first


def _findings(traced: TracedGraph, module: nn.Module, judge: Judge) -> list[Finding]:
    flat = flat_graph(traced, module)
    whole = folded(flat)
    names = _first_names(whole, module)
    by_path: dict[str, list[list[Finding]]] = {}
    for call, judged in _confirmed([(call, list(judge(call))) for call in calls(whole)]):
        path = names.get(call.path, call.path)
        found = [_in_graph(candidate, finding, call, path, traced.name) for candidate, finding in judged]
        by_path.setdefault(path, []).append(found)
    taken = _taken(module)
    return [finding for path, found in by_path.items() for finding in _named(_together(found), path, taken)]


def _confirmed(
    judged: list[tuple[Folded, list[tuple[Candidate, Finding]]]],
) -> Iterator[tuple[Folded, list[tuple[Candidate, Finding]]]]:
    """An identity that is an argument of its own is one if, in another block of the class, it is the block's input."""

    def key(call: Folded, finding: Finding) -> tuple[str, str, str, str]:
        return type(call).__module__, type(call).__qualname__, finding.kind, finding.source

    known = {key(c, f) for c, found in judged for _, f in found if f.reason is None and not f.handed_in}
    for call, found in judged:
        yield (
            call,
            [
                (candidate, finding.without(Reason.NO_COMMON_ANCESTOR))
                if finding.reason is None and finding.handed_in and key(call, finding) not in known
                else (candidate, finding)
                for candidate, finding in found
            ],
        )


def _in_graph(candidate: Candidate, finding: Finding, call: Folded, path: str, graph: str) -> Finding:
    """A finding in terms of the traced model's own graph."""
    join = call.values.get(candidate.join.name)
    inside = frozenset(call.path_of(child) for child in finding.inside)
    finding = replace(_at(finding, join), scope=path, inside=inside, in_graph=True)
    if finding.reason is not None or candidate.value is None:
        return finding
    value = call.values[candidate.value.name]
    members = [call.members.get(user.name, set()) for user in candidate.users]
    is_returned = any(user.op == "output" for user in candidate.users)
    own = set().union(*call.members.values())
    users = [
        user for user in value.users if any(user in several for several in members) or (is_returned and user not in own)
    ]
    placement = _placement(value, users, graph, call.path)
    if placement is None:
        return finding.without(Reason.INSIDE_OPERATOR)
    # What is open in a shape is no number of channels.
    shape = tuple(size if isinstance(size, int) else -1 for size in shape_of(value) or ()) or None
    if finding.channels and shape is not None and shape[-1 if finding.channels_last else 1] != finding.channels:
        finding = replace(finding, channels=None)
    node = next(iter(value.meta["value_at"].values())).name
    return replace(_at(finding, value), node=node, placements=(placement,), shape=shape, like=_like(value))


def _placement(value: fx.Node, users: list[fx.Node], graph: str, block: str) -> Placement | None:
    """Where the graph gets the gate; None where the value or a use of it alone cannot be had in one graph."""
    origins: dict[str, fx.Node] = value.meta["value_at"]
    for owner, origin in sorted(origins.items(), key=lambda place: re.sub(r"@\d+", "", place[0]) != block):
        if "!" in owner:  # the graph of an operator
            continue
        places = {_user_in(user, owner, origin) for user in users}
        others = {_user_in(user, owner, origin) for user in value.users if user not in users}
        if places and not places & others:
            return Placement(graph or owner, origin.name, tuple(user.name for user in places))
    return None


def _user_in(user: fx.Node, owner: str, origin: fx.Node) -> fx.Node:
    """The node of a graph that uses a value; its output, where the value is used outside."""
    places: dict[str, fx.Node] = user.meta["users_at"]
    if owner in places:
        return places[owner]
    return origin.graph.output_node()


def _together(found: list[list[Finding]]) -> list[Finding]:
    """The findings of all calls of one module: its gates are on each call, or on none."""
    first, *others = found
    for other in others:
        accepted = [[f for f in findings if f.reason is None] for findings in (first, other)]
        if [f.key for f in accepted[0]] != [f.key for f in accepted[1]]:
            return [f if f.reason is not None else f.without(Reason.DEPENDS) for f in first]
        again = iter(accepted[1])
        first = [f if f.reason is not None else _also(f, next(again)) for f in first]
    return first


def _also(finding: Finding, other: Finding) -> Finding:
    return replace(finding, placements=tuple(dict.fromkeys(finding.placements + other.placements)))


def _in_both(first: list[Finding], other: list[Finding]) -> list[Finding]:
    """The findings of a model that swaps graphs: a gate is in both, or in none."""
    keys = {(f.scope, f.gate, f.kind, f.channels): f for f in other if f.reason is None}
    return [
        f
        if f.reason is not None
        else _also(f, again)
        if (again := keys.get((f.scope, f.gate, f.kind, f.channels)))
        else f.without(Reason.ONE_MODE)
        for f in first
    ]


def _named(findings: list[Finding], path: str, taken: Collection[str]) -> Iterator[Finding]:
    sites = [finding for finding in findings if finding.reason is None]
    yield from named(sites, lambda suffix: free_name_among(taken, path, suffix))
    yield from (finding for finding in findings if finding.reason is not None)


def _taken(module: nn.Module) -> set[str]:
    """The qualified names of all that the model has, but for our gates."""
    gates = gate_paths(module)
    containers = {path.rpartition(".")[0] for path in gates if path.rpartition(".")[2].isdigit()}
    ours = tuple(f"{path}." for path in gates | containers - {""})
    if isinstance(module, Program):
        names = [str(entry.fqn) for entry in module.program.module_call_graph] + list(weights(module))
    else:
        names = [join(path, name) for path, child in module.named_modules() for name in _attributes(child)]
    own = (name for name in names if not f"{name}.".startswith(ours)) if ours else names
    return {above for name in own for above in with_parents(name)}


def _attributes(module: nn.Module) -> Iterator[str]:
    yield from (name for name, child in module._modules.items() if child is not None)
    yield from (*module._parameters, *module._buffers)
    yield from (name for name in vars(module) if not name.startswith("_"))


def _first_names(whole: Folded, module: nn.Module) -> dict[str, str]:
    """For modules that the model has by several names, as their weights tell, the first one."""
    first: dict[int, str] = {}
    for name, tensor in weights(module).items():
        first.setdefault(id(tensor), name)
    names = {}
    for call in calls(whole):
        found = {_block_of(first.get(id(c.meta["tensor"]), ""), node, call.path) for node, c in _constants(call)}
        if len(found) == 1:
            names[call.path] = found.pop() or call.path
    return names


def _constants(call: Folded) -> Iterator[tuple[fx.Node, fx.Node]]:
    for members in call.members.values():
        for node in members:
            yield from ((node, constant) for constant in node.meta.get("constants", ()) if "tensor" in constant.meta)


def _block_of(weight: str, layer: fx.Node, path: str) -> str:
    """Where a block is, if a layer in it has a weight of that name; the path that the tracer noted, if it cannot be."""
    below = str(layer.meta["scope"])[len(path) :]
    owner = weight.rpartition(".")[0]
    is_inside = f"{owner}.".startswith(f"{path}.") if path else True
    return path if is_inside or not owner.endswith(below) else owner[: len(owner) - len(below)]


def _at(finding: Finding, node: fx.Node | None) -> Finding:
    """The finding with the author's file and line, where the tracer noted them."""
    trace = "" if node is None else str(node.meta.get("stack_trace") or "")
    frames = [f for f in re.findall(r'File "([^"<]+)", line (\d+)', trace) if not f[0].startswith(_TORCH)]
    return replace(finding, file=frames[-1][0], line=int(frames[-1][1])) if frames else finding


def _like(value: fx.Node) -> Tensor | None:
    """The nearest weight before a value, which tells its gate's dtype and device."""
    seen, nearest = {value}, [value]
    for node in nearest:
        for tensor in node.meta.get("weights", ()):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                return tensor
        nearest += [source for source in node.all_input_nodes if source not in seen]
        seen.update(node.all_input_nodes)
    return None
