"""Putting gates into a model and taking them out again: check everything, then change."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from .errors import ConversionError, InvalidArgumentError, NoGateError, RewriteError, WrappedModelError
from .find import targets_to_gate
from .gate.factory import Gate, GateMaker
from .gate.marks import Injection, form_before, injection_of, mark_injected, mark_result_kept
from .gate.record import Gated, is_gated, originally
from .gate.squeeze_excitation import Form, Memory, check_form, check_reduction
from .graphs.modes import trains
from .graphs.traced import Program, gate_paths, is_traced, traced_models
from .sites.selection import Selection, Where
from .sites.site import PAPERS_KINDS, Kind, Position, Site
from .sites.target import Target
from .sites.wrapped import as_module
from .source.diff import Diff, patches
from .source.edits import Edit
from .surgery.forms import FormChange, plan_forms
from .surgery.gated_block import uninstall
from .surgery.plan import named_edits, plan, plan_removal
from .surgery.transaction import change_all

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Model = TypeVar("Model", bound="nn.Module | ExportedProgram")


def apply(
    model: Model,
    reduction: int | Callable[[Site], int] = 16,
    *,
    gate: Gate = "se",
    init: Form = "identity",
    memory: Memory = "keep",
    kinds: Iterable[Kind] = PAPERS_KINDS,
    where: Where = None,
    position: Position = "standard",
    example_inputs: Any = None,
) -> Model:
    """Put a Squeeze-and-Excitation gate, or another one, on every site of ``model``, in place, and return ``model``.

    Of an exported program a new one is returned, and the program itself stays as it is.

    Each gate is a child ``se`` of its block, of width ``max(channels // reduction, 8)``, with device, dtype and mode
    from where it is put; ``reduction`` may be a function of the ``Site``. Where a block's forward cannot be rewritten,
    the gate is a child of the layer that makes the branch. ``init="identity"`` leaves the model's output as it is, to
    the bit; ``init="standard"`` is the published gate, for training from scratch and for published weights.

    ``gate`` is "se", a name that timm's ``create_attn`` knows ("eca", "cbam" ...) or a function that makes a module of
    the number of channels (and of the gate's width, if it requires two arguments), which takes and returns
    ``(N, C, *)``. ``init="identity"`` blends such a gate in, with a learned weight that starts at 0, or at 1 where the
    gate's output equals its input anyway.

    In training, gates keep next to nothing for backward: what the norm or the ReLU before them keeps is enough. After a
    convolution without a norm they keep its output; ``memory="recompute"`` does without it, in the time that the
    convolution takes or, after large 1x1 convolutions on a CPU, in less.

    ``kinds``, ``where``, ``position`` and ``example_inputs`` are those of ``find_sites``. Build optimizers after this,
    or they will not see the gates.

    Raises ``NoBlockError``, ``AllFilteredError`` or ``AllGatedError`` where there is nothing to gate, ``RewriteError``
    where ``where`` names a block that cannot be gated, ``InvalidArgumentError`` or ``ArgumentTypeError`` for gates that
    do not fit, and the errors of ``find_sites``; the model is then untouched.
    Source: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 3.3; reduction 16 is from section 6.1.

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv = nn.Conv2d(32, 32, 3, padding=1)
    ...     def forward(self, x):
    ...         return x + self.conv(x)
    >>> model, x = nn.Sequential(Block()), torch.randn(2, 32, 8, 8)
    >>> before = model(x)
    >>> torch.equal(apply(model)(x), before)
    True
    >>> [name for name in dict(model.named_modules()) if name.endswith("se")]
    ['0.se']
    """
    check_form(init)
    selection = Selection(kinds, where)
    changed = as_module(model)
    maker = GateMaker(gate, init, memory, taken=changed.modules())
    _check_reduction(reduction, maker)
    planned: dict[nn.Module, list[Target]] = {}
    for target in targets_to_gate(changed, selection, position, example_inputs):
        planned.setdefault(target.block, []).append(target)
    changes: list[Callable[[], None]] = []
    asked = partial(Injection, position, gate if isinstance(gate, str) else "", init, memory)
    for block, targets in planned.items():
        training = trains(block) if is_traced(block) else block.training
        gates = [(target.finding, _make_gate(target, reduction, maker, asked).train(training)) for target in targets]
        try:
            changes.append(plan(block, gates))
        except RewriteError as error:
            raise RewriteError(f"{targets[0].site.path}: {error}") from error
    change_all(planned, changes)
    return changed.program if isinstance(changed, Program) else model  # type: ignore[return-value]


def remove(model: Model) -> Model:
    """Take out all gates that ``apply`` put into ``model``, in place, and return ``model``; the exact inverse.

    Of an exported program a new one is returned, and the program itself stays as it is. What ``convert`` has put into
    the layers before gates is taken out of them first.

    Raises ``NoGateError`` if there are none, ``ConversionError`` if ``convert`` cannot be undone, and
    ``NotAModuleError`` or ``WrappedModelError``.

    >>> remove(nn.Sequential(nn.ReLU()))
    Traceback (most recent call last):
    se_inject.errors.NoGateError: the model has no gates from se_inject.apply
    """
    changed = as_module(model)
    blocks = [(path, m) for path, m in changed.named_modules() if is_gated(m) and not is_traced(m)]
    for path, block in blocks:
        if isinstance(block, Gated) and "_se_rewrite" not in vars(type(block)):
            raise WrappedModelError(
                f"{path}: its class was extended to {type(block).__name__} after apply; undo that first"
            )
    traced = [module for module in traced_models(changed).values() if gate_paths(module)]
    if not blocks and not traced:
        raise NoGateError("the model has no gates from se_inject.apply")
    back = _plan_back(changed)
    changes: list[Callable[[], None]] = [*back.changes, *(partial(uninstall, block) for _, block in blocks)]
    changes += [plan_removal(module) for module in traced]
    change_all([*back.gates, *(block for _, block in blocks), *traced], changes, back.tensors)
    return changed.program if isinstance(changed, Program) else model  # type: ignore[return-value]


def _plan_back(model: nn.Module) -> FormChange:
    """The change back to the forms that gates were put in with."""
    try:
        return plan_forms(model, lambda gate: gate.init if injection_of(gate) is None else form_before(gate))
    except ConversionError as error:
        raise ConversionError(f"se_inject.convert cannot be undone, as it must be first: {error}") from error


def diff(
    model: nn.Module,
    *,
    kinds: Iterable[Kind] = PAPERS_KINDS,
    where: Where = None,
    position: Position = "standard",
    example_inputs: Any = None,
) -> Diff:
    """Show what ``apply`` would change in the text of the model's classes, as a unified diff, each class once.

    Lines before the patches name the gates that need no change of a text: in places that the author made for one, or on
    the output of a child. The arguments are those of ``find_sites``. Notebooks show the result in colours.

    Raises what ``apply`` raises where there is nothing to gate, and the errors of ``find_sites``.

    >>> import torchvision
    >>> print(diff(torchvision.models.resnet18()))
    --- a/torchvision/models/resnet.py
    +++ b/torchvision/models/resnet.py
    @@ ... @@ BasicBlock.forward
    ...
             out = self.conv2(out)
    -        out = self.bn2(out)
    +        out = self.se(self.bn2(out))
    ...
    """
    targets = targets_to_gate(as_module(model), Selection(kinds, where), position, example_inputs)
    edited: dict[nn.Module, tuple[Edit, ...]] = {}
    for target in targets:
        edited[target.block] = (*edited.get(target.block, ()), *named_edits(target.finding))
    classes = [(originally(block)[0], edits) for block, edits in edited.items() if edits]
    notes = [_note(target) for target in targets if not target.finding.edits]
    return Diff("".join([*notes, *patches(classes)]))


def _note(target: Target) -> str:
    """The line of a patch about a gate that changes no text."""
    where = "on the output of its module"
    if target.finding.in_graph:
        where = "in the graph"
    elif target.finding.in_slot:
        where = "in the place that is there for a gate"
    return f"# {target.site.gate_path}: {where}{f' ({target.place})' if target.place else ''}\n"


def _make_gate(
    target: Target, reduction: int | Callable[[Site], int], maker: GateMaker, asked: Callable[..., Injection]
) -> nn.Module:
    site = target.site
    width = reduction(site) if callable(reduction) else reduction
    check_reduction(width)
    like = _like(target)
    if like is not None and like.dtype.itemsize == 1:  # float8 is for weights that others made; nothing learns in it
        like = torch.empty(0, device=like.device)
    with torch.inference_mode(False):  # parameters made in inference mode could never be trained
        gate = maker.make(site.channels, width, like=like, rank=target.finding.rank)
    mark_injected(gate, asked(site.kind, site.channels, int(width)))
    if target.finding.keeps_result:
        mark_result_kept(gate)
    return gate


def _like(target: Target) -> torch.Tensor | None:
    """A weight of the dtype and on the device that the gate will have."""
    if target.finding.in_graph:
        return target.finding.like
    module = target.block if target.finding.producer else target.block.get_submodule(target.finding.source)
    return next((p for p in module.parameters() if p.is_floating_point()), None)


def _check_reduction(reduction: int | Callable[[Site], int], maker: GateMaker) -> None:
    if not callable(reduction):
        check_reduction(reduction)
    if not maker.uses_reduction and reduction != 16:
        raise InvalidArgumentError(
            f"reduction={reduction!r} does not apply to this gate: give the width to the gate in a function, such as"
            " gate=lambda channels: MyGate(channels, reduction=8)"
        )
