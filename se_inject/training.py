"""Training the gates: finding them, their parameters for an optimizer, and freezing everything else."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from numbers import Real
from typing import Any, TypeVar

from torch import nn
from torch.nn.parameter import is_lazy

from .errors import (
    ArgumentTypeError,
    InvalidArgumentError,
    NoGateError,
    NotAModuleError,
    RewriteError,
    WrappedModelError,
)
from .gate.marks import is_gate
from .gate.record import Gated
from .graphs.modes import updates_statistics
from .graphs.traced import gate_paths, is_program, traced_models
from .sites.adapters import idle_copies
from .sites.qualified_names import join
from .sites.wrapped import check_not_optimized
from .source.subclass import set_class
from .surgery.frozen_norm import HeldNorm, held_class
from .surgery.gated_block import held_gated_class
from .surgery.transaction import change_all

Model = TypeVar("Model", bound=nn.Module)


def gates(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the qualified name and the module of every gate in ``model``, which may be wrapped.

    Gates are what ``apply`` put in and every other ``SqueezeExcitation``.

    Raises ``NotAModuleError``.

    >>> import se_inject
    >>> [name for name, _ in gates(nn.Sequential(nn.ReLU(), se_inject.SqueezeExcitation(8)))]
    ['1']
    """
    _check_is_module(model)
    return _gates(model)


def _check_is_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        advice = ": its module() can be trained" if is_program(model) else ""
        raise NotAModuleError(f"model must be a torch.nn.Module, got {type(model).__name__}{advice}")


def _gates(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    inside: set[nn.Module] = set()  # a gate may hold another one, and an adapter copies of it
    in_graphs = {join(path, gate) for path, traced in traced_models(model).items() for gate in gate_paths(traced)}
    for name, module in model.named_modules():
        for copy in idle_copies(module):
            inside.update(copy.modules())
        if (is_gate(module) or name in in_graphs) and module not in inside:
            inside.update(module.modules())
            yield name, module


def gate_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of all gates, for an optimizer.

    Raises ``NoGateError`` if there is no gate, and ``NotAModuleError``.

    >>> import se_inject
    >>> [tuple(p.shape) for p in gate_parameters(se_inject.SqueezeExcitation(16))]
    [(8, 16, 1, 1), (8,), (16, 8, 1, 1), (16,)]
    """
    parameters = [parameter for _, gate in gates(model) for parameter in gate.parameters()]
    if not parameters:
        raise NoGateError("the model has no gates; call se_inject.apply(model) first")
    return parameters


def param_groups(
    model: nn.Module, *, lr: float, gate_lr: float | None = None, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Groups of parameters for an optimizer: gates at a learning rate of their own, no decay of biases and norms.

    Every parameter that is trained is in one group, once; frozen ones are in none. ``gate_lr`` is ``lr`` unless it is
    given. ``weight_decay`` is for the weights of convolutions, of linear layers and the like: not for biases, for
    parameters of normalization layers, and for other vectors of whatever shape, such as a layer scale of ``(C, 1, 1)``.
    Groups have a ``name``; those without parameters are left out.

    Raises ``NoGateError`` if there is no gate, ``NotAModuleError``, ``WrappedModelError`` for a model in PyTorch's
    first FSDP, which makes vectors of all parameters, ``ArgumentTypeError`` and ``InvalidArgumentError``.

    >>> import se_inject
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), se_inject.SqueezeExcitation(8))
    >>> for group in param_groups(model, lr=0.01, gate_lr=0.1, weight_decay=1e-4):
    ...     print(group["name"], len(group["params"]), group["lr"], group["weight_decay"])
    backbone 1 0.01 0.0001
    backbone, no decay 3 0.01 0.0
    gates 2 0.1 0.0001
    gates, no decay 2 0.1 0.0
    """
    rates = {"backbone": lr, "gates": lr if gate_lr is None else gate_lr}
    for name, value in {"lr": lr, "gate_lr": rates["gates"], "weight_decay": weight_decay}.items():
        _check_number(name, value)
    _check_is_module(model)
    _check_shapes_are_told(model)
    of_gates = set(gate_parameters(model))
    undecayed = set(_undecayed(model))
    groups: dict[str, dict[str, Any]] = {}
    for part, rate in rates.items():
        groups[part] = {"params": [], "lr": rate, "weight_decay": weight_decay}
        groups[f"{part}, no decay"] = {"params": [], "lr": rate, "weight_decay": 0.0}
    for parameter in model.parameters():
        if parameter.requires_grad:
            part = "gates" if parameter in of_gates else "backbone"
            groups[f"{part}, no decay" if parameter in undecayed else part]["params"].append(parameter)
    return [group | {"name": name} for name, group in groups.items() if group["params"]]


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentTypeError(f"{name} must be a number >= 0, got {value!r}")
    if not 0 <= float(value) < math.inf:
        raise InvalidArgumentError(f"{name} must be a number >= 0, got {value!r}")


def _check_shapes_are_told(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if any(cls.__name__ == "FullyShardedDataParallel" for cls in type(module).__mro__):
            raise WrappedModelError("FullyShardedDataParallel makes vectors of all parameters: use fully_shard")
        if any(map(is_lazy, module.parameters(recurse=False))):
            raise InvalidArgumentError(f"{path or '(model)'}: is lazy: run the model once, then build the groups")


_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_MATRICES = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase)


def _undecayed(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_vector = parameter.ndim <= 1 or parameter.numel() == max(parameter.shape)
            is_weight = isinstance(module, _MATRICES) and name.startswith("weight") and parameter.ndim > 1
            if name == "bias" or isinstance(module, _NORMS) or (is_vector and not is_weight):
                yield parameter


def freeze_backbone(model: Model) -> Model:
    """Freeze all parameters but the gates', and the running statistics of normalization layers, in place.

    Layers with running statistics go to eval mode and stay there when ``model.train()`` is called; dropout and the
    like follow the model's mode as before. Convert layers (``convert_sync_batchnorm``) before, not after. Returns
    ``model``.

    Raises ``NoGateError`` if there is no gate, ``RewriteError`` if a layer's statistics cannot be frozen,
    ``NotAModuleError``, and ``WrappedModelError`` for a copy that ``optimize`` made.

    >>> import se_inject
    >>> model = freeze_backbone(nn.Sequential(nn.BatchNorm2d(8), se_inject.SqueezeExcitation(8))).train()
    >>> model[0].training, model[1].training
    (False, True)
    >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    ['1.fc1.weight', '1.fc1.bias', '1.fc2.weight', '1.fc2.bias']
    """
    trained = set(gate_parameters(model))
    check_not_optimized(model)
    in_gates = {module for _, gate in gates(model) for module in gate.modules()}
    held = [
        (module, _class_that_holds(path, module))
        for path, module in model.named_modules()
        if module not in in_gates and _has_statistics(module) and not isinstance(module, HeldNorm)
    ]
    for path, module in traced_models(model).items():
        node = updates_statistics(module)
        if node is not None:
            raise RewriteError(
                f"{path or '(model)'}: its statistics cannot be held: node {node} of its graph updates them in every"
                " mode; export the model in eval mode, then apply"
            )
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    changes: list[Callable[[], object]] = [partial(_hold, module, cls) for module, cls in held]
    changes += [partial(p.requires_grad_, False) for p in model.parameters() if p not in trained]
    try:
        change_all(model.modules(), changes)
    except BaseException:
        for parameter, flag in flags:
            parameter.requires_grad = flag
        raise
    return model


def frozen_names(model: nn.Module) -> set[str]:
    """The names in a state dict of what training leaves as it is; those of gates are never among them.

    It is what ``freeze_backbone`` freezes: parameters that ask for no gradient, and statistics that are held.

    >>> import se_inject
    >>> model = freeze_backbone(nn.Sequential(nn.BatchNorm2d(8), se_inject.SqueezeExcitation(8)))
    >>> sorted(frozen_names(model))
    ['0.bias', '0.num_batches_tracked', '0.running_mean', '0.running_var', '0.weight']
    """
    names: set[str] = set()
    for path, module in _beside_gates(model):
        frozen = [name for name, p in module._parameters.items() if p is not None and not p.requires_grad]
        held = module._buffers if isinstance(module, HeldNorm) else ()
        names.update(join(path, name) for name in (*frozen, *held))
    return names


def trained_names(model: nn.Module) -> list[str]:
    """The names in a state dict of what training changes beside the gates, such as those of a new head.

    >>> import se_inject
    >>> trained_names(nn.Sequential(nn.Linear(8, 2), se_inject.SqueezeExcitation(8)))
    ['0.weight', '0.bias']
    """
    named = ((path, name) for path, m in _beside_gates(model) for name in (*m._parameters, *m._buffers))
    own = {join(path, name) for path, name in named} - frozen_names(model)
    return [name for name in model.state_dict() if name in own]


def _beside_gates(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules that are not in gates, by all of their names."""
    in_gates = {module for _, gate in gates(model) for module in gate.modules()}
    return ((path, m) for path, m in model.named_modules(remove_duplicate=False) if m not in in_gates)


def _hold(norm: nn.Module, cls: type[nn.Module]) -> None:
    set_class(norm, cls)
    norm.train(norm.training)


def _class_that_holds(path: str, norm: nn.Module) -> type[nn.Module]:
    if not isinstance(norm, Gated):
        return held_class(type(norm))  # type: ignore[arg-type]
    try:
        return held_gated_class(norm)
    except RewriteError as error:
        raise RewriteError(f"{path}: its running statistics cannot be frozen: {error}") from error


def _has_statistics(module: nn.Module) -> bool:
    if isinstance(module, nn.utils.parametrizations._SpectralNorm):
        return True
    return getattr(module, "running_mean", None) is not None or getattr(module, "running_var", None) is not None
