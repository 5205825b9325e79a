"""One block's candidates: traced, judged by the site rules in every case of its forward, counted and named."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import fx, nn

from .channels import Feature, features
from .fingerprint import Fingerprints
from .flow import Flow, is_conv
from .gate import SqueezeExcitation
from .graph_module import Call, Scopes, is_injected, ungated_graph
from .proxy import UntraceableError
from .rewrite import GatedBlock, Placement, Rewrite
from .rules import ALREADY_GATED, Candidate, Kind, has_gate, joins
from .trace import Trace, trace_block

CHANNELS_LAST = "its channels are the last dimension (NHWC), a gate scales the second one"


@dataclass(frozen=True)
class Finding:
    """A candidate in terms of its block only, so that equal blocks share it."""

    kind: Kind
    node: str
    reason: str | None = None
    scope: str = ""  # the block's path inside a GraphModule
    gate: str = ""
    channels: int | None = None
    placements: tuple[Placement, ...] = ()
    source: str = ""  # the child whose parameters tell the gate's device and dtype
    inside: frozenset[str] = frozenset()  # the children in the branch or on the paths
    widths: frozenset[int] = frozenset()  # of the layers in the branch; evidence for channels from an example input


@dataclass(frozen=True)
class Analysis:
    """What was found in a block; ``trace`` is None for a GraphModule, which has its graph already."""

    findings: tuple[Finding, ...]
    trace: Trace | None
    displaced: frozenset[str] = frozenset()


@dataclass
class Analyst:
    """Analyses blocks, each kind of block once."""

    _fingerprints: Fingerprints = field(default_factory=Fingerprints)
    _traces: dict[int, Trace | UntraceableError] = field(default_factory=dict)
    _analyses: dict[int, Analysis] = field(default_factory=dict)

    def analyse(self, block: nn.Module) -> Analysis:
        """What there is to gate in a block that may be gated already. Raises ``UntraceableError``."""
        if isinstance(block, fx.GraphModule):
            return self._analyse_graph_module(block)
        key = self._fingerprints.of(type(block), vars(block))
        if key not in self._analyses:
            self._analyses[key] = self._analyse_block(*_originally(block), block)
        return self._analyses[key]

    def _analyse_block(self, cls: type[nn.Module], state: dict[str, Any], block: nn.Module) -> Analysis:
        trace = self._trace(cls, state)
        cases = [[f for _, f in self._findings(case.graph, block)] for case in trace.cases]
        accepted = [[finding for finding in case if finding.reason is None] for case in cases]
        name = _free_name(cls, state)
        # The same layer makes the value in every case, or the gate would serve another value in each.
        keys = [[(f.kind, f.channels, f.source) for f in case] for case in accepted]
        if any(key != keys[0] for key in keys):
            conditions = sorted({expression for case in trace.cases for expression, _ in case.conditions})
            reason = f"its sites depend on {' and '.join(conditions)}"
            return Analysis((replace(next(f for case in accepted for f in case), reason=reason),), trace)
        sites = [
            replace(same[0], placements=tuple(f.placements[0] for f in same)) for same in zip(*accepted, strict=True)
        ]
        refused = [finding for finding in cases[0] if finding.reason is not None]
        displaced = frozenset({name} & set(state)) if sites else frozenset()
        return Analysis((*_named(sites, name), *refused), trace, displaced)

    def _analyse_graph_module(self, module: fx.GraphModule) -> Analysis:
        graph = ungated_graph(module)
        scopes = Scopes(graph)
        calls: dict[Call, list[Finding]] = {}
        for candidate, finding in self._findings(graph, module, scopes):
            call = scopes.innermost(candidate.join)
            calls.setdefault(call, []).append(replace(finding, scope=call.path))
        found: dict[tuple[str, str], Finding] = {}
        for call, findings in calls.items():
            name = _free_name_in_graph(module, call.path)
            accepted = [finding for finding in findings if finding.reason is None]
            refused = [finding for finding in findings if finding.reason is not None]
            for finding in (*_named(accepted, name), *refused):
                key = (call.path, finding.gate or finding.node)
                # A block that is called again has the same gate in another place.
                again = found.get(key)
                found[key] = replace(again, placements=again.placements + finding.placements) if again else finding
        return Analysis(tuple(found.values()), None)

    def _findings(
        self, graph: fx.Graph, owner: nn.Module, scopes: Scopes | None = None
    ) -> Iterator[tuple[Candidate, Finding]]:
        flow = Flow(graph, owner, self.depth_of)
        candidates = list(joins(flow, scopes.leaves if scopes else _leaves_block))
        own_nodes = scopes.own_nodes(flow, [c.join for c in candidates]) if scopes else lambda join: flow.everything
        known = features(graph, owner, self.graphs_of) if any(c.value for c in candidates) else {}
        for candidate in candidates:
            if candidate.value is None:
                yield candidate, Finding(candidate.kind, candidate.join.name, candidate.reason)
            elif has_gate(flow, candidate.region & own_nodes(candidate.join), self):
                inside = _children(flow, candidate.region)
                yield candidate, Finding(candidate.kind, candidate.join.name, ALREADY_GATED, inside=inside)
            else:
                yield candidate, _accept(candidate, candidate.value, flow, known[candidate.value])

    def has_own_gate(self, module: nn.Module) -> bool:
        """Whether a child is a channel gate or holds one that is not the gate of a block inside the child."""
        if isinstance(module, SqueezeExcitation):
            return True
        if not has_own_forward(module):
            return any(map(self.has_own_gate, module.children()))
        for graph in self.graphs_of(module):
            flow = Flow(graph, module, self.depth_of)
            if any(candidate.value is not None for candidate in joins(flow, _leaves_block)):
                return False
            if has_gate(flow, flow.everything, self):
                return True
        return False

    def depth_of(self, module: nn.Module) -> int:
        """How many convolutions a child runs, one after the other."""
        if is_conv(module):
            return 1
        if type(module).forward is nn.Sequential.forward:
            return sum(map(self.depth_of, module.children()))
        if not any(map(is_conv, module.modules())):
            return 0
        flows = [Flow(graph, module, self.depth_of) for graph in self.graphs_of(module)]
        if not flows:  # it cannot be traced
            return sum(map(is_conv, module.modules()))
        return max(flow.conv_depth(flow.everything) for flow in flows)

    def squeezes(self, module: nn.Module) -> bool:
        """Whether a child averages over all positions anywhere inside."""
        if not has_own_forward(module):
            return any(map(self.squeezes, module.children()))
        flows = (Flow(graph, module, self.depth_of) for graph in self.graphs_of(module))
        return any(
            flow.squeezes(node) or ((child := flow.module(node)) is not None and self.squeezes(child))
            for flow in flows
            for node in flow.nodes
        )

    def graphs_of(self, module: nn.Module) -> list[fx.Graph]:
        """The graphs of a module's forward without our gates; empty where it cannot be traced."""
        if isinstance(module, fx.GraphModule):
            return [ungated_graph(module)]
        try:
            return [case.graph for case in self._trace(*_originally(module)).cases]
        except UntraceableError:
            return []

    def _trace(self, cls: type[nn.Module], state: dict[str, Any]) -> Trace:
        key = self._fingerprints.of(cls, state)
        if key not in self._traces:
            try:
                self._traces[key] = trace_block(cls, state)
            except UntraceableError as error:
                self._traces[key] = error
        trace = self._traces[key]
        if isinstance(trace, UntraceableError):
            raise trace
        return trace


def has_own_forward(module: nn.Module) -> bool:
    """Whether a module's forward is more than that of a layer or container of torch."""
    forward = type(module).forward
    return not (getattr(forward, "__module__", None) or "").startswith("torch.nn.")


def _originally(block: nn.Module) -> tuple[type[nn.Module], dict[str, Any]]:
    if isinstance(block, GatedBlock):
        rewrite: Rewrite = type(block)._se_rewrite
        return rewrite.original, rewrite.original_state(vars(block))
    return type(block), vars(block)


def _accept(candidate: Candidate, value: fx.Node, flow: Flow, feature: Feature | None) -> Finding:
    reason = CHANNELS_LAST if feature and feature.last else None
    inside = _children(flow, candidate.region)
    convs = [m for child in inside for m in flow.owner.get_submodule(child).modules() if is_conv(m)]
    return Finding(
        candidate.kind,
        value.name,
        reason,
        channels=feature.channels if feature else None,
        placements=(Placement(value.name, tuple(user.name for user in candidate.users)),),
        source=_parameter_source(flow, value),
        inside=inside,
        widths=frozenset(c for m in convs if isinstance(c := getattr(m, "out_channels", None), int)),
    )


def _children(flow: Flow, region: int) -> frozenset[str]:
    return frozenset(str(node.target) for node in flow.members(region) if node.op == "call_module")


def _parameter_source(flow: Flow, value: fx.Node) -> str:
    """The last child or parameter before a value that has a floating-point dtype to tell."""
    for node in sorted(flow.members(flow.ancestors[value]), key=flow.nodes.index, reverse=True):
        module = flow.module(node)
        if module is not None and any(p.is_floating_point() for p in module.parameters()):
            return str(node.target)
    return ""


def _named(sites: list[Finding], name: str) -> list[Finding]:
    """Gate names: ``se``, or ``se.0``, ``se.1`` ... where a block has several sites."""
    if len(sites) == 1:
        return [replace(sites[0], gate=name)]
    return [replace(site, gate=f"{name}.{i}") for i, site in enumerate(sites)]


def _names() -> Iterator[str]:
    yield "se"
    yield "se_gate"
    yield from (f"se_gate_{i}" for i in itertools.count(2))


def _free_name(cls: type[nn.Module], state: dict[str, Any]) -> str:
    """``se``, unless the block has something of that name; an attribute that is None makes way, as in timm's blocks."""
    taken = {*state["_modules"], *state["_parameters"], *state["_buffers"]}
    taken |= {name for name, value in state.items() if value is not None}
    return next(name for name in _names() if name not in taken and not hasattr(cls, name))


def _free_name_in_graph(module: fx.GraphModule, path: str) -> str:
    prefix = f"{path}." if path else ""
    children = dict(module.named_modules())
    return next(name for name in _names() if prefix + name not in children or _is_ours(children[prefix + name]))


def _is_ours(module: nn.Module) -> bool:
    """Whether a child is a gate of ours, or a container of a block's several gates."""
    gates = [module] if isinstance(module, SqueezeExcitation) else list(module.children())
    return bool(gates) and all(map(is_injected, gates))


def _leaves_block(node: fx.Node) -> bool:
    return any(user.op == "output" for user in node.users)
