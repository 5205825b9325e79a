"""Reading a whole model: every block's findings, as sites with qualified names."""

from collections.abc import Collection, Iterator
from typing import Any

from torch import nn

from ..gate.marks import injection_of, is_gate
from ..gate.record import originally
from ..gate.squeeze_excitation import SqueezeExcitation, channels_of
from ..graphs.inlining import joins_its_inputs
from ..graphs.layers import is_conv, is_sequential, rank
from ..graphs.modes import quantization
from ..graphs.traced import gate_paths, is_traced, read_with
from ..source.locations import where
from ..tracing.errors import UntraceableError
from .adapters import adapted
from .analyzer import BlockAnalyzer
from .children import has_own_forward
from .qualified_names import join, with_parents
from .reasons import Reason, Refusal
from .site import PAPERS_KINDS, Kind, Position, Site
from .surroundings import Surroundings
from .target import Skip, Target
from .wrapped import is_wrapped


class ModelScan:
    """The targets of a model, and the candidates that are none; of some targets the channels are still to be measured.

    >>> len(ModelScan(nn.Sequential(nn.ReLU())).targets)
    0
    """

    def __init__(
        self, model: nn.Module, kinds: Collection[Kind] = PAPERS_KINDS, position: Position = "standard"
    ) -> None:
        self.skipped: list[Skip] = []
        self.gated: list[Site] = []  # those that have their gate already
        self._kinds = kinds
        self._gates: dict[nn.Module, set[str]] = {}
        self._unreadable: set[str] = set()
        self._analyzer = BlockAnalyzer(kinds, position)
        self._modules = dict(model.named_modules())
        self._around = Surroundings(model, self._modules, self._analyzer)
        self.targets = list(self._ungated(list(self._candidates())))

    def _ungated(self, candidates: list[Target]) -> Iterator[Target]:
        """The candidates that take a gate and have none; notes why the others do not."""
        inside = {join(target.block_path, child) for target in candidates for child in target.finding.inside}
        for target in candidates:
            refusal = target.finding.reason or self._refusal(target, inside)
            if refusal is None:
                yield target
            else:
                self.skipped.append(Skip(target.site.path, refusal, target.place))

    def _refusal(self, target: Target, inside: set[str]) -> Refusal | None:
        is_concat = target.site.kind in ("inception", "dense")
        if is_concat and not inside.isdisjoint(with_parents(target.site.path)):
            return Refusal(Reason.PART_OF_BLOCK)
        gated = self._gated_channels(target)
        if gated is not None:
            self.gated.append(target.site.with_channels(gated))
            return Refusal(Reason.ALREADY_GATED)
        return self._around.refusal(target)

    def _gated_channels(self, target: Target) -> int | None:
        """The channels of a gate that is there already; in another position a block may have fewer, or more, gates."""
        gate_path = target.site.gate_path
        if target.finding.in_graph and join(target.finding.scope, target.finding.gate) in self._in_graphs(target.block):
            return target.site.channels
        there, above = self._modules.get(gate_path), self._modules.get(gate_path.rpartition(".")[0])
        several = there.children() if there is not None and type(there) in (nn.Module, nn.ModuleDict) else ()
        for gate in (there, above, *several):
            if (known := injection_of(gate)) is not None:
                return (isinstance(gate, SqueezeExcitation) and channels_of(gate)) or known.channels
        return None

    def _in_graphs(self, traced: nn.Module) -> set[str]:
        """The paths of the gates in a traced model."""
        if traced not in self._gates:
            self._gates[traced] = gate_paths(traced)
        return self._gates[traced]

    def _candidates(self) -> Iterator[Target]:
        convolutional = _with_convolutions(self._modules[""])
        blocks: dict[str, nn.Module] = {}
        left_alone: list[str] = []  # gates and wrapped modules, with all that is in them
        for path, module in self._modules.items():
            if f"{path}.".startswith(tuple(left_alone)) or not (path in convolutional or is_traced(module)):
                continue
            if is_wrapped(module) or is_gate(module):
                left_alone.append(f"{path}.")
                if not is_gate(module):
                    self.skipped.append(Skip(path, Refusal(Reason.WRAPPED), _where_defined(module)))
            elif is_traced(module) and (node := quantization(module)) is not None:
                left_alone.append(f"{path}." if path else "")
                self.skipped.append(Skip(path, Refusal(Reason.QUANTIZED, node)))
            elif not (isinstance(module, nn.modules.conv._ConvNd) or adapted(module) is not None):
                blocks[path] = module
                left_alone += (f"{join(path, child)}." for child in read_with(module))
        by_path: dict[str, list[Target]] = {}
        for path, module in blocks.items():
            if is_traced(module) or has_own_forward(module) or self._joins(module):
                by_path[path] = list(self._found(path, module, self._analyzer.analyse))
                yield from by_path[path]
        if "noskip" in self._kinds:
            yield from self._without_identity(blocks, by_path)
        if "plain" in self._kinds:
            yield from self._plain(blocks, by_path)

    def _joins(self, module: nn.Module) -> bool:
        """Whether a module of torch's has steps that join what others return, or is called in its own way."""
        children = module.children() if is_sequential(module) else ()
        graphs_of = self._analyzer.children.graphs_of
        return _replaces_call(module) or any(has_own_forward(c) and joins_its_inputs(c, graphs_of) for c in children)

    def _found(self, path: str, module: nn.Module, analyse: Any) -> Iterator[Target]:
        try:
            if _replaces_call(module):
                raise UntraceableError("its class replaces __call__")
            analysis = analyse(module)
        except UntraceableError as error:
            self._unreadable.add(path)
            self.skipped.append(Skip(path, Refusal(Reason.UNREADABLE, error), _where_defined(module)))
            return
        for finding in analysis.findings:
            block_path = join(path, finding.scope)
            gate_path = join(join(block_path, finding.producer), finding.gate)
            if finding.kind == "plain":  # its block is the activation, not the Sequential around it
                block_path = join(block_path, finding.producer)
            channels = finding.channels or 0
            site = Site(block_path, finding.kind, finding.node, channels, gate_path, finding.file, finding.line)
            block = module.get_submodule(finding.producer)
            yield Target(site, path, block, finding)

    def _without_identity(self, blocks: dict[str, nn.Module], by_path: dict[str, list[Target]]) -> Iterator[Target]:
        """The blocks without a join whose class has others with one that is gated."""
        gated = {
            _original_class(blocks[path])
            for path, targets in by_path.items()
            if any(target.site.kind == "residual" and target.finding.reason is None for target in targets)
        }
        for path, targets in by_path.items():
            if not targets and _original_class(blocks[path]) in gated:
                by_path[path] = list(self._found(path, blocks[path], self._analyzer.analyse_output))
                yield from by_path[path]

    def _plain(self, blocks: dict[str, nn.Module], by_path: dict[str, list[Target]]) -> Iterator[Target]:
        """The activations of plain networks: outside of all blocks and of modules with gates of their own."""
        targets = [target for found in by_path.values() for target in found]
        inside = {join(target.block_path, child) for target in targets for child in target.finding.inside}
        inside |= self._unreadable - {""}
        for path, module in blocks.items():
            if by_path.get(path) or is_traced(module) or not inside.isdisjoint(with_parents(path)):
                continue
            if self._analyzer.children.has_own_gate(module):
                inside.add(path)
            elif is_sequential(module) and self._around.is_run_by_others(path):
                continue  # the forward that runs its children one by one has these sites
            elif has_own_forward(module) or is_sequential(module):
                yield from self._found(path, module, self._analyzer.analyse_plain)


def _where_defined(module: nn.Module) -> str:
    """The file and the line of a forward, where it is a function."""
    code = getattr(getattr(type(module), "forward", None), "__code__", None)
    return "" if code is None else where(code.co_filename, code.co_firstlineno)


def _replaces_call(module: nn.Module) -> bool:
    return type(module).__call__ is not nn.Module.__call__ and not is_traced(module)


def _original_class(module: nn.Module) -> type[nn.Module]:
    return originally(module)[0]


def _with_convolutions(model: nn.Module) -> set[str]:
    """The paths of all modules that hold a convolution, or the weight of one, shared with others or not."""
    paths: set[str] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        if is_conv(module) or any(rank(p) >= 3 for p in module.parameters(recurse=False)):
            paths.update(("", *with_parents(path)))
    return paths
