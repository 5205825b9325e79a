"""Which values of a model would get a gate, and why the other candidates would not. Reads, never writes."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args, overload

import torch
from torch import fx, nn

from .analysis import Analysis, Analyst, Finding, has_own_forward
from .errors import ArgumentTypeError, InvalidArgumentError, NotAModuleError, WrappedModelError
from .flow import is_conv
from .gate import SqueezeExcitation
from .measure import measure_channels
from .rules import ALREADY_GATED, Kind
from .shadow import UntraceableError

KINDS: tuple[Kind, ...] = get_args(Kind)
FILTERED = "left out by kinds or where"
CHANNELS_UNKNOWN = "the graph does not tell its channels: pass example_inputs"


class Site(NamedTuple):
    """One value in a block's forward that gets a gate.

    ``path`` is the block's qualified name ("" for the model itself), ``node`` the value's name in the block's graph,
    ``channels`` its C in ``(N, C, *)``, ``gate_path`` the qualified name that the gate has or will have.

    >>> Site("layer1.0", "residual", "bn3", 256, "layer1.0.se").channels
    256
    """

    path: str
    kind: Kind
    node: str
    channels: int
    gate_path: str


class Skipped(NamedTuple):
    """A candidate that is not a site, and why.

    >>> Skipped("layer1.0", "already gated").reason
    'already gated'
    """

    path: str
    reason: str


Where = str | Iterable[str] | Callable[[Site], bool] | None


class Sites(Sequence[Site]):
    """The sites of a model in the order of its modules, read-only; ``skipped`` holds the other candidates.

    >>> len(Sites([], []))
    0
    """

    def __init__(self, sites: Iterable[Site], skipped: Iterable[Skipped]) -> None:
        self._sites = tuple(sites)
        self.skipped = tuple(skipped)

    @overload
    def __getitem__(self, index: int) -> Site: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Site, ...]: ...
    def __getitem__(self, index: int | slice) -> Site | tuple[Site, ...]:
        return self._sites[index]

    def __len__(self) -> int:
        return len(self._sites)

    def __repr__(self) -> str:
        rows = [(path or "(model)", kind, str(channels), gate) for path, kind, _, channels, gate in self._sites]
        lines = _table(("block", "kind", "channels", "gate"), rows)
        lines.append(f"{len(rows)} site{'s' * (len(rows) != 1)}")
        if self.skipped:
            lines += ["", *_table(("skipped", "why"), [(path or "(model)", reason) for path, reason in self.skipped])]
        return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, tuple("-" * width for width in widths), *rows]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


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
    survey = Survey(model, kinds, where, example_inputs)
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

    def __init__(self, model: nn.Module, kinds: Iterable[Kind], where: Where, example_inputs: Any) -> None:
        check_model(model)
        kinds, selects = _checked_kinds(kinds), _checked_where(where)
        self.found: list[Found] = []
        self.skipped: list[Skipped] = []
        unknown: list[Found] = []
        modules = dict(model.named_modules())
        for found in self._candidates(modules):
            name, reason = found.site.gate_path, found.finding.reason
            if reason is None and isinstance(modules.get(name), SqueezeExcitation):
                reason = ALREADY_GATED
            if reason is None and not (found.site.kind in kinds and selects(found.site)):
                reason = FILTERED
            if reason is not None:
                self.skipped.append(Skipped(found.site.path, reason))
            elif found.finding.channels is None:
                unknown.append(found)
            else:
                self.found.append(found)
        if unknown:
            self._measure(model, unknown, example_inputs)
            order = {path: i for i, path in enumerate(modules)}
            self.found.sort(key=lambda found: order[found.site.path])

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
                site = Site(
                    block_path, finding.kind, finding.node, finding.channels or 0, _join(block_path, finding.gate)
                )
                yield Found(site, path, module, finding, analysis)

    def _measure(self, model: nn.Module, unknown: list[Found], example_inputs: Any) -> None:
        if example_inputs is None:
            self.skipped += [Skipped(found.site.path, CHANNELS_UNKNOWN) for found in unknown]
            return
        wanted = [(found.module_path, found.analysis, found.finding) for found in unknown]
        for found, channels in zip(unknown, measure_channels(model, wanted, example_inputs), strict=True):
            if isinstance(channels, str):
                self.skipped.append(Skipped(found.site.path, channels))
            else:
                self.found.append(replace(found, site=found.site._replace(channels=channels)))


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _with_convolutions(modules: dict[str, nn.Module]) -> set[str]:
    """The paths of all modules that hold a convolution, or the weight of one."""
    paths: set[str] = set()
    for path, module in modules.items():
        if is_conv(module) or any(p is not None and p.ndim >= 3 for p in module._parameters.values()):
            while path not in paths:
                paths.add(path)
                path = path.rpartition(".")[0]
    return paths


def _can_be_block(module: nn.Module) -> bool:
    if isinstance(module, fx.GraphModule):
        return True
    return has_own_forward(module) and not isinstance(module, SqueezeExcitation | nn.modules.conv._ConvNd)


def check_model(model: object) -> None:
    """Raise unless ``model`` is a module that is neither wrapped nor compiled nor scripted.

    >>> check_model(nn.ReLU())
    """
    if not isinstance(model, nn.Module):
        what = (
            f"the class {model.__name__}; make an instance first" if isinstance(model, type) else type(model).__name__
        )
        raise NotAModuleError(f"model must be a torch.nn.Module, got {what}")
    if is_wrapped(model):
        raise WrappedModelError(
            f"the model is already wrapped or compiled ({type(model).__name__}): apply first, then wrap."
            " Call se_inject.apply on the module inside, before DDP, FSDP, DataParallel, torch.compile or torch.jit"
        )


_WRAPPERS = {
    "torch.nn.parallel.distributed": "DistributedDataParallel",
    "torch.nn.parallel.data_parallel": "DataParallel",
    "torch.distributed.fsdp.fully_sharded_data_parallel": "FullyShardedDataParallel",
    "torch.distributed.fsdp": "FSDPModule",
    "torch._dynamo.eval_frame": "OptimizedModule",
}


def is_wrapped(module: nn.Module) -> bool:
    """Whether a module is a wrapper of another one, compiled or scripted.

    >>> is_wrapped(nn.DataParallel(nn.ReLU())), is_wrapped(nn.ReLU())
    (True, False)
    """
    if module._compiled_call_impl is not None or isinstance(module, torch.jit.ScriptModule):
        return True
    # By name, as importing FSDP or dynamo would cost seconds.
    return any(_WRAPPERS.get(cls.__module__) == cls.__name__ for cls in type(module).__mro__)


def _checked_kinds(kinds: Iterable[Kind]) -> frozenset[Kind]:
    if isinstance(kinds, str):
        raise ArgumentTypeError(f'kinds must be a collection such as ("{kinds}",), got the string {kinds!r}')
    try:
        chosen = frozenset(kinds)
    except TypeError as error:
        raise ArgumentTypeError(f"kinds must be a collection of names, got {kinds!r}") from error
    if not chosen or chosen - set(KINDS):
        raise InvalidArgumentError(f"kinds must be one or more of {', '.join(map(repr, KINDS))}, got {kinds!r}")
    return chosen


def patterns_of(where: Where) -> tuple[str, ...] | None:
    """The patterns in ``where``, or None for a predicate. Raises ``ArgumentTypeError``.

    >>> patterns_of("layer1.*")
    ('layer1.*',)
    """
    if where is None or isinstance(where, str):
        return ("*",) if where is None else (where,)
    if callable(where):
        return None
    patterns = tuple(where) if isinstance(where, Iterable) else (where,)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise ArgumentTypeError(f"where must be a predicate on a Site, or one or more patterns, got {where!r}")
    return patterns


def _checked_where(where: Where) -> Callable[[Site], bool]:
    patterns = patterns_of(where)
    if patterns is None:
        return where  # type: ignore[return-value]
    return lambda site: any(fnmatch.fnmatchcase(site.path, pattern) for pattern in patterns)
