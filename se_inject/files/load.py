"""Loading gates into a plain network, or other gates into a gated one."""

from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import GateFileError, GateMismatchError, InvalidArgumentError, NoSiteError
from ..gate.factory import Gate, GateMaker
from ..gate.marks import form_before, injection_of
from ..gate.squeeze_excitation import SqueezeExcitation, width_of
from ..inject import apply, remove
from ..sites.site import Site
from ..sites.wrapped import as_module
from ..surgery.transaction import change_all, write
from ..surgery.values import cast, check_writable
from .container import unpacked
from .description import Description, GateEntry, described
from .folder import in_folder
from .hub import is_on_hub, local_file
from .inside import Inside, digest, inside, tensors_of
from .save import Path_, checked_path

Model = TypeVar("Model", bound=nn.Module)


def load_gates(model: Model, path: Path_, *, gate: Gate | None = None, example_inputs: Any = None) -> Model:
    """Load gates that ``save_gates`` wrote, and what else the file has, into ``model``, in place, and return ``model``.

    A plain network gets the gates first, as ``apply`` put them into the one that they were saved from. The tensors of
    one that has the same gates are written in place: optimizers hold on to them, nothing is compiled again, and sets of
    gates are exchanged in milliseconds. ``path`` is a file, a folder or ``hf://user/name``, with ``@revision`` if you
    like. Gates that a function made need it again as ``gate``; ``example_inputs`` are those of ``apply``.

    Raises ``GateFileError`` for a file that is damaged in any bit, truncated or not of this format (``OSError``'s
    ``FileNotFoundError`` among them), ``GateMismatchError`` for a network with other layers, or gates of another place,
    size or form, naming the first difference, and the errors of ``apply``. The model is then untouched.

    >>> import se_inject, tempfile, torchvision
    >>> model = se_inject.apply(torchvision.models.resnet18())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     se_inject.save_gates(model, folder)
    ...     plain = load_gates(torchvision.models.resnet18(), folder)
    >>> len(list(se_inject.gates(plain)))
    8
    """
    found = inside(model)
    file = local_file(path) if is_on_hub(path) else checked_path(path)
    file = in_folder(file) if file.is_dir() else file
    tensors, about = unpacked(file)
    try:
        description = described(about)
        _check_tensors(tensors, description)
        _check_base(found, description)
    except (GateFileError, GateMismatchError) as error:
        raise type(error)(f"{file}: {error}") from error
    injected = [entry for entry in description.gates if entry.injected]
    if any(injection_of(there) for there in found.gates.values()) or not injected:
        _write(found, description, tensors, str(file))
        return model
    as_module(model)  # which refuses wrappers, as they would not see new gates
    try:
        _put_in(found.model, injected, gate, example_inputs, str(file))
        _write(inside(model), description, tensors, str(file))
    except BaseException:
        if any(injection_of(module) for module in found.model.modules()):
            remove(found.model)
        raise
    return model


def _check_tensors(tensors: dict[str, Tensor], description: Description) -> None:
    """Raise unless a file has the tensors that its header promises."""
    promised = description.tensors()
    _check_same({name: list(tensor.shape) for name, tensor in tensors.items()}, promised, GateFileError, "the file")
    for name, tensor in tensors.items():
        if tensor.dtype.itemsize == 1 and tensor.is_floating_point():
            raise GateFileError(f"{name} is of {tensor.dtype}, in which gates cannot be")


def _check_base(found: Inside, description: Description) -> None:
    shapes = {name: list(tensor.shape) for name, tensor in found.base.items()}
    _check_same(shapes, description.base.tensors, GateMismatchError, "the model")
    others = {name: tensor for name, tensor in found.base.items() if name not in description.included}
    if description.base.digest and digest(others) != description.base.digest:
        raise GateMismatchError(
            f"the gates were saved from {description.base.name or description.base.model} with other weights than the"
            " model has: load those first"
        )


def _check_same(shapes: dict[str, list[int]], wanted: dict[str, list[int]], error: type[Exception], whose: str) -> None:
    """Raise ``error`` with the first difference between the shapes that are there and those that should be."""
    for name, shape in wanted.items():
        if name not in shapes:
            raise error(f"{name[:80]} {tuple(shape)} is not in {whose}")
        if shapes[name] != shape:
            raise error(f"{name[:80]} must be {tuple(shape)}, and is {tuple(shapes[name])} in {whose}")
    for name, shape in shapes.items():
        if name not in wanted:
            raise error(f"{name[:80]} {tuple(shape)} is in {whose} only")


def _put_in(model: nn.Module, entries: list[GateEntry], gate: Gate | None, example_inputs: Any, file: str) -> None:
    """Put gates into a plain network, at a time those that were asked for alike."""
    groups: dict[tuple[str, ...], dict[str, GateEntry]] = {}
    for entry in entries:
        groups.setdefault((entry.gate, entry.init, entry.memory, entry.position), {})[entry.path] = entry
    for (name, init, memory, position), wanted in groups.items():
        made_by: Any = name or gate
        first = next(iter(wanted.values()))
        if made_by is None:
            raise InvalidArgumentError(
                f"{file}: {first.path} was made by a function: load_gates(model, path, gate=...) needs it again"
            )
        options: dict[str, Any] = {"gate": made_by, "init": init, "memory": memory, "position": position}
        if GateMaker(made_by, "standard").uses_reduction:
            options["reduction"] = lambda site, wanted=wanted: wanted[site.gate_path].reduction
        try:
            apply(
                model,
                kinds={entry.kind for entry in wanted.values()},  # type: ignore[misc]
                where=lambda site, wanted=wanted: _is_wanted(site, wanted),  # type: ignore[misc]
                example_inputs=example_inputs,
                **options,
            )
        except NoSiteError as error:
            raise _no_site(first, file) from error
    there = inside(model).gates
    for entry in entries:
        if entry.path not in there:
            raise _no_site(entry, file)
        made = there[entry.path]
        width = next(iter(entry.tensors.get("fc1.weight", ())), 0)
        if type(made) is SqueezeExcitation and width not in (0, width_of(made)):  # of a gate that was pruned
            made.set_width(width)


def _is_wanted(site: Site, wanted: dict[str, GateEntry]) -> bool:
    entry = wanted.get(site.gate_path)
    if entry is None or entry.kind != site.kind:
        return False
    return not entry.width or entry.channels == site.channels  # of other gates, pruning leaves the number as it was


def _no_site(entry: GateEntry, file: str) -> GateMismatchError:
    return GateMismatchError(
        f"{file}: the model has no {entry.kind} site of {entry.channels} channels for {entry.path};"
        " print(se_inject.find_sites(model)) lists what it has"
    )


def _write(found: Inside, description: Description, tensors: dict[str, Tensor], file: str) -> None:
    """Copy the tensors of a file into those of a model that has its gates; all or none."""
    try:
        _check_gates(found, description)
        targets = {f"{name}.{key}": t for name, gate in found.gates.items() for key, t in tensors_of(gate).items()}
        targets |= {name: found.base[name] for name in description.included}
        _check_tied(targets, tensors)
        # In the model's order: processes that share weights must go alike.
        changes = [(target, _fitting(name, tensors[name], target)) for name, target in targets.items()]
    except GateMismatchError as error:
        raise GateMismatchError(f"{file}: {error}") from error
    change_all((), [partial(write, target, value) for target, value in changes], [target for target, _ in changes])


def _check_gates(found: Inside, description: Description) -> None:
    entries = {entry.path: entry for entry in description.gates}
    for name in [*entries, *found.gates]:
        if name not in found.gates or name not in entries:
            where, other = ("file", "model") if name in entries else ("model", "file")
            raise GateMismatchError(
                f"the {where} has a gate {name[:80]}, and the {other} has none: load into the plain network"
                " (se_inject.remove(model)), or into one with the same gates"
            )
    for name, entry in entries.items():
        gate = found.gates[name]
        if found.also[name] != entry.also:
            raise GateMismatchError(
                f"{name} is also {', '.join(entry.also) or 'nothing else'} in the file, and"
                f" {', '.join(found.also[name]) or 'nothing else'} in the model: blocks must be shared alike"
            )
        known = injection_of(gate)
        asked = ("", "") if known is None else (known.position, known.gate)
        if (entry.position, entry.gate) != asked and (entry.injected or known is not None):
            raise GateMismatchError(
                f"{name} is a gate {entry.gate or 'of a function'} at position {entry.position} in the file, and"
                f" {asked[1] or 'of a function'} at {asked[0]} in the model"
            )
        if isinstance(gate, SqueezeExcitation):
            _check_form(name, gate, entry)
        shapes = {key: list(tensor.shape) for key, tensor in tensors_of(gate).items()}
        there, wanted = ({f"{name}.{key}": shape for key, shape in of.items()} for of in (shapes, entry.tensors))
        _check_same(there, wanted, GateMismatchError, "the model")


def _check_form(name: str, gate: SqueezeExcitation, entry: GateEntry) -> None:
    if gate.init != form_before(gate):
        raise GateMismatchError(
            f"{name} was converted, and the file has gates for weights as they were before: load after"
            f" se_inject.convert(model, {form_before(gate)!r})"
        )
    if gate.init != entry.init:
        raise GateMismatchError(
            f"{name} is of the {entry.init} form in the file, and of the {gate.init} form in the model: load into the"
            " plain network (se_inject.remove(model))"
        )


def _check_tied(targets: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    """Raise where one tensor of the model would get two values."""
    first: dict[int, str] = {}
    for name, target in targets.items():
        other = first.setdefault(id(target), name)
        if not torch.equal(tensors[name], tensors[other]):
            raise GateMismatchError(f"{name} and {other} are one tensor in the model, and two in the file")


def _fitting(name: str, value: Tensor, target: Tensor) -> Tensor:
    """A value in the dtype, on the device and in the shards of the tensor that takes it."""
    if target.is_meta:
        raise InvalidArgumentError(f"{name} is on the meta device: load the network's weights first")
    check_writable(target, name)
    if value.dtype != target.dtype and not (value.is_floating_point() and target.is_floating_point()):
        raise GateMismatchError(f"{name} is of {value.dtype} in the file, and of {target.dtype} in the model")
    fitting = cast(value, target, name, GateMismatchError).to(target.device)
    if hasattr(target, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor  # importing it costs a second

        return distribute_tensor(fitting, target.device_mesh, target.placements)  # type: ignore[attr-defined]
    return fitting
