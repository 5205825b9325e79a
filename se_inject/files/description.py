"""What a file of gates says of itself, checked before anything believes it."""

from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from ..errors import GateFileError
from ..gate.squeeze_excitation import Form, Memory
from ..sites.selection import KINDS
from ..sites.site import Position

FORMAT = 1
_LARGEST = 1 << 31  # no layer has as many channels
_CHOICES: dict[str, tuple[str, ...]] = {
    "kind": (*KINDS, ""),
    "position": (*get_args(Position), ""),
    "init": get_args(Form),
    "memory": get_args(Memory),
}


@dataclass(frozen=True)
class GateEntry:
    """A gate: its qualified name, what ``apply`` is to be asked for, and its tensors by name and shape.

    A gate that ``apply`` did not put in has no ``kind`` and no ``position``; a function's has ``gate=""``.
    """

    path: str
    kind: str
    position: str
    channels: int
    width: int  # of a Squeeze-and-Excitation gate, 0 for others
    reduction: int
    init: str
    gate: str
    memory: str
    tensors: dict[str, list[int]]
    also: list[str]  # other names that it has, where a block has several

    @property
    def injected(self) -> bool:
        """Whether ``apply`` put it in."""
        return bool(self.kind)


@dataclass(frozen=True)
class Base:
    """The network that the gates are for: its class, the name that its user gave it, and all other tensors' shapes."""

    model: str
    name: str
    tensors: dict[str, list[int]]
    digest: str  # of their values, "" if it was not asked for


@dataclass(frozen=True)
class Description:
    """All of it; ``included`` are the tensors of the base that the file has, too."""

    library: str
    base: Base
    gates: tuple[GateEntry, ...]
    included: tuple[str, ...]
    metrics: dict[str, Any]
    format: int = FORMAT

    def as_json(self) -> dict[str, Any]:
        """For the header.

        >>> Description("0.1.0", Base("Net", "", {}, ""), (), (), {}).as_json()["format"]
        1
        """
        return asdict(self)

    def tensors(self) -> dict[str, list[int]]:
        """The names and shapes of all tensors that the file must have.

        >>> Description("0.1.0", Base("Net", "", {"fc.weight": [2, 8]}, ""), (), ("fc.weight",), {}).tensors()
        {'fc.weight': [2, 8]}
        """
        of_gates = {f"{gate.path}.{name}": shape for gate in self.gates for name, shape in gate.tensors.items()}
        return of_gates | {name: self.base.tensors[name] for name in self.included}


def described(about: Any) -> Description:
    """What a header says. Raises ``GateFileError`` where it cannot be.

    >>> described({"format": 2})
    Traceback (most recent call last):
    ...
    se_inject.errors.GateFileError: the file is of format 2; this version of se_inject reads format 1: update it
    """
    header = _mapping(about, "the header")
    if type(header.get("format")) is not int or header["format"] != FORMAT:
        raise GateFileError(
            f"the file is of format {str(header.get('format'))[:20]}; this version of se_inject reads format {FORMAT}:"
            " update it"
        )
    _check_names(header, Description, "the header")
    base = _mapping(header["base"], "base")
    _check_names(base, Base, "base")
    gates = tuple(_gate(entry) for entry in _sequence(header["gates"], "gates"))
    included = tuple(_text(name, "a name in included") for name in _sequence(header["included"], "included"))
    tensors = _shapes(base["tensors"], "base")
    _check_unique([gate.path for gate in gates], "gates")
    _check_unique(included, "included")
    for name in included:
        if name not in tensors:
            raise GateFileError(f"included has {name[:80]!r}, which the base has not")
    return Description(
        _text(header["library"], "library"),
        Base(_text(base["model"], "model"), _text(base["name"], "name"), tensors, _text(base["digest"], "digest")),
        gates,
        included,
        _mapping(header["metrics"], "metrics"),
    )


def _gate(about: Any) -> GateEntry:
    entry = _mapping(about, "a gate")
    _check_names(entry, GateEntry, "a gate")
    path = _text(entry["path"], "the path of a gate")
    for key, choices in _CHOICES.items():
        if entry[key] not in choices:
            names = ", ".join(map(repr, choices))
            raise GateFileError(f"{path}: {key} must be one of {names}, got {str(entry[key])[:80]!r}")
    if (entry["kind"] == "") != (entry["position"] == ""):
        raise GateFileError(f"{path}: kind and position must both be told, or none")
    for key in ("channels", "width", "reduction"):
        value = entry[key]
        lowest = 0 if key == "width" or not entry["kind"] else 1
        if type(value) is not int or not lowest <= value < _LARGEST:
            raise GateFileError(f"{path}: {key} must be a whole number >= {lowest}, got {str(value)[:80]}")
    if len(_text(entry["gate"], f"{path}: gate")) > 80:
        raise GateFileError(f"{path}: gate must be a name, got {entry['gate'][:80]!r}...")
    for name in _sequence(entry["also"], f"{path}: also"):
        _text(name, f"{path}: a name in also")
    return GateEntry(**entry | {"path": path, "tensors": _shapes(entry["tensors"], path)})


def _check_names(about: dict[str, Any], cls: type[Any], what: str) -> None:
    names = {field.name for field in fields(cls)}
    if about.keys() != names:
        different = sorted(about.keys() ^ names)[0][:80]
        raise GateFileError(f"{what} {'has an unknown' if different in about else 'lacks the'} entry {different!r}")


def _shapes(about: Any, what: str) -> dict[str, list[int]]:
    for name, shape in _mapping(about, f"the tensors of {what}").items():
        sizes = _sequence(shape, f"the shape of {name[:80]}")
        if not all(type(size) is int and 0 <= size < 1 << 63 for size in sizes):
            raise GateFileError(f"{what}: the shape of {name[:80]!r} must be whole numbers, got {str(sizes)[:80]}")
    return dict(about)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    return _of_type(value, dict, what)  # type: ignore[no-any-return]


def _sequence(value: Any, what: str) -> list[Any]:
    return _of_type(value, list, what)  # type: ignore[no-any-return]


def _text(value: Any, what: str) -> str:
    return _of_type(value, str, what)  # type: ignore[no-any-return]


def _of_type(value: Any, cls: type[Any], what: str) -> Any:
    if type(value) is not cls:
        raise GateFileError(f"{what} must be of type {cls.__name__}, got {str(value)[:80]}")
    return value


def _check_unique(names: list[str] | tuple[str, ...], what: str) -> None:
    name, count = next(iter(Counter(names).most_common(1)), ("", 0))
    if count > 1:
        raise GateFileError(f"{what} has {name[:80]!r} twice")
