"""One block's candidates: traced, judged by the site rules in every case of its forward, counted and named."""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import fx, nn

from .channels import Feature, features
from .expand import expanded
from .explore import explore_block, producer
from .finding import Analysis, Finding, accept, children, merged
from .fingerprint import Fingerprints
from .flow import Flow
from .gate import is_gate, own_modules
from .gating import has_gate
from .graph_module import Call, Scopes, ungated_graph
from .layers import is_conv
from .naming import free_name, free_name_in_graph, numbered
from .overwriting import changes_input, keeps_memory
from .plain import activations, plain_candidates
from .position import Position
from .proxy import UntraceableError
from .rewrite import GatedBlock, Rewrite
from .rules import ALREADY_GATED, NO_COMMON_ANCESTOR, PAPERS_KINDS, Candidate, Kind, block_output, joins
from .trace import Trace, trace_block

CHANNELS_LAST = "its channels are the last dimension (NHWC), which a gate in a traced graph does not serve"


@dataclass
class Analyst:
    """Analyses blocks, each kind of block once, for gates of some kinds in one position."""

    kinds: Collection[Kind] = PAPERS_KINDS
    position: Position = "standard"
    _fingerprints: Fingerprints = field(default_factory=Fingerprints)
    _traces: dict[int, Trace | UntraceableError] = field(default_factory=dict)
    _analyses: dict[tuple[str, int], Analysis] = field(default_factory=dict)

    def analyse(self, block: nn.Module) -> Analysis:
        """The adds and concats of a block that may be gated already. Raises ``UntraceableError``."""
        if isinstance(block, fx.GraphModule):
            return self._analyse_graph_module(block)
        return self._once("joins", block, self._analyse_block)

    def analyse_output(self, block: nn.Module) -> Analysis:
        """What a block returns, as the fellow of blocks that add it to an identity. Raises ``UntraceableError``."""
        return self._once("output", block, partial(self._analyse_rewritable, rule=_output))

    def analyse_plain(self, block: nn.Module) -> Analysis:
        """The activations after a block's convolutions and norms. Raises ``UntraceableError``."""
        if type(block).forward is nn.Sequential.forward:
            return Analysis(tuple(activations(block)))
        return self._once("plain", block, partial(self._analyse_rewritable, rule=plain_candidates))

    def _once(self, what: str, block: nn.Module, analyse: Callable[..., Analysis]) -> Analysis:
        key = what, self._fingerprints.of(type(block), vars(block))
        if key not in self._analyses:
            self._analyses[key] = analyse(*_originally(block), block)
        return self._analyses[key]

    def _analyse_block(self, cls: type[nn.Module], state: dict[str, Any], block: nn.Module) -> Analysis:
        try:
            return self._analyse_rewritable(cls, state, block, self._joins)
        except UntraceableError as error:
            return self._analyse_unrewritable(cls, state, block, error)

    def _joins(self, flow: Flow) -> Iterator[Candidate]:
        return joins(flow, _leaves_block, self.kinds, self.position)

    def _analyse_rewritable(self, cls: type[nn.Module], state: dict[str, Any], block: nn.Module, rule: Any) -> Analysis:
        trace = self._trace(cls, state)
        cases = [[f for _, f in self._findings(self._flow(case.graph, block), rule)] for case in trace.cases]
        accepted = [[finding for finding in case if finding.reason is None] for case in cases]
        refused = [finding for finding in cases[0] if finding.reason is not None]
        sites = merged(accepted)
        if sites is None:
            conditions = sorted({expression for case in trace.cases for expression, _ in case.conditions})
            reason = f"its sites depend on {' and '.join(conditions)}"
            return Analysis((replace(next(f for case in accepted for f in case), reason=reason),), trace)
        left = {f.key for f in accepted[0]} - {site.key for site in sites}
        refused += [replace(finding, reason=NO_COMMON_ANCESTOR) for finding in accepted[0] if finding.key in left]
        named = list(_named(sites, lambda suffix: free_name(cls, state, suffix)))
        displaced = frozenset({site.gate.partition(".")[0] for site in named} & set(state))
        return Analysis((*named, *refused), trace, displaced)

    def _analyse_unrewritable(
        self, cls: type[nn.Module], state: dict[str, Any], block: nn.Module, error: UntraceableError
    ) -> Analysis:
        """A forward that stays as it is: sites are outputs of children, the same on every way through it."""
        if self.position != "standard":
            raise error
        try:
            graphs = explore_block(cls, state)
        except UntraceableError:
            raise error from None
        sites: dict[str, Finding] = {}
        others: list[Finding] = []
        ways: list[tuple[set[str], list[str]]] = []  # the producers of sites on each way, and all calls
        for graph in graphs:
            producers = set()
            flow = self._flow(graph, block)
            for candidate, finding in self._findings(flow, self._joins):
                if finding.reason is not None:
                    others.append(finding)
                    continue
                path = producer(flow, candidate)
                if path is None or finding.handed_in:
                    raise error
                producers.add(path)
                sites.setdefault(path, replace(finding, producer=path, placements=()))
            ways.append((producers, [str(node.target) for node in graph.nodes if node.op == "call_module"]))
        if any(_is_called(path, calls) for producers, calls in ways for path in sites.keys() - producers):
            raise error  # on another way the same output is something else
        named = [replace(site, gate=_output_gate(block.get_submodule(path))) for path, site in sites.items()]
        return Analysis((*named, *{other.node: other for other in others}.values()))

    def _analyse_graph_module(self, module: fx.GraphModule) -> Analysis:
        graph = ungated_graph(module)
        scopes = Scopes(graph)
        calls: dict[Call, list[Finding]] = {}

        def rule(flow: Flow) -> Iterator[Candidate]:
            return joins(flow, scopes.leaves, self.kinds, self.position)

        for candidate, finding in self._findings(self._flow(graph, module), rule, scopes):
            call = scopes.innermost(candidate.join)
            if finding.reason is None and finding.handed_in:
                finding = replace(finding, reason=NO_COMMON_ANCESTOR)
            if finding.reason is None and finding.channels_last:
                finding = replace(finding, reason=CHANNELS_LAST)
            calls.setdefault(call, []).append(replace(finding, scope=call.path))
        found: dict[tuple[str, str], Finding] = {}
        for call, findings in calls.items():
            accepted = [finding for finding in findings if finding.reason is None]
            refused = [finding for finding in findings if finding.reason is not None]
            named = _named(accepted, lambda suffix, path=call.path: free_name_in_graph(module, path, suffix))
            for finding in (*named, *refused):
                key = (call.path, finding.gate or finding.node)
                # A block that is called again has the same gate in another place.
                again = found.get(key)
                found[key] = replace(again, placements=again.placements + finding.placements) if again else finding
        return Analysis(tuple(found.values()))

    def _flows(self, module: nn.Module) -> list[Flow]:
        return [Flow(graph, module, self.depth_of, self.starts_in_place) for graph in self.graphs_of(module)]

    def _flow(self, graph: fx.Graph, owner: nn.Module) -> Flow:
        return Flow(expanded(graph, owner, self.graphs_of), owner, self.depth_of, self.starts_in_place)

    def _findings(self, flow: Flow, rule: Any, scopes: Scopes | None = None) -> Iterator[tuple[Candidate, Finding]]:
        candidates: Sequence[Candidate] = list(rule(flow))
        own_nodes = scopes.own_nodes(flow, [c.join for c in candidates]) if scopes else lambda join: flow.everything
        known: dict[fx.Node, Feature | None] = {}
        if any(c.value for c in candidates):
            known = features(flow.nodes[0].graph, flow.owner, self.graphs_of)
        for candidate in candidates:
            if candidate.value is None:
                yield candidate, Finding(candidate.kind, candidate.join.name, candidate.reason)
            elif has_gate(flow, candidate.region & own_nodes(candidate.join), self):
                inside = children(flow, candidate.region)
                yield candidate, Finding(candidate.kind, candidate.join.name, ALREADY_GATED, inside=inside)
            else:
                yield candidate, accept(candidate, flow, known[candidate.value])

    def has_own_gate(self, module: nn.Module) -> bool:
        """Whether a child is a channel gate or holds one that is not the gate of a block inside the child."""
        if is_gate(module):
            return True
        if not has_own_forward(module):
            return any(map(self.has_own_gate, module.children()))
        for graph in self.graphs_of(module):
            flow = self._flow(graph, module)
            if any(candidate.value is not None for candidate in joins(flow, _leaves_block, PAPERS_KINDS, "standard")):
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
        if not any(map(is_conv, own_modules(module))):
            return 0
        flows = self._flows(module)
        if not flows:  # it cannot be traced
            return sum(map(is_conv, own_modules(module)))
        return max(flow.conv_depth(flow.everything) for flow in flows)

    def starts_in_place(self, module: nn.Module) -> bool:
        """Whether a child changes its input."""
        if not module._modules and not has_own_forward(module):
            return bool(getattr(module, "inplace", False))
        if type(module).forward is nn.Sequential.forward:
            changing = (child for child in module.children() if not keeps_memory(child))
            return any(map(self.starts_in_place, itertools.islice(changing, 1)))
        flows = self._flows(module)
        if not flows:  # it cannot be traced
            return any(getattr(m, "inplace", False) for m in own_modules(module))
        return any(map(changes_input, flows))

    def squeezes(self, module: nn.Module) -> bool:
        """Whether a child averages over all positions anywhere inside."""
        if not has_own_forward(module):
            return any(map(self.squeezes, module.children()))
        flows = self._flows(module)
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


def _named(sites: list[Finding], free: Any) -> Iterator[Finding]:
    """Sites of the paper's kinds and of others are counted apart, so that choosing other kinds renames no gate."""
    papers = [site for site in sites if site.kind in PAPERS_KINDS]
    others = [site for site in sites if site.kind not in PAPERS_KINDS]
    for group, suffix in ((papers, ""), (others, f"_{others[0].kind}" if papers and others else "")):
        names = numbered(free(suffix), len(group)) if group else []
        yield from (replace(site, gate=name) for site, name in zip(group, names, strict=True))


def _output_gate(module: nn.Module) -> str:
    """The name of a gate on a child's output, which must not be that of the gates inside the child."""
    return free_name(*_originally(module), suffix="_out" if has_own_forward(module) else "")


def _is_called(path: str, calls: list[str]) -> bool:
    return any(f"{path}.".startswith(f"{call}.") for call in calls)


def _output(flow: Flow) -> Iterator[Candidate]:
    candidate = block_output(flow)
    return iter(()) if candidate is None else iter((candidate,))


def _leaves_block(node: fx.Node) -> bool:
    return any(user.op == "output" for user in node.users)
