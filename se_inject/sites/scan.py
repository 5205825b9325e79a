"""Reading a whole model: every block's findings, as sites with qualified names and known channels."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from torch import fx, nn

from ..gate.record import originally
from ..gate.squeeze_excitation import injected_channels, is_gate
from ..graphs.channels import Feature
from ..graphs.inlining import joins_its_inputs
from ..graphs.layers import is_conv, is_sequential, rank
from ..probe import measure_channels
from ..source.place import where
from ..tracing.capture import Capture
from ..tracing.errors import UntraceableError
from .analyzer import CHANNELS_LAST, Analyst
from .children import has_own_forward
from .findings import Finding
from .qualified import is_at_or_below, join, with_parents
from .rules.candidate import ALREADY_GATED
from .selection import Selection
from .site import Position, Site, Skipped, check_position
from .wrapped import check_model, is_wrapped

FILTERED = "left out by kinds or where"
CHANNELS_UNKNOWN = "the graph does not tell its channels: pass example_inputs"


class Skip(NamedTuple):
    """A candidate that is no site, and why; ``where`` is the file and the line."""

    path: str
    reason: str
    where: str = ""

    @property
    def told(self) -> Skipped:
        """What users get to see."""
        has_place = not self.where or re.search(r":\d+\)$", self.reason)
        return Skipped(self.path, self.reason if has_place else f"{self.reason} ({self.where})")


@dataclass(frozen=True)
class Found:
    """A site with what surgery needs to gate it."""

    site: Site
    block_path: str  # of the module that was analysed
    block: nn.Module  # the module that changes: that one, or its child that makes the value
    finding: Finding


class Survey:
    """All that reading a model tells, for ``find_sites`` to show and ``apply`` to act on."""

    def __init__(self, model: nn.Module, selection: Selection, position: Position, example_inputs: Any) -> None:
        check_model(model)
        check_position(position)
        self.found: list[Found] = []
        self.skipped: list[Skip] = []
        self.asked_again = 0  # selected sites that have their gate already
        self._selection = selection
        self._unreadable: set[str] = set()
        self._analyst = Analyst(selection.kinds, position)
        self._modules = dict(model.named_modules())
        self._places = Counter(module for _, module in model.named_modules(remove_duplicate=False))
        candidates = list(self._candidates())
        for found in self._with_channels(model, list(self._ungated(candidates)), example_inputs):
            if selection.selects(found.site):
                self.found.append(found)
            else:
                self.skipped.append(Skip(found.site.path, FILTERED))

    def _ungated(self, candidates: list[Found]) -> Iterator[Found]:
        """The candidates that take a gate and have none; notes why the others do not."""
        inside = {join(found.block_path, child) for found in candidates for child in found.finding.inside}
        for found in candidates:
            reason = found.finding.reason
            is_concat = found.site.kind in ("inception", "dense")
            if reason is None and is_concat and not inside.isdisjoint(with_parents(found.site.path)):
                reason = "its concat is a part of a larger block"
            gated = self._gated_channels(found.site.gate_path)
            if reason is None and gated is not None:
                reason = ALREADY_GATED
                self.asked_again += self._selection.selects(found.site.with_channels(gated))
            if reason is None and self._has_asked_class(found):
                reason = "its parent asks for its class, which a gate would change"
            if reason is None and self._is_walked(found):
                reason = "a module around it walks through its children, among which the gate would be"
            if reason is None and self._is_bypassed(found):
                reason = "its forward is not what runs: a module around it calls what is in it"
            if reason is None and found.finding.producer and not self._can_hold_gate(found):
                reason = f"the child that makes its value ({found.finding.producer}) is shared or cannot hold a gate"
            if reason is None:
                yield found
            else:
                self.skipped.append(Skip(found.site.path, reason, _where(found)))

    def _gated_channels(self, gate_path: str) -> int | None:
        """The channels of a gate that is there already; in another position a block may have fewer, or more, gates."""
        there, above = self._modules.get(gate_path), self._modules.get(gate_path.rpartition(".")[0])
        several = there.children() if there is not None and type(there) in (nn.Module, nn.ModuleDict) else ()
        return next((n for gate in (there, above, *several) if (n := injected_channels(gate)) is not None), None)

    def _can_hold_gate(self, found: Found) -> bool:
        """Whether the child that makes a value serves its block alone."""
        block, path = found.block_path, join(found.block_path, found.finding.producer)
        is_called_elsewhere = any(
            called.startswith(f"{block}.") and is_at_or_below(path, called) and not is_at_or_below(caller, block)
            for called, caller in self._calls
            if block
        )
        return self._places[found.block] == 1 and self._analyst.can_hold_gate(found.block) and not is_called_elsewhere

    def _has_asked_class(self, found: Found) -> bool:
        """Whether a module around a block looks at the class that a gate would change."""
        changed = join(found.block_path, found.finding.producer)
        return changed in self._asked and not found.finding.in_slot and not isinstance(found.block, fx.GraphModule)

    def _is_walked(self, found: Found) -> bool:
        """Whether a forward around a block walks through the block's children."""
        return join(found.block_path, found.finding.producer) in self._walked

    @cached_property
    def _walked(self) -> set[str]:
        """The modules whose children a forward around them walks through."""
        return {join(path, child) for path, captured in self._captured for child in captured.walked}

    def _is_bypassed(self, found: Found) -> bool:
        """Whether a forward around a block calls its children, and none calls the block."""
        path = found.block_path
        if not path or isinstance(found.block, fx.GraphModule):
            return False
        if any(called == path for called, _ in self._calls):
            return False
        return any(called.startswith(f"{path}.") and not is_at_or_below(by, path) for called, by in self._calls)

    @cached_property
    def _captured(self) -> list[tuple[str, Capture]]:
        """All that forwards do, by their modules."""
        captured = []
        for path, module in self._modules.items():
            if has_own_forward(module) and not isinstance(module, fx.GraphModule):
                with suppress(UntraceableError):
                    captured.append((path, self._analyst.children.capture(module)))
        return captured

    @cached_property
    def _asked(self) -> set[str]:
        """The modules whose class a forward of a module above asks for."""
        return {join(path, child) for path, captured in self._captured for child in captured.asked - {""}}

    @cached_property
    def _calls(self) -> set[tuple[str, str]]:
        """Which child each forward calls: the paths of the child and of the caller."""
        return {
            (join(path, str(node.target)), path)
            for path, module in self._modules.items()
            if has_own_forward(module) and not isinstance(module, fx.GraphModule)
            for graph in self._analyst.children.graphs_of(module)
            for node in graph.nodes
            if node.op == "call_module"
        }

    def _candidates(self) -> Iterator[Found]:
        convolutional = _with_convolutions(self._modules[""])
        blocks: dict[str, nn.Module] = {}
        left_alone: list[str] = []  # gates and wrapped modules, with all that is in them
        for path, module in self._modules.items():
            if path not in convolutional or path.startswith(tuple(left_alone)):
                continue
            if is_wrapped(module) or is_gate(module):
                left_alone.append(f"{path}.")
                if not is_gate(module):
                    reason = "it is wrapped or compiled already: apply first, then wrap"
                    self.skipped.append(Skip(path, reason, _where_defined(module)))
            elif not isinstance(module, nn.modules.conv._ConvNd):
                blocks[path] = module
        by_path: dict[str, list[Found]] = {}
        for path, module in blocks.items():
            if isinstance(module, fx.GraphModule) or has_own_forward(module) or self._joins(module):
                by_path[path] = list(self._found(path, module, self._analyst.analyse))
                yield from by_path[path]
        if "noskip" in self._selection.kinds:
            yield from self._without_identity(blocks, by_path)
        if "plain" in self._selection.kinds:
            yield from self._plain(blocks, by_path)

    def _joins(self, module: nn.Module) -> bool:
        """Whether a module of torch's has steps that join what others return, or is called in its own way."""
        children = module.children() if is_sequential(module) else ()
        graphs_of = self._analyst.children.graphs_of
        return _replaces_call(module) or any(has_own_forward(c) and joins_its_inputs(c, graphs_of) for c in children)

    def _found(self, path: str, module: nn.Module, analyse: Any) -> Iterator[Found]:
        try:
            if _replaces_call(module):
                raise UntraceableError("its class replaces __call__")
            if isinstance(module, fx.GraphModule) and type(module).train is not nn.Module.train:
                raise UntraceableError("its train() swaps graphs: apply to the model that it was made from")
            analysis = analyse(module)
        except UntraceableError as error:
            self._unreadable.add(path)
            self.skipped.append(Skip(path, f"its forward cannot be followed: {error}", _where_defined(module)))
            return
        for finding in analysis.findings:
            block_path = join(path, finding.scope)
            gate_path = join(join(block_path, finding.producer), finding.gate)
            if finding.kind == "plain":  # its block is the activation, not the Sequential around it
                block_path = join(block_path, finding.producer)
            channels = finding.channels or 0
            site = Site(block_path, finding.kind, finding.node, channels, gate_path, finding.file, finding.line)
            block = module.get_submodule(finding.producer)
            yield Found(site, path, block, finding)

    def _without_identity(self, blocks: dict[str, nn.Module], by_path: dict[str, list[Found]]) -> Iterator[Found]:
        """The blocks without a join whose class has others with one that is gated."""
        gated = {
            _original_class(blocks[path])
            for path, founds in by_path.items()
            if any(found.site.kind == "residual" and found.finding.reason is None for found in founds)
        }
        for path, founds in by_path.items():
            if not founds and _original_class(blocks[path]) in gated:
                by_path[path] = list(self._found(path, blocks[path], self._analyst.analyse_output))
                yield from by_path[path]

    def _plain(self, blocks: dict[str, nn.Module], by_path: dict[str, list[Found]]) -> Iterator[Found]:
        """The activations of plain networks: outside of all blocks and of modules with gates of their own."""
        founds = [found for founds in by_path.values() for found in founds]
        inside = {join(found.block_path, child) for found in founds for child in found.finding.inside}
        inside |= self._unreadable - {""}
        for path, module in blocks.items():
            if by_path.get(path) or isinstance(module, fx.GraphModule) or not inside.isdisjoint(with_parents(path)):
                continue
            if self._analyst.children.has_own_gate(module):
                inside.add(path)
            elif is_sequential(module) and self._is_run_by_others(path):
                continue  # the forward that runs its children one by one has these sites
            elif has_own_forward(module) or is_sequential(module):
                yield from self._found(path, module, self._analyst.analyse_plain)

    def _is_run_by_others(self, sequential: str) -> bool:
        return any(
            called.startswith(f"{sequential}.") and not is_at_or_below(caller, sequential)
            for called, caller in self._calls
        )

    def _with_channels(self, model: nn.Module, candidates: list[Found], example_inputs: Any) -> Iterator[Found]:
        unknown = [found for found in candidates if found.finding.channels is None]
        measured: dict[Site, Feature | str] = {}
        if unknown and example_inputs is None:
            measured = {found.site: CHANNELS_UNKNOWN for found in unknown}
        elif unknown:
            paths = [join(found.block_path, found.finding.producer) for found in unknown]
            wanted = [(path, found.finding) for path, found in zip(paths, unknown, strict=True)]
            features = measure_channels(model, wanted, example_inputs)
            measured = dict(zip([found.site for found in unknown], features, strict=True))
        for found in candidates:
            feature = measured.get(found.site)
            if isinstance(feature, Feature) and feature.last and isinstance(found.block, fx.GraphModule):
                feature = CHANNELS_LAST
            if isinstance(feature, str):
                self.skipped.append(Skip(found.site.path, feature, _where(found)))
            elif feature is None:
                yield found
            else:
                site = found.site.with_channels(feature.channels)
                yield replace(found, site=site, finding=found.finding.with_channels(feature))


def _where(found: Found) -> str:
    return where(found.site.file, found.site.line) if found.site.file else ""


def _where_defined(module: nn.Module) -> str:
    """The file and the line of a forward, where it is a function."""
    code = getattr(getattr(type(module), "forward", None), "__code__", None)
    return "" if code is None else where(code.co_filename, code.co_firstlineno)


def _replaces_call(module: nn.Module) -> bool:
    return type(module).__call__ is not nn.Module.__call__ and not isinstance(module, fx.GraphModule)


def _original_class(module: nn.Module) -> type[nn.Module]:
    return originally(module)[0]


def _with_convolutions(model: nn.Module) -> set[str]:
    """The paths of all modules that hold a convolution, or the weight of one, shared with others or not."""
    paths: set[str] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        if is_conv(module) or any(rank(p) >= 3 for p in module.parameters(recurse=False)):
            paths.update(("", *with_parents(path)))
    return paths
