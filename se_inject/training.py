"""Training the gates: finding them, their parameters for an optimizer, and holding everything else still."""

import functools
import types
from collections.abc import Iterator
from typing import Any, TypeVar

from torch import nn

from .errors import NoGateError, NotAModuleError, RewriteError
from .gate import SqueezeExcitation
from .rewrite import GatedBlock
from .subclass import QuietSubclass, reduce_to

Model = TypeVar("Model", bound=nn.Module)


def gates(model: nn.Module) -> Iterator[tuple[str, SqueezeExcitation]]:
    """Yield the qualified name and the module of every gate in ``model``, which may be wrapped.

    Raises ``NotAModuleError``.

    >>> [name for name, _ in gates(nn.Sequential(nn.ReLU(), SqueezeExcitation(8)))]
    ['1']
    """
    if not isinstance(model, nn.Module):
        raise NotAModuleError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return ((name, module) for name, module in model.named_modules() if isinstance(module, SqueezeExcitation))


def gate_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of all gates, for an optimizer.

    Raises ``NoGateError`` if there is no gate, and ``NotAModuleError``.

    >>> [tuple(p.shape) for p in gate_parameters(SqueezeExcitation(16))]
    [(8, 16, 1, 1), (8,), (16, 8, 1, 1), (16,)]
    """
    parameters = [parameter for _, gate in gates(model) for parameter in gate.parameters()]
    if not parameters:
        raise NoGateError("the model has no gates; call se_inject.apply(model) first")
    return parameters


def freeze_backbone(model: Model) -> Model:
    """Train the gates alone: freeze all other parameters and hold all normalization statistics, in place.

    Layers with running statistics go to eval mode and stay there when ``model.train()`` is called; dropout and the
    like follow the model's mode as before. Convert layers (``convert_sync_batchnorm``) before, not after. Returns
    ``model``.

    Raises ``NoGateError`` if there is no gate, ``RewriteError`` where statistics cannot be held, and
    ``NotAModuleError``.

    >>> model = freeze_backbone(nn.Sequential(nn.BatchNorm2d(8), SqueezeExcitation(8))).train()
    >>> model[0].training, model[1].training
    (False, True)
    >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    ['1.fc1.weight', '1.fc1.bias', '1.fc2.weight', '1.fc2.bias']
    """
    trained = set(gate_parameters(model))
    norms = [(path, m) for path, m in model.named_modules() if _has_statistics(m) and not isinstance(m, _HeldNorm)]
    for path, norm in norms:
        if issubclass(type(norm), GatedBlock):
            raise RewriteError(f"{path}: a gated block that keeps running statistics itself cannot be frozen")
    held = [(norm, _held_class(type(norm))) for _, norm in norms]  # type: ignore[arg-type]
    for parameter in model.parameters():
        if parameter not in trained:
            parameter.requires_grad_(False)
    for module, cls in held:
        module.__class__ = cls
        module.train(module.training)
    return model


def _has_statistics(module: nn.Module) -> bool:
    if isinstance(module, nn.utils.parametrizations._SpectralNorm):
        return True
    return getattr(module, "running_mean", None) is not None or getattr(module, "running_var", None) is not None


class _HeldNorm(QuietSubclass):
    """What a held normalization layer's generated class adds to the layer's own class."""

    def train(self, mode: bool = True) -> Any:
        """Stay in eval mode; children, such as the dropout of a fused layer, follow."""
        super().train(mode)  # type: ignore[misc]
        self.training = False
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        original = type(self).__bases__[1]
        return reduce_to(original, super().__reduce_ex__(max(int(protocol), 2)), _restore, original)


@functools.cache
def _held_class(original: Any) -> type[nn.Module]:
    body = {"__module__": original.__module__, "__doc__": original.__doc__}
    return types.new_class(f"Held{original.__name__}", (_HeldNorm, original), {}, lambda ns: ns.update(body))


def _restore(original: type[nn.Module], *arguments: Any) -> nn.Module:
    cls = _held_class(original)  # type: ignore[arg-type]
    return cls.__new__(cls, *arguments)
