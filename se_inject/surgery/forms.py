"""Changing gates to the other form: a factor of 2 moves between a gate and the weights of the layer before it.

``2 * sigmoid(fc2(relu(fc1(mean of x))))`` times ``x`` is ``sigmoid(...)`` times ``2 * x``. With ``2 * x`` from doubled
weights, and half of ``fc1.weight``, every number in between is the same or twice the same, which floating point does
exactly.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConversionError
from ..gate.marks import mark_converted
from ..gate.squeeze_excitation import Form, SqueezeExcitation
from ..sites.callers import Weight
from ..sites.factors import Factors, NoPlaceError
from .transaction import write


class FormChange(NamedTuple):
    """Gates with their other forms, and tensors with their other values."""

    forms: tuple[tuple[SqueezeExcitation, Form], ...] = ()
    values: tuple[tuple[Tensor, Tensor], ...] = ()

    @property
    def gates(self) -> list[SqueezeExcitation]:
        """The gates that change."""
        return [gate for gate, _ in self.forms]

    @property
    def tensors(self) -> list[Tensor]:
        """The parameters and buffers that change."""
        return [tensor for tensor, _ in self.values]

    @property
    def changes(self) -> list[Callable[[], None]]:
        """The change, in steps."""
        steps: list[Callable[[], None]] = [partial(write, tensor, value) for tensor, value in self.values]
        return steps + [partial(_set_form, gate, form) for gate, form in self.forms]


def plan_forms(model: nn.Module, form_of: Callable[[SqueezeExcitation], Form]) -> FormChange:
    """Prepare to give each gate the form that it is to have, with outputs that stay the same to the bit.

    Raises ``ConversionError``.
    """
    gates = [(path, gate) for path, gate in model.named_modules() if isinstance(gate, SqueezeExcitation)]
    todo = [(path, gate, form_of(gate)) for path, gate in gates if form_of(gate) != gate.init]
    if not todo:
        return FormChange()
    factors, memory = Factors(model), _Memory(model)
    values: list[tuple[Tensor, Tensor]] = []
    problems = []
    for path, gate, form in todo:
        factor = 2.0 if form == "standard" else 0.5
        try:
            weights = [*((weight, factor) for weight in factors.before(gate)), (Weight(gate.fc1, "weight"), 1 / factor)]
            values += [_multiplied(weight, by, factors, memory) for weight, by in weights]
        except NoPlaceError as error:
            problems.append(f"{path or 'the model'} cannot take the {form} form: {error}")
    if problems:
        raise ConversionError("\n".join([*problems, "Nothing was changed."]))
    return FormChange(tuple((gate, form) for _, gate, form in todo), tuple(values))


def _multiplied(weight: Weight, factor: float, factors: Factors, memory: "_Memory") -> tuple[Tensor, Tensor]:
    """A tensor, and what it is to become. Raises ``NoPlaceError`` if that is not exact, or others have the tensor."""
    tensor = getattr(weight.module, weight.name)
    what = f"the {weight.name} of {factors.shown(weight.module)}"
    if type(tensor) not in (nn.Parameter, Tensor) or not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
        kind = f"{type(tensor).__name__} of {tensor.dtype}"
        raise NoPlaceError(f"{what} is a {kind}: convert before weights are quantized or sharded")
    if memory.is_shared(tensor):
        raise NoPlaceError(f"{what} is shared with other weights: give each its own first")
    value = tensor.detach() * factor
    if not tensor.is_meta and not bool(((value / factor == tensor) | tensor.isnan()).all()):
        raise NoPlaceError(f"{what} cannot be multiplied by {factor:g} exactly in {tensor.dtype}: convert in float32")
    return tensor, value


def _set_form(gate: SqueezeExcitation, form: Form) -> None:
    mark_converted(gate)
    with torch.inference_mode(False):
        gate.set_form(form)


class _Memory:
    """Which memory the parameters and buffers of a model take."""

    def __init__(self, model: nn.Module) -> None:
        tensors = (
            tensor
            for _, module in model.named_modules(remove_duplicate=False)
            for tensor in (*module._parameters.values(), *module._buffers.values(), *vars(module).values())
        )
        self._extents = [_extent(t) for t in tensors if type(t) in (nn.Parameter, Tensor) and _has_memory(t)]

    def is_shared(self, tensor: Tensor) -> bool:
        """Whether more than one parameter or buffer has some of the memory of one, or some numbers have the same."""
        if not _has_memory(tensor):
            return False
        device, start, end = _extent(tensor)
        found = sum(place == device and first < end and start < last for place, first, last in self._extents)
        return found > 1 or tensor.numel() * tensor.element_size() > end - start


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and tensor.numel() > 0


def _extent(tensor: Tensor) -> tuple[torch.device, int, int]:
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.device, tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()
