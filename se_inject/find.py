"""Which values of a model would get a gate, and why the other candidates would not. Reads, never writes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from .errors import AllFilteredError, AllGatedError, NoBlockError, RewriteError
from .graphs.traced import is_traced
from .probe import channels_of, measure_channels
from .sites.qualified_names import join
from .sites.reasons import Reason, Refusal
from .sites.scan import ModelScan
from .sites.selection import Selection, Where
from .sites.site import PAPERS_KINDS, Kind, Position, Site, Sites, check_position
from .sites.target import Skip, Target
from .sites.wrapped import as_module

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def find_sites(
    model: "nn.Module | ExportedProgram",
    *,
    kinds: Iterable[Kind] = PAPERS_KINDS,
    where: Where = None,
    position: Position = "standard",
    example_inputs: Any = None,
) -> Sites:
    """List the values of ``model`` that ``apply`` would gate, and each candidate that it would not, with the reason.

    ``model`` may be traced: a graph of fx, or an exported program.

    ``kinds`` selects from "residual" and "inception", the paper's, and "dense" (the new features of a dense concat),
    "noskip" (what a block returns that has no identity, of a class whose other blocks are gated) and "plain" (the
    activation after a convolution and its norm, as in VGG). ``where`` selects sites: a predicate on ``Site``, or one or
    more shell-style patterns that block paths must match, such as ``"layer[34].*"``, or sites that were found before.
    ``position`` is the place of a residual block's gate: "standard" on the branch, "pre" before the branch, "post"
    after the add and its activation, "identity" on the identity. ``example_inputs`` (one tensor, or a tuple of
    arguments, shapes as for the model) is run through a copy of the model, in eval mode, where the graph alone does not
    tell how many channels a value has. The model is not changed.

    Raises ``NotAModuleError``, ``WrappedModelError``, ``ArgumentTypeError`` and ``InvalidArgumentError``.
    Site rules: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 3.3; positions: section 6.5, figure 5.

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
    0        excluded by kinds or where
    """
    found = find(as_module(model), Selection(kinds, where), position, example_inputs)
    return Sites((target.site for target in found.targets), (skip.told for skip in found.skipped))


@dataclass(frozen=True)
class Found:
    """What was asked for, and what is no site or was not."""

    targets: list[Target]
    skipped: list[Skip]
    gated: list[Site]  # those that were asked for, and have their gate already


def find(model: nn.Module, selection: Selection, position: Position, example_inputs: Any) -> Found:
    """All that reading a model tells, for ``find_sites`` to show and ``apply`` to act on.

    >>> find(nn.ReLU(), Selection(PAPERS_KINDS, None), "standard", None).targets
    []
    """
    check_position(position)
    selection = selection.in_graph() if is_traced(model) else selection
    scan = ModelScan(model, selection.kinds, position)
    targets, skipped = [], list(scan.skipped)
    for target, refusal in _with_channels(model, scan.targets, example_inputs):
        if refusal is not None:
            skipped.append(Skip(target.site.path, refusal, target.place))
        elif selection.selects(target.site):
            targets.append(target)
        else:
            skipped.append(Skip(target.site.path, Refusal(Reason.LEFT_OUT)))
    return Found(targets, skipped, list(filter(selection.selects, scan.gated)))


def targets_to_gate(model: nn.Module, selection: Selection, position: Position, example_inputs: Any) -> list[Target]:
    """What was asked for. Raises unless there is something to gate, and all that was asked for by name is."""
    selection = selection.in_graph() if is_traced(model) else selection
    found = find(model, selection, position, example_inputs)
    _check_named(found, selection)
    if not found.targets:
        raise _nothing_to_gate(found)
    return found.targets


def _check_named(found: Found, selection: Selection) -> None:
    """A block that the user named must be gated; patterns with wildcards may match others too."""
    refused = {s.path: s for s in found.skipped if s.refusal.reason is not Reason.LEFT_OUT}
    targets = {target.site.path for target in found.targets}
    names = [name for name in selection.names if name not in targets and (name in refused or targets)]
    for name in names:
        skip = refused.get(name)
        if skip is None or skip.refusal.reason is not Reason.ALREADY_GATED:
            raise _refusal(name, skip)
    there = [*found.gated, *(target.site for target in found.targets)]
    for site in selection.sites:
        if not selection.is_among(site, there):
            skip = refused.get(site.path)
            is_other = skip is not None and skip.refusal.reason is Reason.ALREADY_GATED
            raise _refusal(site.path, None if is_other else skip)


def _refusal(name: str, skip: Skip | None) -> RewriteError:
    why = "the model has no such site" if skip is None else skip.told.reason
    return RewriteError(f"{name or '(model)'}: {why}; print(se_inject.find_sites(model)) lists what can be gated")


def _nothing_to_gate(found: Found) -> Exception:
    reasons = [skip.refusal.reason for skip in found.skipped]
    if Reason.LEFT_OUT in reasons and not found.gated:
        return AllFilteredError(
            f"nothing to gate: kinds and where leave out all {reasons.count(Reason.LEFT_OUT)} sites;"
            " print(se_inject.find_sites(model)) lists them"
        )
    if Reason.ALREADY_GATED in reasons:
        return AllGatedError(
            f"nothing to gate: {reasons.count(Reason.ALREADY_GATED)} blocks are gated already; for other gates, call"
            " se_inject.remove(model) first (it takes out what se_inject.apply put in)"
        )
    told = dict.fromkeys(skip.told for skip in found.skipped)
    others = "".join(f"\n  {path or '(model)'}: {reason}" for path, reason in told)
    return NoBlockError(
        "nothing to gate: the model has no residual or Inception block that can take a gate"
        + (f"; skipped:{others}" if others else "")
    )


def _with_channels(
    model: nn.Module, targets: list[Target], example_inputs: Any
) -> Iterable[tuple[Target, Refusal | None]]:
    """The targets with channels that the graph does not tell measured on an example, or why they stay unknown."""
    unknown = [target for target in targets if target.finding.channels is None]
    # A tracer ran an example, and noted the shapes.
    noted = {
        target.site: channels_of(target.finding.shape, None, target.finding)
        for target in unknown
        if target.finding.shape is not None
    }
    unknown = [target for target in unknown if target.site not in noted]
    measured = dict(noted)
    if unknown and example_inputs is not None:
        wanted = [(join(target.block_path, target.finding.producer), target.finding) for target in unknown]
        features = measure_channels(model, wanted, example_inputs)
        measured |= {target.site: feature for target, feature in zip(unknown, features, strict=True)}
    for target in targets:
        feature = measured.get(target.site)
        if target.finding.channels is not None:
            yield target, None
        elif feature is None:
            yield target, Refusal(Reason.CHANNELS_UNTOLD)
        elif isinstance(feature, Refusal):
            yield target, feature
        else:
            yield target.with_channels(feature), None
