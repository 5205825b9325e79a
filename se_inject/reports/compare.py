"""Two files of gates, or two models, beside each other."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path, tree_map

from ..errors import ArgumentTypeError, GateFileError, InvalidArgumentError, first_line
from ..files.container import unpacked
from ..files.description import Description, described
from ..files.save import GATES
from ..find import find
from ..sites.selection import Selection
from ..sites.site import PAPERS_KINDS
from ..sites.tables import html_table, text_table
from ..sites.wrapped import as_module
from ..training import gates
from .costs import count_parameters
from .evaluation import evaluating
from .measure import gate_text

_SHOWN = 20  # differences in the printed table


class Difference(NamedTuple):
    """What differs, and how it is in either; "" where it is not there."""

    what: str
    a: str
    b: str


@dataclass(frozen=True, repr=False)
class Comparison:
    """What ``compare`` found; prints as a table.

    ``values`` has the largest absolute difference of what both have: of the tensors of each gate in two files, of the
    outputs of two models.
    """

    differences: tuple[Difference, ...]
    values: dict[str, float]

    @property
    def equal(self) -> bool:
        """Whether there is no difference at all."""
        return not self.differences and not any(self.values.values())

    def __repr__(self) -> str:
        parts = []
        if self.differences:
            parts += [*text_table(_HEAD, self.differences[:_SHOWN]), *self._rest(), ""]
        if self.values:
            parts += [*text_table(_HEAD_OF_VALUES, self._rows()), ""]
        return "\n".join([*parts, "equal" if self.equal else "different"])

    def _repr_html_(self) -> str:
        parts = []
        if self.differences:
            parts += [html_table(_HEAD, self.differences[:_SHOWN]), *(f"<p>{line}</p>" for line in self._rest())]
        if self.values:
            parts.append(html_table(_HEAD_OF_VALUES, self._rows()))
        return "".join([*parts, f"<p>{'equal' if self.equal else 'different'}</p>"])

    def _rows(self) -> list[tuple[str, str]]:
        return [(name, f"{value:.3g}") for name, value in self.values.items()]

    def _rest(self) -> list[str]:
        hidden = len(self.differences) - _SHOWN
        return [f"and {hidden} more"] if hidden > 0 else []


_HEAD = ("", "A", "B")
_HEAD_OF_VALUES = ("values", "largest difference")


def compare(a: Any, b: Any, *, example_inputs: Any = None) -> Comparison:
    """Say how two files of gates differ, or two models.

    Of files: the networks that they are for, which gates they have, of which kind, place, size and form, and how far
    their values are apart. Of models: classes, parameters, sites and gates, the names and shapes of tensors, and, where
    ``example_inputs`` are given, how far the outputs in eval mode are apart.

    Raises ``ArgumentTypeError`` for anything but two paths or two models, ``GateFileError`` for files that are damaged,
    ``InvalidArgumentError`` where a model fails on the inputs, and ``WrappedModelError``.

    >>> import se_inject, torchvision
    >>> with torch.device("meta"):
    ...     model = torchvision.models.resnet18()
    ...     gated = se_inject.apply(torchvision.models.resnet18(), where="layer4.1")
    >>> compare(model, gated)
                               A           B
    -------------------------  ----------  -----------------------------------------
    parameters                 11,689,512  11,722,824
    layer4.1.se                no gate     SqueezeExcitation, 32 wide, identity form
    layer4.1.se.identity_form              ()
    ...
    different
    """
    if isinstance(a, nn.Module) and isinstance(b, nn.Module):
        values = {} if example_inputs is None else _outputs_apart(a, b, example_inputs)
        return Comparison(tuple(_differences(_of_model(a), _of_model(b))), values)
    if not all(isinstance(value, str | os.PathLike) for value in (a, b)):
        raise ArgumentTypeError(f"give two files of gates or two models, got {type(a).__name__} and {type(b).__name__}")
    (about_a, tensors_a), (about_b, tensors_b) = _read(Path(a)), _read(Path(b))
    values = _values_apart(about_a, tensors_a, tensors_b)
    return Comparison(tuple(_differences(_of_file(about_a), _of_file(about_b))), values)


def _differences(a: dict[str, str], b: dict[str, str]) -> Iterator[Difference]:
    for name in {**a, **b}:
        if a.get(name, "") != b.get(name, ""):
            yield Difference(name, a.get(name, ""), b.get(name, ""))


def _read(path: Path) -> tuple[Description, dict[str, Tensor]]:
    file = path / GATES if path.is_dir() else path
    tensors, about = unpacked(file)
    try:
        return described(about), tensors
    except GateFileError as error:
        raise GateFileError(f"{file}: {error}") from error


def _of_file(about: Description) -> dict[str, str]:
    base = about.base
    entries = {"base": base.name or base.model, "base, weights": base.digest[:16]}
    for gate in about.gates:
        fields = asdict(gate)
        del fields["path"], fields["tensors"]
        entries[gate.path] = gate.kind or "a gate"
        entries |= {f"{gate.path}, {name}": str(value) for name, value in fields.items()}
    entries |= {f"{name}, included": str(tuple(base.tensors[name])) for name in about.included}
    return entries | {f"base, {name}": str(tuple(shape)) for name, shape in base.tensors.items()}


def _values_apart(about: Description, a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, float]:
    both = [name for name in a if name in b and a[name].shape == b[name].shape]
    parts = {gate.path: [name for name in both if name.startswith(f"{gate.path}.")] for gate in about.gates}
    parts |= {name: [name] for name in about.included if name in both}
    return {part: max(_apart(a[name], b[name]) for name in names) for part, names in parts.items() if names}


def _of_model(model: nn.Module) -> dict[str, str]:
    found = find(as_module(model), Selection(PAPERS_KINDS, None), "standard", None)
    entries = {"class": type(model).__name__, "parameters": f"{count_parameters(model):,}"}
    for site in [*found.gated, *(target.site for target in found.targets)]:
        entries[f"{site.path or '(model)'}, {site.kind}"] = f"{site.channels} channels"
        entries.setdefault(site.gate_path, "no gate")
    entries |= {path: gate_text(gate) for path, gate in gates(model)}
    return entries | {name: str(tuple(tensor.shape)) for name, tensor in model.state_dict().items()}


def _outputs_apart(a: nn.Module, b: nn.Module, example_inputs: Any) -> dict[str, float]:
    left, right = _outputs(a, example_inputs, "a"), _outputs(b, example_inputs, "b")
    if left.keys() != right.keys() or any(left[name].shape != right[name].shape for name in left):
        shapes = [", ".join(f"{name} {tuple(value.shape)}" for name, value in of.items()) for of in (left, right)]
        raise InvalidArgumentError(f"the outputs cannot be compared: {shapes[0]} of a, and {shapes[1]} of b")
    return {name: _apart(left[name], right[name]) for name in left}


def _outputs(model: nn.Module, example_inputs: Any, which: str) -> dict[str, Tensor]:
    given = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    arguments = tree_map(lambda value: value.detach().clone() if isinstance(value, Tensor) else value, given)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with evaluating(model):
        torch.manual_seed(0)
        try:
            outputs = model(*arguments)
        except Exception as error:  # whatever the model raises
            raise InvalidArgumentError(f"example_inputs: model {which} fails on them ({first_line(error)})") from error
        finally:
            for buffer, value in buffers:
                buffer.copy_(value)
    leaves, _ = tree_flatten_with_path(outputs)
    return {f"output{_path(path)}": leaf for path, leaf in leaves if isinstance(leaf, Tensor)}


def _path(keys: tuple[Any, ...]) -> str:
    return "".join(str(key) for key in keys)


def _apart(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference; NaNs in the same places do not differ."""
    b = b.to(a.device)
    if a.numel() == 0 or torch.equal(a, b):
        return 0.0
    known = ~(a.isnan() & b.isnan())
    exact = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    apart = (a.to(exact) - b.to(exact)).abs()[known]
    return float(apart.max()) if apart.numel() else 0.0
