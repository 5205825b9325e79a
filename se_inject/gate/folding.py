"""What the layers of a copy for inference have in common: folded weights, and when these may be used.

A large convolution leaves a processor's caches without what a gate needs, its code too, which has to come from memory
again, so that each call and each question to PyTorch costs several times what it does in a loop, up to 12 us: hence few
of them here.
"""

import math
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.jit import is_tracing  # type: ignore[attr-defined]

from ..errors import InferenceOnlyError
from .autograd import under_autocast, without_autocast
from .squeeze_excitation import SqueezeExcitation


class ForInference:
    """What the changed layers of a copy for inference are known by."""

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move or cast, and fold again, as folded weights that were cast before are less exact."""
        super()._apply(*args, **kwargs)  # type: ignore[misc]
        _fold_again(self, None)
        return self


class Folding(ForInference):
    """A layer with weights that are folded once, which works in the gate's precision or float32."""

    _se_gate: SqueezeExcitation  # not registered as a child, which has its place already
    _se_is_on_cpu: bool
    _se_fc1: Tensor
    _se_bias1: Tensor
    _se_then: tuple[Tensor | None, ...]  # the weights that were folded; ``functional_call`` gives other ones

    def _se_fold(self) -> None:
        """Compute the folded weights, and again when a state dict was loaded."""
        now = self._se_now()
        vars(self)["_se_then"] = now  # not as more parameters
        if len({tensor.device for tensor in now if tensor is not None}) > 1:
            return  # not all have been moved, or loaded, yet
        fc2 = self._se_gate.fc2
        vars(self)["_se_is_on_cpu"] = is_on_cpu(fc2.weight)
        with torch.no_grad():
            self._se_fold_first()
            assert fc2.bias is not None
            self._se_keep(fc2=fc2.weight.flatten(1).T, bias2=fc2.bias)

    def _se_now(self) -> tuple[Tensor | None, ...]:
        """The weights, and statistics, that are folded."""
        layers: dict[str, Any] = self._se_gate._modules
        fc1, fc2 = layers["fc1"]._parameters, layers["fc2"]._parameters
        return fc1.get("weight"), fc1.get("bias"), fc2.get("weight"), fc2.get("bias")

    def _se_fold_first(self) -> None:
        """Keep the gate's first layer, and what it takes from the layers before it."""
        fc1 = self._se_gate.fc1
        assert fc1.bias is not None
        self._se_keep(fc1=fc1.weight.flatten(1).T, bias1=fc1.bias)

    def _se_keep(self, **tensors: Tensor | None) -> None:
        like = self._se_gate.fc1.weight
        dtype = torch.promote_types(like.dtype, torch.float32)
        for name, tensor in tensors.items():
            kept = None if tensor is None else tensor.detach().to(like.device, dtype)
            self.register_buffer(f"_se_{name}", kept, persistent=False)  # type: ignore[attr-defined]

    def _se_is_folded(self) -> bool:
        """Whether the weights that it has now are those that were folded."""
        return all(map(is_, self._se_now(), self._se_then))

    def _se_excited(self, x: Tensor) -> Tensor:
        """``sigmoid(fc2(relu(fc1 @ mean + bias1)))``, ``(N, C)``, of the mean over positions of ``x``."""
        folded: dict[str, Tensor] = self._buffers  # type: ignore[attr-defined]  # as attributes they take longer
        layers = (folded["_se_fc1"], folded["_se_bias1"], folded["_se_fc2"], folded["_se_bias2"])
        if self._se_is_on_cpu:  # where ``goes_together`` has asked for the rest
            return _excited(x, *layers)
        # The layers may be of another dtype than the feature, and half precision does not take such large sums.
        exact = torch.promote_types(x.dtype, torch.float32)
        with without_autocast(x):
            return _excited(x, *(layer.to(exact) for layer in layers))


def _excited(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    _, _, *sizes = x.shape
    # A sum takes half the time of a mean, and the product can divide it.
    total = x.sum(tuple(range(2, 2 + len(sizes))), dtype=w1.dtype)
    hidden = torch.addmm(b1, total, w1, alpha=1 / math.prod(sizes)).relu_()
    return torch.addmm(b2, hidden, w2).sigmoid_()


def goes_together(layer: Folding, x: Tensor) -> bool:
    """Whether to compute norm and gate in one.

    Not where operations are noted down: compilers fuse the two by themselves, and files for other runtimes are smaller.
    Nor where ``torch.func`` is at work, nor in half precision on a CPU, which would convert features to compute with
    the gate's float32; a GPU does so on the way.
    """
    if is_compiling() or is_tracing():  # type: ignore[no-untyped-call]
        return False
    sizes = x.shape
    if len(sizes) < 3 or 0 in sizes or torch._C._are_functorch_transforms_active():
        return False
    folded: dict[str, Tensor] = layer._buffers  # type: ignore[attr-defined]
    if layer._se_is_on_cpu:
        return x.dtype is folded["_se_fc1"].dtype and not torch.is_autocast_enabled("cpu")
    if x.is_cuda:
        return x.is_floating_point()
    return x.dtype is folded["_se_fc1"].dtype and not under_autocast(x)


def is_on_cpu(weight: Tensor) -> bool:
    """Whether a CPU does the work; tests say no to have it done as on a GPU."""
    return weight.is_cpu


def join(first: nn.Module, norm: nn.Module | None, gate: SqueezeExcitation) -> None:
    """Let ``first``, of a class that folds, do the work of a norm, if there is one, and of a gate; it may be either."""
    assert isinstance(first, Folding)
    vars(first).update(_se_norm=norm, _se_gate=gate)
    first._se_fold()
    for module in {first, norm or first, gate, gate.fc1, gate.fc2}:
        vars(module)["_se_first"] = first
        # After each, as any may be the last to be loaded.
        module.register_load_state_dict_post_hook(_fold_again)  # type: ignore[no-untyped-call]


def _fold_again(module: object, _: object) -> None:
    first = vars(module).get("_se_first")
    if first is not None:
        first._se_fold()


def check_mode(layer: nn.Module) -> None:
    """Raise ``InferenceOnlyError`` for a layer in training mode."""
    if layer.training and not is_compiling():
        raise InferenceOnlyError("this copy is for inference, in eval mode: call its eval(), or train the model itself")


def check(layer: nn.Module) -> None:
    """Raise ``InferenceOnlyError`` in training mode, or with gradients on."""
    check_mode(layer)
    if torch.is_grad_enabled() and not (is_compiling() or is_tracing()):  # type: ignore[no-untyped-call]
        raise InferenceOnlyError(
            "this copy is for inference, without gradients: call it under torch.no_grad() or torch.inference_mode()"
        )
