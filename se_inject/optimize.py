"""A copy of a gated network for inference, in which gates cost next to nothing."""

import copy
import pickle
from typing import Literal, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .errors import InvalidArgumentError, NoGateError, NotAModuleError, WrappedModelError, first_line
from .gate.folding import join
from .gate.inference import (
    GatingBatchNorm1d,
    GatingBatchNorm2d,
    GatingBatchNorm3d,
    GatingConv2d,
    InPlaceGate,
    PassingBatchNorm2d,
    PassingGate,
)
from .gate.squeeze_excitation import SqueezeExcitation
from .graphs.traced import traced_models
from .sites.chains import Chain, Chains
from .sites.wrapped import as_module
from .surgery.frozen_norm import release
from .training import gates

Form = Literal["with the convolution", "with the norm", "in place", "unchanged"]

_GATING_NORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: GatingBatchNorm1d,
    nn.BatchNorm2d: GatingBatchNorm2d,
    nn.BatchNorm3d: GatingBatchNorm3d,
}
_MAKES_NEW: tuple[type[nn.Module], ...] = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear),
    *(nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, *_GATING_NORMS),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Sigmoid, nn.Tanh),
)


class OptimizedGate(NamedTuple):
    """What became of a gate: its form, and where it is unchanged, why."""

    path: str
    form: Form
    why: str


def optimize(model: nn.Module) -> nn.Module:
    """Return a copy of a gated model for inference, in which gates cost next to nothing; ``model`` stays as it is.

    Outputs are within 1e-5 of the model's, relative, in float32; where the model's own rounding errors are larger, the
    difference may be so, too. A gate after a batch norm is multiplied into the norm's scale and shift, and its mean is
    taken where that is cheapest; a gate after another layer or operation that makes a new tensor multiplies in place.
    Other gates stay as they are, and so do all on a CPU where the input is of half precision or under autocast.
    ``optimized_gates`` tells which is which.

    The copy has the keys of the model, and can be compiled and exported. Weights are folded when it is made, cast or
    moved, and when it loads a state dict, and the ways through forwards are those that the model's attributes choose
    when it is made. Gates that were changed run in eval mode without gradients only, and raise ``InferenceOnlyError``
    otherwise.

    Raises ``NoGateError`` if there is no gate, ``InvalidArgumentError`` if the model cannot be copied,
    ``NotAModuleError`` or ``WrappedModelError``.

    >>> import torch, torchvision, se_inject
    >>> model = se_inject.apply(torchvision.models.resnet18()).eval()
    >>> fast, x = optimize(model), torch.randn(1, 3, 64, 64)
    >>> with torch.inference_mode():
    ...     torch.allclose(fast(x), model(x), rtol=1e-4, atol=1e-5)
    True
    """
    if traced_models(as_module(model, "optimize")):
        raise WrappedModelError("the model is traced, or a part of it is: optimize the model before it is traced")
    try:
        changed = copy.deepcopy(model).eval()
    except (RuntimeError, TypeError, pickle.PicklingError) as error:
        raise InvalidArgumentError(f"the model cannot be copied: {first_line(error)}") from error
    if not set(changed.modules()).isdisjoint(model.modules()):
        raise InvalidArgumentError("the model cannot be copied: a module's __deepcopy__ returns the module itself")
    for module in changed.modules():
        release(module)  # in eval mode it is held anyway
    found = dict(gates(changed))
    if not found:
        raise NoGateError("the model has no gates; call se_inject.apply(model) first")
    chains = Chains(changed)
    changes = [(path, gate, *_form(chains.before(gate))) for path, gate in found.items()]
    for _, gate, form, layers, _ in changes:
        if isinstance(gate, SqueezeExcitation):
            _change(gate, form, layers)
    vars(changed)["_se_optimized"] = tuple(OptimizedGate(path, form, why) for path, _, form, _, why in changes)
    return changed


def optimized_gates(model: nn.Module) -> tuple[OptimizedGate, ...]:
    """What became of each gate in a copy that ``optimize`` made; empty for any other model.

    Raises ``NotAModuleError``.

    >>> optimized_gates(nn.ReLU())
    ()
    """
    if not isinstance(model, nn.Module):
        raise NotAModuleError(f"model must be a torch.nn.Module, got {model!r}")
    found: tuple[OptimizedGate, ...] = vars(model).get("_se_optimized", ())
    return found


def _form(chain: Chain) -> tuple[Form, tuple[nn.Module, ...], str]:
    """The form of a gate, with the layers that change for it."""
    if not chain.ways:
        return "unchanged", (), chain.why
    last, before = (*next(iter(chain.ways)), None, None)[:2] if len(chain.ways) == 1 else (None, None)
    if type(last) is nn.Conv2d:
        return "with the convolution", (last,), ""
    if isinstance(last, _BatchNorm) and type(last) in _GATING_NORMS and last.running_mean is not None:
        if type(last) is nn.BatchNorm2d and type(before) is nn.Conv2d:
            return "with the convolution", (before, last), ""
        return "with the norm", (last,), ""
    for layers in chain.ways:
        makers = (layer for layer in layers if layer != "view" and not getattr(layer, "inplace", False))
        made_by = next(makers, None)
        if made_by != "operation" and type(made_by) not in _MAKES_NEW:
            return "unchanged", (), f"it follows a {type(layers[0] if made_by is None else made_by).__name__}"
    return "in place", (), ""


def _change(gate: SqueezeExcitation, form: Form, layers: tuple[nn.Module, ...]) -> None:
    if form == "unchanged":
        return
    gate.__class__ = PassingGate if layers else InPlaceGate
    if not layers:
        join(gate, None, gate)
        return
    first, norm = layers[0], layers[-1] if isinstance(layers[-1], _BatchNorm) else None
    if form == "with the norm":
        first.__class__ = _GATING_NORMS[type(first)]
    else:
        first.__class__ = GatingConv2d
        if norm is not None:
            norm.__class__ = PassingBatchNorm2d
    join(first, norm, gate)
