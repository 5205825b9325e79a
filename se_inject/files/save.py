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
from ..gate.squeeze_excitation import SqueezeExcitation, channels_of, width_of
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
    texts = {CONFIG: config(description), CARD: card(description, source, len(content))}
    files = {name: text.encode() for name, text in texts.items()} | {GATES: content}
    for name, written in files.items():
        atomic.write(folder / name, written)


def checked_path(path: Path_) -> Path:
    """A path that a user gave. Raises ``ArgumentTypeError``.

    >>> checked_path("gates.safetensors").suffix
    '.safetensors'
    """
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str):
        raise ArgumentTypeError(f"path must be a path, got {type(path).__name__}")
    if "\0" in name or name.startswith("hf://"):
        advice = ": se_inject.push_gates(model, 'user/name') writes to the hub" if name.startswith("hf://") else ""
        raise InvalidArgumentError(f"{name!r:.80} is no path{advice}")
    return Path(name)


def contents(
    model: nn.Module,
    include: str | Iterable[str],
    with_digest: bool,
    base: str,
    metrics: Mapping[str, float | str] | None,
) -> tuple[Description, bytes]:
    """What a file of a model's gates says of itself, and the whole of it."""
    _check_texts(base, metrics)
    found = inside(model)
    if not found.gates:
        raise NoGateError("the model has no gates; call se_inject.apply(model) first")
    entries = tuple(_entry(name, gate, found.also[name]) for name, gate in found.gates.items())
    included = _included(found, include)
    tensors = {f"{name}.{key}": t for name, gate in found.gates.items() for key, t in tensors_of(gate).items()}
    tensors |= {name: found.base[name] for name in included}
    others = {name: tensor for name, tensor in found.base.items() if name not in included}
    _check_have_values(tensors | (others if with_digest else {}))
    cls = type(found.model)
    about = Base(
        f"{cls.__module__}.{cls.__qualname__}",
        base,
        {name: list(tensor.shape) for name, tensor in found.base.items()},
        digest(others) if with_digest else "",
    )
    description = Description(__version__, about, entries, included, dict(metrics or {}))
    return description, packed({name: whole(tensor) for name, tensor in tensors.items()}, description.as_json())


def _check_texts(base: str, metrics: Mapping[str, float | str] | None) -> None:
    """Raise unless a header can say it: what cannot be read again must not be written."""
    if not isinstance(base, str):
        raise ArgumentTypeError(f"base must be the name of the network, got {type(base).__name__}")
    if metrics is not None and not isinstance(metrics, Mapping):
        raise ArgumentTypeError(f"metrics must be a mapping of names to values, got {type(metrics).__name__}")
    for name, value in (metrics or {}).items():
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ArgumentTypeError(f"metrics must be names with numbers or texts, got {name!r:.40}: {value!r:.40}")
        if not isinstance(value, str) and not abs(value) < 1e300:
            raise InvalidArgumentError(f"metrics: {name[:40]!r} must be a number below 1e300, and no NaN")
    for text in (base, *(metrics or {}), *(value for value in (metrics or {}).values() if isinstance(value, str))):
        if not text.isascii() and text != text.encode(errors="ignore").decode():
            raise InvalidArgumentError(f"{text!r:.40} is no text of Unicode")


def _entry(path: str, gate: nn.Module, also: list[str]) -> GateEntry:
    tensors = {name: list(tensor.shape) for name, tensor in tensors_of(gate).items()}
    known = injection_of(gate)
    if any("get_extra_state" in vars(cls) for m in gate.modules() for cls in type(m).__mro__ if cls is not nn.Module):
        raise InvalidArgumentError(
            f"{path}: has an extra state, which files of gates do not hold: save the state_dict()"
        )
    if isinstance(gate, SqueezeExcitation):
        if gate.init != form_before(gate):
            raise InvalidArgumentError(
                f"{path} was converted to the {gate.init} form, which changed weights outside of it, too: save after"
                f" se_inject.convert(model, {form_before(gate)!r})"
            )
        channels = channels_of(gate) or (known.channels if known else 0)
        about: tuple[int, int, str, str] = (channels, width_of(gate), gate.init, gate.memory)
    elif known is not None:
        about = (known.channels, 0, known.init, known.memory)
    else:
        raise WrappedModelError(
            f"{path}: is a gate in a traced model, written out: save the gates of the model before it is traced"
        )
    channels, width, init, memory = about
    asked = ("", "", 1, "") if known is None else (known.kind, known.position, known.reduction, known.gate)
    kind, position, reduction, name = asked
    return GateEntry(path, kind, position, channels, width, reduction, init, name, memory, tensors, also)


def _included(found: Inside, include: str | Iterable[str]) -> tuple[str, ...]:
    if not isinstance(include, Iterable):
        raise ArgumentTypeError(f"include must be patterns of names, got {include!r}")
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
    tied = {id(found.base[name]) for name in chosen}  # travel under all of their names
    return tuple(name for name, tensor in found.base.items() if id(tensor) in tied)


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
