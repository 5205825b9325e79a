"""One block's candidates: judged by the site rules on every way through its forward, counted, placed and named."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import fx, nn
from torch.nn.utils import parametrize

from ..gate.names import free_name
from ..gate.record import originally
from ..graphs.channels import Feature, features
from ..graphs.dataflow import Flow
from ..graphs.folded import Folded
from ..graphs.layers import is_sequential
from ..graphs.traced import is_traced
from ..tracing.capture import Capture, capture
from ..tracing.errors import UntraceableError
from ..tracing.gate_places import Placer, ValueUses, slots_fit
from .adapters import adapted
from .children import Children, has_own_forward, leaves_block
from .existing_gates import has_gate, unreadable
from .findings import Analysis, Finding, accept, called, named
from .grouping import Entry, grouped
from .kept_results import keeps_results
from .output_gate import producer
from .reasons import Reason, Refusal
from .rules.candidate import Candidate
from .rules.joins import block_output, joins
from .rules.plain import activations, plain_candidates
from .site import PAPERS_KINDS, Kind, Position
from .traced import findings_in
from .wrapped import is_wrapped

Rule = Callable[[Flow], Iterator[Candidate]]


@dataclass
class BlockAnalyzer:
    """Analyses blocks, each kind of block once, for gates of some kinds in one position."""

    kinds: Collection[Kind] = PAPERS_KINDS
    position: Position = "standard"
    children: Children = field(default_factory=Children)
    _analyses: dict[tuple[str, int], Analysis] = field(default_factory=dict)

    def analyse(self, block: nn.Module) -> Analysis:
        """The adds and concats of a block that may be gated already. Raises ``UntraceableError``."""
        if is_traced(block):
            return Analysis(tuple(findings_in(block, self._judged)))
        return self._once("joins", block, self._joins)

    def analyse_output(self, block: nn.Module) -> Analysis:
        """What a block returns, as the fellow of blocks that add it to an identity. Raises ``UntraceableError``."""
        return self._once("output", block, _output)

    def analyse_plain(self, block: nn.Module) -> Analysis:
        """The activations after a block's convolutions and norms. Raises ``UntraceableError``."""
        if is_sequential(block):
            return Analysis(tuple(activations(block)))
        return self._once("plain", block, plain_candidates)

    def can_hold_gate(self, module: nn.Module) -> bool:
        """Whether a module's class can be extended by a gate on its output, for good.

        >>> BlockAnalyzer().can_hold_gate(nn.ReLU()), BlockAnalyzer().can_hold_gate(nn.LazyConv2d(8, 1))
        (True, False)
        """
        changes_class = isinstance(module, nn.modules.lazy.LazyModuleMixin) or parametrize.is_parametrized(module)
        is_container = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) or is_traced(module)
        is_called = type(module).__call__ is nn.Module.__call__ and "forward" not in vars(module)
        is_others = is_wrapped(module) or adapted(module) is not None
        return is_called and not (changes_class or is_container or is_others or self._loops(module))

    def _loops(self, module: nn.Module) -> bool:
        """Whether a gate would be run as one of a module's children, or its class makes a difference."""
        if not has_own_forward(module):
            return False
        try:
            captured = self.children.capture(module)
            return bool(captured.walks) or "" in captured.asked
        except UntraceableError:
            return bool(module._modules)

    def _once(self, what: str, block: nn.Module, rule: Rule) -> Analysis:
        key = what, self.children.fingerprints.of(type(block), vars(block))
        if key not in self._analyses:
            self._analyses[key] = self._analyse_text(block, rule)
        return self._analyses[key]

    def _joins(self, flow: Flow) -> Iterator[Candidate]:
        return joins(flow, leaves_block, self.kinds, self.position)

    def _analyse_text(self, block: nn.Module, rule: Rule) -> Analysis:
        captured = self.children.capture(block)
        entries: list[Entry] = []
        refused: dict[str, Finding] = {}
        for i, way in enumerate(captured.ways):
            flow = self.children.flow(way.graph, block)
            for candidate, finding in self._findings(flow, rule):
                if finding.reason is None:
                    entries.append(Entry(i, flow, candidate, finding))
                else:
                    refused.setdefault(finding.node, finding)
        groups, unconfirmed = grouped(entries, captured.ways)
        for finding in unconfirmed:
            refused.setdefault(finding.node, finding)
        cls, state = originally(block)
        placer = Placer(cls, captured)
        placed = [self._placed(group, captured, placer, block) for group in groups]
        sites = [finding for finding in placed if finding.reason is None]
        reads = {name for path, name in captured.reads | captured.writes if path == ""}
        if len([s for s in sites if not s.producer]) == 1:
            sites = [self._in_slot(s, groups[placed.index(s)], captured, cls, state, block) for s in sites]
        written = [site for site in sites if not (site.producer or site.in_slot)]
        with_names = list(named(written, lambda suffix: free_name(cls, state, suffix, reads)))
        others = [site for site in sites if site not in written] + [f for f in placed if f.reason is not None]
        return Analysis((*with_names, *others, *refused.values()))

    def _placed(self, group: list[Entry], captured: Capture, placer: Placer, block: nn.Module) -> Finding:
        """The finding of a group, with the place of its gate in the text or on the output of a child."""
        finding = group[0].finding
        if finding.reason is not None:
            return finding
        if "" not in captured.asked:
            for targets in _alternatives(group, self.position):
                if edits := placer.edits(targets):
                    uses = ((entry.flow, target.users) for entry, target in zip(group, targets, strict=True))
                    return replace(finding, edits=edits, keeps_result=keeps_results(uses))
        path = self._common_producer(group, captured)
        made_by_adapter = path is not None and adapted(block.get_submodule(path)) is not None
        if path is not None and not self.can_hold_gate(block.get_submodule(path)):
            path = None
        if path is None and "" not in captured.asked:
            for targets in _alternatives(group, self.position):
                if edits := placer.edits_in_rounds(targets):
                    return replace(finding, edits=edits)
        if path is None:
            asks = "" in captured.asked
            loops = bool(captured.walks)
            reason = Reason.ASKS_FOR_CLASS if asks else Reason.WALKED_BY_ITSELF if loops else Reason.NO_PLACE
            return finding.without(Reason.ADAPTER if made_by_adapter else reason)
        return replace(finding, producer=path, gate=_output_gate(block.get_submodule(path)))

    def _common_producer(self, group: list[Entry], captured: Capture) -> str | None:
        """The child whose output the value is on every way on which the child is called."""
        paths = {producer(entry.flow, entry.candidate) for entry in group}
        path = paths.pop() if len(paths) == 1 else None
        if path is None or self.position != "standard":
            return None
        with_site = {entry.way for entry in group}
        others = [way for i, way in enumerate(captured.ways) if i not in with_site]
        calls = [str(node.target) for way in others for node in way.graph.nodes if node.op == "call_module"]
        return None if any(f"{path}.".startswith(f"{call}.") for call in calls) else path

    def _in_slot(
        self,
        site: Finding,
        group: list[Entry],
        captured: Capture,
        cls: type[nn.Module],
        state: dict[str, object],
        block: nn.Module,
    ) -> Finding:
        """The site with its gate in the place that the author made, ``self.se``, if there is one exactly there."""
        if site.producer or ("", "se") not in captured.reads or state.get("se", 0) is not None:
            return site
        children = {**state["_modules"], "se": nn.Identity()}  # type: ignore[dict-item]
        filled = {**{name: value for name, value in state.items() if name != "se"}, "_modules": children}
        try:
            with_child = capture(cls, filled, block)
        except UntraceableError:
            return site
        fits = slots_fit(captured, with_child, [entry.target for entry in group], "se")
        return replace(site, in_slot=True, gate="se", edits=()) if fits else site

    def _judged(self, call: Folded) -> Iterator[tuple[Candidate, Finding]]:
        return self._findings(self.children.flow(call.graph, call), self._joins)

    def _findings(self, flow: Flow, rule: Rule) -> Iterator[tuple[Candidate, Finding]]:
        candidates: Sequence[Candidate] = list(rule(flow))
        known: dict[fx.Node, Feature | None] = {}
        if any(c.value for c in candidates):
            known = features(flow.nodes[0].graph, flow.owner, self.children.graphs_of)
        for candidate in candidates:
            yield candidate, self._finding(candidate, flow, known)

    def _finding(self, candidate: Candidate, flow: Flow, known: dict[fx.Node, Feature | None]) -> Finding:
        """What a candidate comes to: it is refused, has a gate already, cannot be read, or takes a gate."""
        refusal, inside = candidate.reason, frozenset[str]()
        if refusal is None and has_gate(flow, candidate.region, self.children):
            refusal, inside = Refusal(Reason.ALREADY_GATED), called(flow, candidate.region)
        if refusal is None:
            refusal = unreadable(flow, candidate.region, self.children)
        if refusal is not None or candidate.value is None:
            finding = Finding(candidate.kind, candidate.join.name, refusal, inside=inside)
            return finding.at(candidate.join)
        finding = accept(candidate, flow, known[candidate.value]).at(candidate.value)
        return finding if finding.file else finding.at(candidate.join)


def _output_gate(module: nn.Module) -> str:
    """The name of a gate on a child's output, which must not be that of the gates inside the child."""
    return free_name(*originally(module), suffix="_out" if has_own_forward(module) else "")


def _alternatives(group: list[Entry], position: Position) -> Iterator[list[ValueUses]]:
    """The places of a gate on all ways, best first; the last is the same on each, just at the add."""
    if position != "standard":
        yield [entry.target for entry in group]
        return
    places = [list(entry.targets) for entry in group]
    yield from map(list, zip(*places, strict=False))
    yield [targets[-1] for targets in places]


def _output(flow: Flow) -> Iterator[Candidate]:
    candidate = block_output(flow)
    return iter(()) if candidate is None else iter((candidate,))
