"""One block's candidates: traced, judged by the site rules in every case of its forward, counted and named."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import fx, nn

from .channels import Feature, features
from .children import Children, has_own_forward, leaves_block, originally
from .explore import explore_block, producer
from .finding import Analysis, Finding, accept, called, merged
from .flow import Flow
from .gating import has_gate
from .graph_module import Call, Scopes, ungated_graph
from .naming import free_name, free_name_in_graph, numbered
from .plain import activations, plain_candidates
from .position import Position
from .proxy import UntraceableError
from .rules import ALREADY_GATED, NO_COMMON_ANCESTOR, PAPERS_KINDS, Candidate, Kind, block_output, joins

CHANNELS_LAST = "its channels are the last dimension (NHWC), which a gate in a traced graph does not serve"


@dataclass
class Analyst:
    """Analyses blocks, each kind of block once, for gates of some kinds in one position."""

    kinds: Collection[Kind] = PAPERS_KINDS
    position: Position = "standard"
    children: Children = field(default_factory=Children)
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
        key = what, self.children.fingerprints.of(type(block), vars(block))
        if key not in self._analyses:
            self._analyses[key] = analyse(*originally(block), block)
        return self._analyses[key]

    def _analyse_block(self, cls: type[nn.Module], state: dict[str, Any], block: nn.Module) -> Analysis:
        try:
            return self._analyse_rewritable(cls, state, block, self._joins)
        except UntraceableError as error:
            return self._analyse_unrewritable(cls, state, block, error)

    def _joins(self, flow: Flow) -> Iterator[Candidate]:
        return joins(flow, leaves_block, self.kinds, self.position)

    def _analyse_rewritable(self, cls: type[nn.Module], state: dict[str, Any], block: nn.Module, rule: Any) -> Analysis:
        trace = self.children.trace(cls, state)
        cases = [[f for _, f in self._findings(self.children.flow(case.graph, block), rule)] for case in trace.cases]
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
            flow = self.children.flow(graph, block)
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

        for candidate, finding in self._findings(self.children.flow(graph, module), rule, scopes):
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

    def _findings(self, flow: Flow, rule: Any, scopes: Scopes | None = None) -> Iterator[tuple[Candidate, Finding]]:
        candidates: Sequence[Candidate] = list(rule(flow))
        own_nodes = scopes.own_nodes(flow, [c.join for c in candidates]) if scopes else lambda join: flow.everything
        known: dict[fx.Node, Feature | None] = {}
        if any(c.value for c in candidates):
            known = features(flow.nodes[0].graph, flow.owner, self.children.graphs_of)
        for candidate in candidates:
            if candidate.value is None:
                yield candidate, Finding(candidate.kind, candidate.join.name, candidate.reason)
            elif has_gate(flow, candidate.region & own_nodes(candidate.join), self.children):
                inside = called(flow, candidate.region)
                yield candidate, Finding(candidate.kind, candidate.join.name, ALREADY_GATED, inside=inside)
            else:
                yield candidate, accept(candidate, flow, known[candidate.value])


def _named(sites: list[Finding], free: Any) -> Iterator[Finding]:
    """Sites of the paper's kinds and of others are counted apart, so that choosing other kinds renames no gate."""
    papers = [site for site in sites if site.kind in PAPERS_KINDS]
    others = [site for site in sites if site.kind not in PAPERS_KINDS]
    for group, suffix in ((papers, ""), (others, f"_{others[0].kind}" if papers and others else "")):
        names = numbered(free(suffix), len(group)) if group else []
        yield from (replace(site, gate=name) for site, name in zip(group, names, strict=True))


def _output_gate(module: nn.Module) -> str:
    """The name of a gate on a child's output, which must not be that of the gates inside the child."""
    return free_name(*originally(module), suffix="_out" if has_own_forward(module) else "")


def _is_called(path: str, calls: list[str]) -> bool:
    return any(f"{path}.".startswith(f"{call}.") for call in calls)


def _output(flow: Flow) -> Iterator[Candidate]:
    candidate = block_output(flow)
    return iter(()) if candidate is None else iter((candidate,))
