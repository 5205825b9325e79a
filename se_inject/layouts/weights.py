"""Loading published weights into a gated network, and giving a gated network's weights in the layout of others."""

from collections.abc import Mapping
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import InvalidArgumentError, LayoutError, NoGateError
from ..gate.factory import Blend
from ..sites.qualified_names import with_parents
from ..sites.wrapped import check_not_optimized
from ..surgery.transaction import change_all, write
from ..surgery.values import check_writable
from ..training import gates
from .layers import COUNTER, Layer, layers_of
from .matching import match
from .mismatch import mismatch
from .renaming import renamed
from .state_dicts import as_value, check_own, check_state_dict, tensors_of

Model = TypeVar("Model", bound=nn.Module)


def load_se_weights(model: Model, state_dict: Mapping[str, Tensor]) -> Model:
    """Copy the weights of a published SE network into ``model``, a plain network with our gates, in place.

    The state dict may have the names of any library: timm's (today's and ``legacy_*``), torchvision's, pytorchcv's,
    those of Cadene's pretrained-models and the authors' (``conv2_1_1x1_down``), also with a prefix such as
    ``module.``. Which tensor is which is told by structure: shapes, the tree of names, the numbers in them, and the
    last names (``weight``, ``running_mean`` ...). The order of keys plays no role. Every tensor is used exactly once.
    Fully-connected weights ``(out, in)`` become our ``(out, in, 1, 1)``; gates without biases get zeros, which is the
    same; ``num_batches_tracked`` may be missing. Values take the model's dtype and device. Returns ``model``.

    Strides, pools and activations are not in a state dict: the plain network must be the published one's. The gates
    must be of the standard form, ``sigmoid(z)``; ``se_inject.convert(model, "identity")`` comes after.

    Raises ``LayoutError``, which names the first tensors left over or missing, the widths of gates that differ with
    the ``reduction=`` to use, or the layers that could be taken for each other; ``InvalidArgumentError`` for gates of
    the identity form, for a checkpoint around the state dict, for values that cannot be weights or are too large for
    the model's dtype, and for expanded buffers; ``ArgumentTypeError`` for what is no dict of tensors; ``NoGateError``,
    ``NotAModuleError`` and ``WrappedModelError``. The model is then untouched.
    Source of the authors' names: the models published at https://github.com/hujie-frank/SENet.

    >>> import se_inject, torchvision
    >>> twin = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), torchvision.ops.SqueezeExcitation(8, 8))
    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv = nn.Conv2d(8, 8, 3, padding=1)
    ...     def forward(self, x):
    ...         return x + self.conv(x)
    >>> model, x = se_inject.apply(Block(), init="standard"), torch.randn(2, 8, 5, 5)
    >>> torch.allclose(load_se_weights(model, twin.state_dict())(x), x + twin(x), atol=1e-6)
    True
    """
    own, in_gates = _own(model)
    check_state_dict(state_dict)
    found: dict[str, Tensor] = {}
    pairs = _matched(state_dict, own, in_gates)
    _check_places(model, [theirs.path for theirs, ours in pairs if ours.path in in_gates])
    for theirs, ours in pairs:
        for name, key in ours.keys.items():
            if name in theirs.keys:
                found[key] = as_value(state_dict[theirs.keys[name]], own[key], theirs.keys[name])
            elif name != COUNTER:
                found[key] = torch.zeros_like(own[key])  # a gate's bias
    for key in found:
        check_writable(own[key], key)
    change_all((), [partial(write, own[key], value) for key, value in found.items()], [own[key] for key in found])
    return model


def to_layout(model: nn.Module, layout: str | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of ``model``, a plain network with our gates, as a state dict of another library's SE network.

    ``layout`` is a state dict of that network, such as ``timm.create_model("seresnet50").state_dict()``, of which only
    names and shapes count; it may be on the meta device. The result has its keys, in its order, with this model's
    values, told apart as by ``load_se_weights``; the network loads it strictly. This is the general way, since the
    names of a library's SE network follow from nothing but that network.

    Where the names of the plain network and of the gates alone decide, ``layout`` may be a library's name: "timm" and
    "torchvision" for their own networks, whose SE modules are called as ours; "cadene" (timm's ``legacy_*``) for
    ResNets, ResNeXts and SENet-154 with torchvision's names; "pytorchcv" for its own networks.

    Tensors share memory with the model's, as those of ``state_dict`` do.

    Raises ``LayoutError`` where the network is another one or may be read in several ways, where a gate has a bias
    that the layout has no place for, and where a name is not enough; otherwise the errors of ``load_se_weights``.

    >>> import se_inject, torchvision
    >>> model = se_inject.apply(torchvision.models.resnet18(), init="standard")
    >>> [key for key in to_layout(model, "cadene") if key.startswith("layer1.0.se")][0]
    'layer1.0.se_module.fc1.weight'
    """
    own, in_gates = _own(model)
    if isinstance(layout, str):
        return renamed(own, [path for path, _ in gates(model)], layout)
    check_state_dict(layout)
    pairs = _matched(layout, own, in_gates)
    _check_places(model, [theirs.path for theirs, ours in pairs if ours.path in in_gates])
    found = {key: torch.zeros((), dtype=torch.int64) for key in layout}  # of counters that ours does not have
    for theirs, ours in pairs:
        for name, key in ours.keys.items():
            if name in theirs.keys:
                found[theirs.keys[name]] = own[key].reshape(layout[theirs.keys[name]].shape)
            elif name != COUNTER and own[key].any():
                raise LayoutError(f"{key} is not zero, and gates of that layout have no bias")
    return found


def _own(model: nn.Module) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors of a gated model and the paths of the layers in its gates, which are of the standard form."""
    paths = set()
    for path, gate in gates(model):
        if isinstance(gate, Blend) or getattr(gate, "init", "standard") == "identity":
            raise InvalidArgumentError(
                f"{path}: published gates are of the standard form, and this one is not: se_inject.apply(model,"
                ' init="standard"), or se_inject.convert(model, "standard")'
            )
        paths.add(path)
    if not paths:
        raise NoGateError('the model has no gates; call se_inject.apply(model, init="standard") first')
    check_not_optimized(model)
    own = tensors_of(model)
    check_own(own)
    layers = {key.rpartition(".")[0] for key in own}
    return own, {layer for layer in layers if not paths.isdisjoint(["", *with_parents(layer)])}


def _matched(theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], in_gates: set[str]) -> list[tuple[Layer, Layer]]:
    layers, problems = layers_of(theirs), []
    for ours in (layers_of(own), layers_of(own, without_bias=in_gates)):
        problem = mismatch(layers, ours, in_gates)
        if problem is None:
            return match(layers, ours, in_gates)
        problems.append(problem)
    raise LayoutError(problems[0])


def _check_places(model: nn.Module, paths: list[str]) -> None:
    """Raise if layers of published gates are where the model has a place for a gate of its author's, without ours."""
    places = {path for path, module in model.named_modules() if path and isinstance(module, nn.Identity)}
    for path in sorted(paths):
        place = path.rpartition(".")[0]
        if any(place == known or place.endswith(f".{known}") for known in places):  # behind module., too
            raise LayoutError(
                f"{place}: the published gate is in this place of its author's, where the model has nn.Identity and"
                " se_inject.apply puts none: it scales another value there"
            )
