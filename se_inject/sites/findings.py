"""What is found in one block, in terms of that block only, so that equal blocks share it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, fx, nn

from ..gate.marks import own_modules
from ..gate.names import numbered
from ..graphs.channels import Feature
from ..graphs.dataflow import Flow
from ..graphs.layers import is_conv
from ..source.edits import Edit
from ..tracing.evaluation import Expression
from .reasons import Reason, Refusal
from .rules.candidate import Candidate
from .site import PAPERS_KINDS, Kind


@dataclass(frozen=True)
class Placement:
    """Where one of a traced model's graphs gets a gate, by node names: ``users`` take the gated value instead."""

    graph: str
    value: str
    users: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """A candidate: where its gate goes, or the reason why it gets none."""

    kind: Kind
    node: str
    reason: Refusal | None = None
    scope: str = ""  # the block's path inside a traced model
    in_graph: bool = False  # of a traced model
    gate: str = ""
    channels: int | None = None
    channels_last: bool = False
    placements: tuple[Placement, ...] = ()  # in the graphs of a traced model
    edits: tuple[Edit, ...] = ()  # in the text of the block's class
    in_slot: bool = False  # whether the author made a place for the gate
    file: str = ""
    line: int = 0
    producer: str = ""  # the child that takes the gate on its output, where the block's forward must stay as it is
    source: str = ""  # the child whose parameters tell the gate's device and dtype
    like: Tensor | None = field(default=None, compare=False)  # a weight that tells them, in a traced model
    inside: frozenset[str] = frozenset()  # the children in the branch or on the paths
    widths: frozenset[int] = frozenset()  # of the layers in the branch; evidence for channels from an example input
    widths_of_linear: frozenset[int] = frozenset()  # the same of linear layers, which work on the last dimension
    shape: tuple[Any, ...] | None = None  # which a tracer noted
    rank: int = 2  # the number of spatial dimensions
    handed_in: bool = False
    keeps_result: bool = False  # whether the gated value is multiplied by a weight, for whose gradient it is kept

    @property
    def key(self) -> tuple[object, ...]:
        """The same layer makes the value in every case of a forward, or its gate would serve another in each."""
        return self.kind, self.channels, self.channels_last, self.source, self.producer

    def without(self, reason: Reason) -> "Finding":
        """The finding without a gate, and why; what is inside may then have gates of its own."""
        return replace(self, reason=Refusal(reason), inside=frozenset())

    def with_channels(self, feature: Feature) -> "Finding":
        """The finding with channels that were measured."""
        return replace(self, channels=feature.channels, channels_last=feature.last)

    def at(self, node: fx.Node) -> "Finding":
        """The finding with the file and the line of a value."""
        places: list[Expression] = node.meta.get("expressions", [])
        place = next((e for e in places if e.of_block), places[0] if places else None)
        return self if place is None else replace(self, file=place.text.filename, line=place.span[0])


@dataclass(frozen=True)
class Analysis:
    """What was found in a block."""

    findings: tuple[Finding, ...]


def named(sites: list[Finding], free: Callable[[str], str]) -> Iterator[Finding]:
    """Sites of the paper's kinds and of others are counted apart, so that choosing other kinds renames no gate."""
    papers = [site for site in sites if site.kind in PAPERS_KINDS]
    others = [site for site in sites if site.kind not in PAPERS_KINDS]
    for group, suffix in ((papers, ""), (others, f"_{others[0].kind}" if papers and others else "")):
        names = numbered(free(suffix), len(group)) if group else []
        yield from (replace(site, gate=name) for site, name in zip(group, names, strict=True))


def accept(candidate: Candidate, flow: Flow, feature: Feature | None) -> Finding:
    """The finding of a candidate that takes a gate, with the channels of its value where the graph tells them."""
    value = candidate.value
    assert value is not None
    inside = called(flow, candidate.region)
    layers = [m for child in inside for m in own_modules(flow.owner.get_submodule(child))]
    widths = {getattr(m, "out_channels", None) for m in layers if is_conv(m)}
    linear = frozenset(m.out_features for m in layers if isinstance(m, nn.Linear))
    widths |= linear
    if value not in flow.members(candidate.region):  # before the branch or beside it
        widths |= {getattr(m, "in_channels", None) for m in layers if is_conv(m)}
    last = feature is not None and feature.last
    return Finding(
        candidate.kind,
        value.name,
        channels=feature.channels if feature else None,
        channels_last=last,
        source=_parameter_source(flow, value),
        inside=inside,
        widths=frozenset(width for width in widths if isinstance(width, int)),
        widths_of_linear=linear,
        rank=max(flow.spatial_ranks(candidate.region), default=2),
        handed_in=candidate.handed_in,
    )


def called(flow: Flow, region: int) -> frozenset[str]:
    """The children that a region calls."""
    return frozenset(str(node.target) for node in flow.members(region) if node.op == "call_module")


def _parameter_source(flow: Flow, value: fx.Node) -> str:
    """The last child before a value that has a floating-point dtype to tell."""
    for node in flow.members_backwards(flow.ancestors[value]):
        module = flow.module(node)
        if module is not None and any(p.is_floating_point() for p in module.parameters()):
            return str(node.target)
    return ""
