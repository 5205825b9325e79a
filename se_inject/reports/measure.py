"""A plain network beside the same with gates: what the gates cost.

Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 4, "Model and Computational Complexity".
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ..errors import ArgumentTypeError, InvalidArgumentError, NoGateError, NotAModuleError, first_line
from ..find import find_sites
from ..gate.factory import Blend
from ..gate.marks import injection_of
from ..gate.squeeze_excitation import SqueezeExcitation
from ..graphs.traced import is_program
from ..inject import apply, diff, remove
from ..probe import copied
from ..sites.site import PAPERS_KINDS, Kind, Position, Sites
from ..sites.wrapped import as_module
from ..source.diff import Diff
from ..tracing.randomness import no_randomness
from ..training import gates
from .costs import Cost, Run, Spread, count_multiply_adds, count_parameters, peak_memory, spread, time_interleaved
from .evaluation import evaluating
from .table import Report


def report(model: nn.Module, example_inputs: Any, *, rounds: int = 20, **options: Any) -> Report:
    """Measure what gates cost ``model``: parameters, multiply-adds, latency and peak memory of one forward pass.

    A plain model is measured beside a copy that is gated as ``apply(model, **options)`` does it, a gated model beside a
    copy without its gates. ``example_inputs`` is one tensor, or a tuple of arguments, of which the first is a batch
    ``(N, *)``. The forward passes are in eval mode (a module of torch.export's in that which it was exported in) and
    without gradients, on the device that model and inputs are on; on the meta device, parameters and multiply-adds are
    counted alone. The two networks take turns for as many ``rounds``. Model, inputs and random streams stay as they
    are.

    Raises what ``apply`` raises where there is nothing to gate, ``InvalidArgumentError`` where the model fails on the
    inputs or cannot be copied, where a gated model gets options, or for fewer than two rounds, ``ArgumentTypeError``,
    ``NotAModuleError`` and ``WrappedModelError``.
    Source: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", section 4.

    >>> import torchvision
    >>> with torch.device("meta"):
    ...     model, image = torchvision.models.resnet50(), torch.empty(1, 3, 224, 224)
    >>> report(model, image)
                   plain       with gates  added
    -------------  ----------  ----------  -------
    parameters     25,557,032  28,088,024  +9.90 %
    multiply-adds  4.089 G     4.092 G     +0.06 %
    16 gates in ResNet; inputs (1, 3, 224, 224); on the meta device, which tells neither time nor memory
    """
    _check_rounds(rounds)
    if is_program(model):
        raise NotAModuleError("model must be a torch.nn.Module, got an exported program: pass its module()")
    plain, gated, choices = _pair(model, example_inputs, options)
    listed = [find_sites(plain, **choice) for choice in choices]
    sites = Sites((site for found in listed for site in found), _skipped(listed))
    patches = (diff(plain, **choice) for choice, found in zip(choices, listed, strict=True) if found)
    arguments = tree_map(_own, example_inputs if isinstance(example_inputs, tuple) else (example_inputs,))
    with evaluating(plain), evaluating(gated):
        costs, ratio = _measured(plain, gated, arguments, rounds)
    modules = dict(plain.named_modules())
    paths = {*(site.path for site in sites), *(skipped.path for skipped in sites.skipped)}
    return Report(
        model=type(plain).__name__,
        inputs=tuple(_described(leaf) for leaf in tree_leaves(arguments)),
        device=", ".join(sorted({str(device) for device in _devices(plain, arguments)})) or "cpu",
        threads=torch.get_num_threads(),
        rounds=rounds,
        plain=costs[0],
        gated=costs[1],
        ratio=ratio,
        sites=sites,
        diff=Diff("".join(patches)),
        classes={path: type(module).__name__ for path, module in modules.items() if path in paths},
        gates={path: gate_text(gate) for path, gate in gates(gated) if path not in modules},
    )


def _pair(
    model: nn.Module, example_inputs: Any, options: dict[str, Any]
) -> tuple[nn.Module, nn.Module, list[dict[str, Any]]]:
    """Copies of a model without gates and with them, and what ``find_sites`` is to be asked for to list these."""
    plain, gated = copied(as_module(model)), copied(model)
    try:
        remove(plain)
    except NoGateError:
        options = {name: list(value) if isinstance(value, Iterator) else value for name, value in options.items()}
        with no_randomness():  # gates draw their weights
            apply(gated, example_inputs=example_inputs, **options)
        choices: list[dict[str, Any]] = [
            {name: options[name] for name in ("kinds", "where", "position") if name in options}
        ]
    else:
        if options:
            raise InvalidArgumentError(
                f"the model has gates already, so {', '.join(options)} would have no effect: leave that out"
            )
        choices = _choices(gated)
    return plain, gated, [choice | {"example_inputs": example_inputs} for choice in choices]


def _check_rounds(rounds: object) -> None:
    if isinstance(rounds, bool) or not isinstance(rounds, int):
        raise ArgumentTypeError(f"rounds must be a whole number >= 2, got {rounds!r}")
    if rounds < 2:
        raise InvalidArgumentError(f"rounds must be >= 2, as one measurement has no spread, got {rounds}")


def _choices(gated: nn.Module) -> list[dict[str, Any]]:
    """What ``find_sites`` must be asked for to list the sites of the gates that are there, each position by itself."""
    kinds: dict[Position, Iterable[Kind]] = {}
    there = dict(gates(gated))
    for gate in there.values():
        injection = injection_of(gate)
        if injection is not None:
            position: Position = injection.position  # type: ignore[assignment]
            kinds[position] = {*kinds.get(position, ()), injection.kind}  # type: ignore[arg-type]
    return [
        {"kinds": of_position, "position": position, "where": lambda site: site.gate_path in there}
        for position, of_position in (kinds or {"standard": PAPERS_KINDS}).items()  # a traced gate has no note
    ]


def _skipped(listed: Iterable[Sites]) -> list[Any]:
    """The candidates that are no site in any position."""
    gated = {site.path for sites in listed for site in sites}
    return list(dict.fromkeys(skipped for sites in listed for skipped in sites.skipped if skipped.path not in gated))


def _measured(
    plain: nn.Module, gated: nn.Module, arguments: tuple[Any, ...], rounds: int
) -> tuple[list[Cost], Spread | None]:
    models = [plain, gated]
    runs: list[Run] = [lambda: plain(*arguments), lambda: gated(*arguments)]
    try:
        counted = [count_multiply_adds(run) // _images(arguments) for run in runs]
    except Exception as error:  # whatever the model raises
        raise InvalidArgumentError(
            f"example_inputs: the model fails on them ({first_line(error)}); pass what model(...) takes"
        ) from error
    parameters = [count_parameters(model) for model in models]
    if any(tensor.is_meta for tensor in _tensors(plain, arguments)):
        return [Cost(*counts, None, None) for counts in zip(parameters, counted, strict=True)], None
    memory = [peak_memory(run, _tensors(model, arguments)) for model, run in zip(models, runs, strict=True)]
    times = time_interleaved(runs, rounds, _devices(plain, arguments))
    ratio = spread([with_gates / without for without, with_gates in zip(*times, strict=True)])
    columns = zip(parameters, counted, map(spread, times), memory, strict=True)
    return [Cost(*column) for column in columns], ratio


def _images(arguments: tuple[Any, ...]) -> int:
    """How many are in the batch."""
    first = arguments[0] if arguments else None
    if isinstance(first, list | tuple):
        return max(len(first), 1)
    tensor = next((leaf for leaf in tree_leaves(first) if isinstance(leaf, Tensor)), None)
    return max(tensor.shape[0], 1) if tensor is not None and tensor.ndim else 1


def _own(value: Any) -> Any:
    """A copy of an input, which the model might change."""
    return value.detach().clone() if isinstance(value, Tensor) else value


def _tensors(model: nn.Module, arguments: tuple[Any, ...]) -> list[Tensor]:
    inputs = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
    return [*model.parameters(), *model.buffers(), *inputs]


def _devices(model: nn.Module, arguments: tuple[Any, ...]) -> set[torch.device]:
    return {tensor.device for tensor in _tensors(model, arguments)}


def _described(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else repr(value)[:60]


def gate_text(gate: nn.Module) -> str:
    """A gate in a few words.

    >>> gate_text(SqueezeExcitation(64))
    'SqueezeExcitation, 8 wide, identity form'
    """
    if isinstance(gate, Blend):
        gate = gate.gate
    if not isinstance(gate, SqueezeExcitation):
        return type(gate).__name__
    return f"{type(gate).__name__}, {gate.fc1.out_channels} wide, {gate.init} form"
