"""Which values of a model would get a gate, and why the other candidates would not. Reads, never writes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from .analysis import Analysis, Analyst, Finding, has_own_forward
from .flow import is_conv, rank
from .gate import SqueezeExcitation
from .graph_module import is_injected
from .measure import measure_channels
from .proxy import UntraceableError
from .rules import ALREADY_GATED, Kind
from .selection import KINDS, Selection, Where
from .site import Site, Sites, Skipped
from .wrapped import check_model, is_wrapped

FILTERED = "left out by kinds or where"
CHANNELS_UNKNOWN = "the graph does not tell its channels: pass example_inputs"


def find_sites(
    model: nn.Module,
    *,
    kinds: Iterable[Kind] = KINDS,
    where: Where = None,
    example_inputs: Any = None,
) -> Sites:
    """List the values of ``model`` that ``apply`` would gate, and each candidate that it would not, with the reason.

    ``kinds`` selects from "residual" and "inception". ``where`` selects sites: a predicate on ``Site``, or one or more
    shell-style patterns that block paths must match, such as ``"layer[34].*"``. ``example_inputs`` (one tensor, or a
    tuple of arguments, shapes as for the model) is run through a copy of the model, in eval mode, where the graph alone
    does not tell how many channels a value has. The model is not changed.

    Raises ``NotAModuleError``, ``WrappedModelError``, ``ArgumentTypeError`` and ``InvalidArgumentError``.
    Site rules: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 3.3.

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv = nn.Conv2d(32, 32, 3, padding=1)
    ...     def forward(self, x):
    ...         return x + self.conv(x)
    >>> print(find_sites(nn.Sequential(Block(), Block()), where="1"))
    block  kind      channels  gate
    -----  --------  --------  ----
    1      residual  32        1.se
    1 site
    <BLANKLINE>
    skipped  why
    -------  --------------------------
    0        left out by kinds or where
    """
    survey = Survey(model, Selection(kinds, where), example_inputs)
    return Sites((found.site for found in survey.found), survey.skipped)


@dataclass(frozen=True)
class Found:
    """A site with what surgery needs to gate it."""

    site: Site
    module_path: str
    block: nn.Module
    finding: Finding
    analysis: Analysis


class Survey:
    """All that reading a model tells, for ``find_sites`` to show and ``apply`` to act on."""

    def __init__(self, model: nn.Module, selection: Selection, example_inputs: Any) -> None:
        check_model(model)
        self.found: list[Found] = []
        self.skipped: list[Skipped] = []
        self.asked_again = 0  # selected sites that have their gate already
        modules = dict(model.named_modules())
        ungated: list[Found] = []
        candidates = list(self._candidates(modules))
        inside = {_join(found.module_path, child) for found in candidates for child in found.finding.inside}
        for found in candidates:
            reason = found.finding.reason
            if (
                reason is None
                and found.site.kind == "inception"
                and not inside.isdisjoint(_with_parents(found.site.path))
            ):
                reason = "its concat is a part of a larger block"
            gate = modules.get(found.site.gate_path)
            if reason is None and is_injected(gate):
                reason = ALREADY_GATED
                self.asked_again += selection.selects(found.site._replace(channels=gate.fc1.in_channels))
            if reason is None:
                ungated.append(found)
            else:
                self.skipped.append(Skipped(found.site.path, reason))
        for found in self._with_channels(model, ungated, example_inputs):
            if selection.selects(found.site):
                self.found.append(found)
            else:
                self.skipped.append(Skipped(found.site.path, FILTERED))

    def _candidates(self, modules: dict[str, nn.Module]) -> Iterator[Found]:
        analyst = Analyst()
        convolutional = _with_convolutions(modules)
        wrapped: list[str] = []
        for path, module in modules.items():
            if path not in convolutional or path.startswith(tuple(wrapped)):
                continue
            if is_wrapped(module):
                wrapped.append(f"{path}.")
                self.skipped.append(Skipped(path, "it is wrapped or compiled already: apply first, then wrap"))
                continue
            if not _can_be_block(module):
                continue
            try:
                analysis = analyst.analyse(module)
            except UntraceableError as error:
                self.skipped.append(Skipped(path, f"its forward cannot be rewritten: {error}"))
                continue
            for finding in analysis.findings:
                block_path = _join(path, finding.scope)
                gate_path = _join(block_path, finding.gate)
                site = Site(block_path, finding.kind, finding.node, finding.channels or 0, gate_path)
                yield Found(site, path, module, finding, analysis)

    def _with_channels(self, model: nn.Module, candidates: list[Found], example_inputs: Any) -> Iterator[Found]:
        unknown = [found for found in candidates if found.finding.channels is None]
        measured: dict[Site, int | str] = {}
        if unknown and example_inputs is None:
            measured = {found.site: CHANNELS_UNKNOWN for found in unknown}
        elif unknown:
            wanted = [(found.module_path, found.analysis, found.finding) for found in unknown]
            channels = measure_channels(model, wanted, example_inputs)
            measured = dict(zip([found.site for found in unknown], channels, strict=True))
        for found in candidates:
            channels_or_reason = measured.get(found.site, found.site.channels)
            if isinstance(channels_or_reason, str):
                self.skipped.append(Skipped(found.site.path, channels_or_reason))
            else:
                yield replace(found, site=found.site._replace(channels=channels_or_reason))


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _with_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def _with_convolutions(modules: dict[str, nn.Module]) -> set[str]:
    """The paths of all modules that hold a convolution, or the weight of one."""
    paths: set[str] = set()
    for path, module in modules.items():
        if is_conv(module) or any(rank(p) >= 3 for p in module._parameters.values()):
            paths.update(("", *_with_parents(path)))
    return paths


def _can_be_block(module: nn.Module) -> bool:
    if isinstance(module, fx.GraphModule):
        return True
    return has_own_forward(module) and not isinstance(module, SqueezeExcitation | nn.modules.conv._ConvNd)
