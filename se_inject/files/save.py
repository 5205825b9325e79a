"""Saving the gates of a model, without the network that they are in."""

import fnmatch
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..errors import ArgumentTypeError, GateFileError, InvalidArgumentError, NoGateError, WrappedModelError
from ..gate.marks import form_before, injection_of
from ..gate.squeeze_excitation import SqueezeExcitation
from ..version import __version__
from . import atomic
from .card import card, config
from .container import packed
from .description import Base, Description, GateEntry
from .inside import Inside, digest, inside, tensors_of, whole

Path_ = str | os.PathLike[str]
GATES, CONFIG, CARD = "gates.safetensors", "config.json", "README.md"


def save_gates(
    model: nn.Module,
    path: Path_,
    *,
    include: str | Iterable[str] = (),
    digest: bool = False,
    base: str = "",
    metrics: Mapping[str, float | str] | None = None,
) -> None:
    """Write the gates of ``model``, which may be wrapped, into one safetensors file, or into a folder for a hub.

    The file has the gates' tensors, and in its header all that ``load_gates`` needs to put them into the plain network
    again: for each gate its place, kind, position, channels, width, form or name; the names and shapes of the network's
    other tensors; with ``digest=True`` a checksum of their values. ``include`` names other tensors that the file shall
    have: patterns of their names (``"fc.*"``), or "trained" (all parameters that require gradients), or "statistics"
    (the running statistics of norms). Where processes share sharded weights, all of them must call this.

    A path without a suffix is a folder: it gets ``gates.safetensors``, ``config.json``, and a model card ``README.md``
    that says what ``base`` (the name of the network) and ``metrics`` are.

    Raises ``NoGateError``, ``NotAModuleError``, ``WrappedModelError``, ``ArgumentTypeError``, ``InvalidArgumentError``
    (a pattern that nothing has, tensors without values), and ``GateFileError`` where a folder is another library's.
    Files are written whole or not at all.

    >>> import se_inject, tempfile, torchvision
    >>> model = se_inject.apply(torchvision.models.resnet18(num_classes=2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_gates(model, f"{folder}/gates.safetensors", include="fc.*")
    ...     _ = se_inject.load_gates(torchvision.models.resnet18(num_classes=2), f"{folder}/gates.safetensors")
    """
    target = checked_path(path)
    description, content = contents(model, include, digest, base, metrics)
    if _is_folder(target):
        write_folder(target, description, content, source=str(target))
    else:
        atomic.write(target, content)


def write_folder(folder: Path, description: Description, content: bytes, *, source: str) -> None:
    """Write a folder as hubs show it; raises ``GateFileError`` where another library has one."""
    if (folder / CONFIG).exists() and not (folder / GATES).exists():
        raise GateFileError(
            f"{folder}: has a {CONFIG} of something else: save to {folder / GATES}, or to a folder of its own"
        )
    atomic.write(folder / CONFIG, config(description).encode())
    atomic.write(folder / CARD, card(description, source).encode())
    atomic.write(folder / GATES, content)


def checked_path(path: Path_) -> Path:
    """A path that a user gave. Raises ``ArgumentTypeError``.

    >>> checked_path("gates.safetensors").suffix
    '.safetensors'
    """
    if not isinstance(path, str | os.PathLike):
        raise ArgumentTypeError(f"path must be a path, got {type(path).__name__}")
    return Path(path)


def contents(
    model: nn.Module,
    include: str | Iterable[str],
    with_digest: bool,
    base: str,
    metrics: Mapping[str, float | str] | None,
) -> tuple[Description, bytes]:
    """What a file of a model's gates says of itself, and the whole of it."""
    found = inside(model)
    if not found.gates:
        raise NoGateError("the model has no gates; call se_inject.apply(model) first")
    entries = tuple(_entry(name, gate) for name, gate in found.gates.items())
    included = _included(found, include)
    tensors = {f"{name}.{key}": t for name, gate in found.gates.items() for key, t in tensors_of(gate).items()}
    tensors |= {name: found.base[name] for name in included}
    _check_have_values(tensors)
    others = {name: tensor for name, tensor in found.base.items() if name not in included}
    cls = type(found.model)
    about = Base(
        f"{cls.__module__}.{cls.__qualname__}",
        base,
        {name: list(tensor.shape) for name, tensor in found.base.items()},
        digest(others) if with_digest else "",
    )
    description = Description(__version__, about, entries, included, dict(metrics or {}))
    try:
        return description, packed({name: whole(tensor) for name, tensor in tensors.items()}, description.as_json())
    except TypeError as error:  # of json
        raise ArgumentTypeError(f"metrics must be numbers and texts: {error}") from error


def _entry(path: str, gate: nn.Module) -> GateEntry:
    tensors = {name: list(tensor.shape) for name, tensor in tensors_of(gate).items()}
    known = injection_of(gate)
    if isinstance(gate, SqueezeExcitation):
        if gate.init != form_before(gate):
            raise InvalidArgumentError(
                f"{path} was converted to the {gate.init} form, which changed weights outside of it, too: save after"
                f" se_inject.convert(model, {form_before(gate)!r})"
            )
        about: tuple[int, int, str, str] = (gate.fc1.in_channels, gate.fc1.out_channels, gate.init, gate.memory)
    elif known is not None:
        about = (known.channels, 0, known.init, known.memory)
    else:
        raise WrappedModelError(
            f"{path}: is a gate in a traced model, written out: save the gates of the model before it is traced"
        )
    channels, width, init, memory = about
    asked = ("", "", 1, "") if known is None else (known.kind, known.position, known.reduction, known.gate)
    kind, position, reduction, name = asked
    return GateEntry(path, kind, position, channels, width, reduction, init, name, memory, tensors)


def _included(found: Inside, include: str | Iterable[str]) -> tuple[str, ...]:
    patterns = [include] if isinstance(include, str) else list(include)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ArgumentTypeError(f"include must be patterns of names, got {pattern!r}")
        names = _matching(found, pattern)
        if not names:
            raise InvalidArgumentError(
                f"include={pattern!r}: the model has no such tensor; patterns are of the names in its state_dict()"
            )
        chosen |= dict.fromkeys(names)
    return tuple(chosen)


def _matching(found: Inside, pattern: str) -> list[str]:
    if pattern == "trained":
        return [name for name, tensor in found.base.items() if tensor.requires_grad]
    if pattern == "statistics":
        norms = [m for m in found.model.modules() if isinstance(m, _NormBase)]
        statistics = {id(buffer) for norm in norms for buffer in norm.buffers(recurse=False)}
        return [name for name, tensor in found.base.items() if id(tensor) in statistics]
    return fnmatch.filter(found.base, pattern)


def _check_have_values(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise InvalidArgumentError(f"{name} is on the meta device and has no values: there is nothing to save")
        if tensor.layout != torch.strided:
            raise InvalidArgumentError(
                f"{name} is not dense, and safetensors knows dense tensors only: call its to_dense()"
            )


def _is_folder(path: Path) -> bool:
    return path.is_dir() or not path.suffix
