"""Changing the form of gates, with outputs that stay what they are."""

from typing import TypeVar

from torch import nn

from .errors import NoGateError, WrappedModelError
from .gate.squeeze_excitation import Form, SqueezeExcitation, check_form
from .graphs.traced import gate_paths, traced_models
from .sites.wrapped import as_module
from .surgery.forms import plan_forms
from .surgery.transaction import change_all
from .training import gates

Model = TypeVar("Model", bound=nn.Module)


def convert(model: Model, form: Form) -> Model:
    """Give all gates of ``model`` the form "standard" or "identity", in place, and return ``model``.

    The outputs stay the same to the bit, in eval mode and in training, unless numbers leave the range of their type:
    under float16 autocast, and near the largest and smallest of float32. To "standard", the 2 of
    ``2 * sigmoid(z)`` goes into the layer before each gate: its weight and bias are doubled, through concats, ReLUs and
    views, and ``fc1.weight`` is halved; to "identity", it comes back. Parameters stay the same objects. Gates that have
    the form are left alone, and so are gates of other kinds, which have none. ``remove`` takes the factor out again.

    Raises ``ConversionError``, which names each gate for which that is not exact, or whose layer serves others, too;
    ``NoGateError`` if no gate has a form, ``InvalidArgumentError``, ``NotAModuleError`` or ``WrappedModelError``; the
    model is then untouched.
    Source: the two forms differ by the factor 2 of ``2 * sigmoid(z)``; powers of 2 are exact in floating point.

    >>> import torch, se_inject
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), se_inject.SqueezeExcitation(8))
    >>> x = torch.randn(2, 3, 4, 4)
    >>> before = model.eval()(x)
    >>> torch.equal(convert(model, "standard")(x), before)
    True
    >>> model[1].weight.unique(), model[3].init
    (tensor([2.], grad_fn=...), 'standard')
    """
    check_form(form, "form")
    changed = as_module(model, "convert")
    traced = list(traced_models(changed).values())
    has_forms = any(isinstance(module, SqueezeExcitation) for module in changed.modules())
    if traced and (not has_forms or any(map(_holds_gates, traced))):
        raise WrappedModelError("the model, or a part of it, is traced: convert the model before it is traced")
    if not has_forms:
        others = {type(gate).__name__ for _, gate in gates(model)}
        what = f"gates that have a form, but {', '.join(sorted(others))}" if others else "gates"
        raise NoGateError(f"the model has no {what}; se_inject.apply(model) puts such gates in")
    change = plan_forms(changed, lambda _: form)
    change_all(change.gates, change.changes, change.tensors)
    return model


def _holds_gates(traced: nn.Module) -> bool:
    return bool(gate_paths(traced)) or any(isinstance(module, SqueezeExcitation) for module in traced.modules())
