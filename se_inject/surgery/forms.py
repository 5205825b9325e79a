"""Changing gates to the other form: a factor of 2 moves between a gate and the weights of the layer before it.

``2 * sigmoid(fc2(relu(fc1(mean of x))))`` times ``x`` is ``sigmoid(...)`` times ``2 * x``. With ``2 * x`` from doubled
weights, and half of ``fc1.weight``, every number in between is the same or twice the same, which floating point does
exactly.
"""

import dis
import gc
import types
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConversionError
from ..gate.marks import mark_converted
from ..gate.record import Rewrite
from ..gate.squeeze_excitation import Form, SqueezeExcitation
from ..sites.callers import Weight
from ..sites.factors import Factors, NoPlaceError
from ..source.functions import closed_over
from ..tracing.reachable import is_library
from .transaction import write

_NOT_FOLLOWED = (*weakref.ProxyTypes, Rewrite, str, bytes, int, float, types.ModuleType, types.FrameType)


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
        raise NoPlaceError(
            f"{what} is shared with other weights, or held in an attribute, too: give each its own first"
        )
    value = tensor.detach() * factor
    if not tensor.is_meta and not bool(((value / factor == tensor) | tensor.isnan()).all()):
        raise NoPlaceError(f"{what} cannot be multiplied by {factor:g} exactly in {tensor.dtype}: convert in float32")
    return tensor, value


def _set_form(gate: SqueezeExcitation, form: Form) -> None:
    mark_converted(gate)
    with torch.inference_mode(False):
        gate.set_form(form)


class _Memory:
    """Which memory the parameters and buffers of a model take, and other tensors that it holds."""

    def __init__(self, model: nn.Module) -> None:
        registered = [
            tensor
            for _, module in model.named_modules(remove_duplicate=False)
            for tensor in (*module._parameters.values(), *module._buffers.values())
        ]
        tensors = (*registered, *_held_tensors(model))
        self._extents = [_extent(t) for t in tensors if type(t) in (nn.Parameter, Tensor) and _has_memory(t)]

    def is_shared(self, tensor: Tensor) -> bool:
        """Whether more than one place holds some of the memory of a weight, or some of its numbers have the same."""
        if not _has_memory(tensor):
            return False
        device, start, end = _extent(tensor)
        found = sum(place == device and first < end and start < last for place, first, last in self._extents)
        return found > 1 or tensor.numel() * tensor.element_size() > end - start


def _held_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Tensors in other attributes than parameters and buffers: in containers, objects and functions there, too."""
    own = set(model.modules())
    seen: dict[int, object] = {}
    todo: list[Any] = [model]
    while todo:
        value = todo.pop()
        if isinstance(value, _NOT_FOLLOWED) or id(value) in seen or _is_optimizer(value):
            continue
        seen[id(value)] = value
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, nn.Module):
            registers = ("_parameters", "_buffers") if value in own else ()
            todo += [type(value), *(held for name, held in vars(value).items() if name not in registers)]
        elif isinstance(value, type):
            todo += [] if _holds_no_weights(value.__module__) else [*value.__mro__, *vars(value).values()]
        elif isinstance(value, types.FunctionType):  # not all that its module holds
            if not _holds_no_weights(value.__module__):
                todo += [closed_over(value), value.__defaults__, value.__kwdefaults__, vars(value), *_globals_in(value)]
        else:
            todo += gc.get_referents(value)
            todo += [value.base] if type(value).__module__ == "numpy" and hasattr(value, "base") else []
            todo += [value()] if isinstance(value, weakref.ref) else []


def _holds_no_weights(module: str | None) -> bool:
    """Whether a module is of a library; ours has caches of texts, which take long to look through."""
    return is_library(module) or (module or "").partition(".")[0] == __name__.partition(".")[0]


def _is_optimizer(value: object) -> bool:
    """Whether an object updates weights, which no forward does; wrappers of optimizers look like them."""
    return "param_groups" in getattr(value, "__dict__", ())


def _globals_in(function: types.FunctionType) -> list[object]:
    """What a function reads of the globals of its module."""
    codes = [function.__code__]
    for code in codes:  # lambdas and comprehensions, too
        codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
    read = (step for code in codes for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL")
    return [function.__globals__.get(step.argval) for step in read]


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and tensor.numel() > 0


def _extent(tensor: Tensor) -> tuple[torch.device, int, int]:
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.device, tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()
