"""Layers of a copy for inference: one of them does the work of a convolution, a norm and a gate, the others pass on.

A batch norm in eval mode is one pass over its input, ``scale * z + shift``. A gate that only has to be multiplied into
``scale`` and ``shift`` costs no pass of its own. The mean that it needs is an affine map of the mean of the norm's
input, and, where that is made by a 1x1 convolution, of the mean of the convolution's input, which has fewer channels;
the map goes into the gate's first layer.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InferenceOnlyError
from .affine import affine, affine_, positions, scaled_, spread
from .autograd import is_plain_layer, under_autocast, without_autocast
from .compiled import excited, is_compiled_for_inference
from .squeeze_excitation import SqueezeExcitation


class ForInference:
    """What the changed layers of such a copy are known by."""

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move or cast, and fold again, as folded weights that were cast before are less exact."""
        super()._apply(*args, **kwargs)  # type: ignore[misc]
        _fold_again(self, None)
        return self


class PassingGate(ForInference, SqueezeExcitation):
    """A gate whose work a layer before it does."""

    def forward(self, x: Tensor) -> Tensor:
        """Pass on ``x``."""
        _check(self)
        return x


class PassingBatchNorm2d(ForInference, nn.BatchNorm2d):
    """A norm whose work the convolution before it does."""

    def forward(self, z: Tensor) -> Tensor:
        """Pass on ``z``."""
        _check(self)
        return z


class InPlaceGate(ForInference, SqueezeExcitation):
    """A gate after a layer that makes a new tensor, which nobody else uses."""

    def forward(self, x: Tensor) -> Tensor:
        """Gate ``x`` of shape ``(N, C, *)`` in place."""
        _check(self)
        if not _goes_together(x, self.fc1.weight):
            return super().forward(x)
        assert self.fc1.bias is not None
        values = _excite(x, self.fc1.weight.flatten(1), self.fc1.bias, self.fc2)
        return scaled_(x, 2 * values if self.init == "identity" else values)


class _Gating(ForInference):
    """A layer that does the work of the norm and of the gate after it, with weights that are folded once."""

    _se_norm: _BatchNorm  # not registered as children, which have their places already
    _se_gate: SqueezeExcitation
    _se_scale: Tensor
    _se_shift: Tensor
    _se_fc1: Tensor
    _se_bias1: Tensor
    _se_folded: nn.Parameter | None  # the layer's weight then; ``functional_call`` gives it another one

    def _se_fold(self) -> None:
        """Compute the folded weights, and again when a state dict was loaded."""
        norm, gate = self._se_norm, self._se_gate
        assert norm.running_mean is not None and norm.running_var is not None
        own: nn.Parameter | None = self.weight  # type: ignore[attr-defined]
        vars(self)["_se_folded"] = own  # not as one more parameter
        tensors = (norm.running_mean, gate.fc1.weight, *([] if own is None else [own]))
        if len({tensor.device for tensor in tensors}) > 1:
            return  # not all have been moved, or loaded, yet
        with torch.no_grad():
            scale = torch.rsqrt(norm.running_var.double() + norm.eps)
            if norm.weight is not None:
                scale = scale * norm.weight
            shift = -norm.running_mean * scale
            if norm.bias is not None:
                shift = shift + norm.bias
            fc1 = gate.fc1.weight.flatten(1).double()
            factor = 2 if gate.init == "identity" else 1
            self._se_keep(scale=factor * scale, shift=factor * shift)
            assert gate.fc1.bias is not None
            self._se_fold_mean(fc1 * scale, fc1 @ shift + gate.fc1.bias)

    def _se_fold_mean(self, fc1: Tensor, bias1: Tensor) -> None:
        """Keep the gate's first layer for the mean of the norm's input."""
        self._se_keep(fc1=fc1, bias1=bias1)

    def _se_keep(self, **tensors: Tensor) -> None:
        like = self._se_gate.fc1.weight
        dtype = torch.promote_types(like.dtype, torch.float32)
        for name, tensor in tensors.items():
            self.register_buffer(f"_se_{name}", tensor.to(like.device, dtype), persistent=False)  # type: ignore[attr-defined]

    def _se_scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What norm and gate multiply by and add, ``(N, C)``, as the mean of ``x`` tells."""
        folded: dict[str, Tensor] = self._buffers  # type: ignore[attr-defined]  # as attributes they take longer
        values = _excite(x, folded["_se_fc1"], folded["_se_bias1"], self._se_gate.fc2)
        return values * folded["_se_scale"], values * folded["_se_shift"]

    def _se_in_two_steps(self, z: Tensor) -> Tensor:
        """The norm and the gate themselves."""
        gate, norm = self._se_gate, self._se_norm
        gated: Tensor = SqueezeExcitation.forward(gate, _BatchNorm.forward(norm, z))
        return gated


class GatingConv2d(_Gating, nn.Conv2d):
    """A convolution that also does the work of the norm and of the gate after it."""

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of ``x``, normalized and gated."""
        _check(self)
        z: Tensor = self._conv_forward(x, self.weight, self.bias)
        if z.dim() != 4 or self.weight is not self._se_folded:
            return self._se_in_two_steps(z)
        told_by = z
        if self._se_is_narrow:
            dy, dx = self.stride
            told_by = x if dy == dx == 1 else x[:, :, ::dy, ::dx]
            if is_compiled_for_inference() and is_plain_layer(self._se_gate.fc2):
                mean = told_by.mean(positions(told_by))
                values = excited(mean, self._se_fc1, self._se_bias1, self._se_gate.fc2)
                scale, shift = (spread(values * factor, z) for factor in (self._se_scale, self._se_shift))
                return (z * scale + shift).to(z.dtype)
        if not _goes_together(z, self._se_scale):
            return self._se_in_two_steps(z)
        return affine_(z, *self._se_scale_and_shift(told_by))

    def _se_fold_mean(self, fc1: Tensor, bias1: Tensor) -> None:
        # Whether the mean of the output is told by fewer channels of the input.
        is_pointwise = self.kernel_size == (1, 1) and self.groups == 1 and self.padding == (0, 0)
        self._se_is_narrow = is_pointwise and self.in_channels <= self.out_channels
        if self._se_is_narrow:
            bias1 = bias1 if self.bias is None else bias1 + fc1 @ self.bias.double()
            fc1 = fc1 @ self.weight.flatten(1).double()
        super()._se_fold_mean(fc1, bias1)


class _GatingNorm(_Gating, _BatchNorm):
    def forward(self, z: Tensor) -> Tensor:
        """``z`` of shape ``(N, C, *)``, normalized and gated."""
        _check(self)
        if not _goes_together(z, self._se_scale) or self.weight is not self._se_folded:
            return self._se_in_two_steps(z)
        return affine(z, *self._se_scale_and_shift(z))


class GatingBatchNorm1d(_GatingNorm, nn.BatchNorm1d):
    """A norm that also does the work of the gate after it."""


class GatingBatchNorm2d(_GatingNorm, nn.BatchNorm2d):
    """A norm that also does the work of the gate after it."""


class GatingBatchNorm3d(_GatingNorm, nn.BatchNorm3d):
    """A norm that also does the work of the gate after it."""


def _excite(x: Tensor, w1: Tensor, b1: Tensor, fc2: nn.Conv2d) -> Tensor:
    """``sigmoid(fc2(relu(w1 @ mean + b1)))``, ``(N, C)``, of the mean over positions of ``x``, in float32 at least."""
    w2, b2 = fc2.weight.flatten(1), fc2.bias
    assert b2 is not None
    exact = torch.promote_types(x.dtype, torch.float32)
    # A sum takes half the time of a mean, and the product can divide it.
    total = x.sum(positions(x), dtype=exact)
    if x.dtype is w1.dtype is w2.dtype is exact and not under_autocast(x):
        return _excited(total, w1, b1, w2, b2, x)
    # The layers may be of another dtype than the feature, and half precision does not take such large sums.
    with without_autocast(x):
        return _excited(total, w1.to(exact), b1.to(exact), w2.to(exact), b2.to(exact), x)


def _excited(total: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, x: Tensor) -> Tensor:
    hidden = torch.addmm(b1, total, w1.T, alpha=1 / math.prod(x.shape[2:])).relu_()
    return torch.addmm(b2, hidden, w2.T).sigmoid_()


def _goes_together(x: Tensor, weight: Tensor) -> bool:
    """Whether to compute norm and gate in one.

    Not where operations are noted down: compilers fuse the two by themselves, and files for other runtimes are smaller.
    Nor where ``torch.func`` is at work, nor in half precision on a CPU, which would convert features to compute with
    the gate's float32; a GPU does so on the way.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    if x.dim() < 3 or x.numel() == 0 or torch._C._are_functorch_transforms_active():
        return False
    if x.is_cuda:
        return x.is_floating_point()
    return x.dtype is weight.dtype and x.dtype in (torch.float32, torch.float64) and not under_autocast(x)


def join(first: nn.Module, norm: nn.Module, gate: SqueezeExcitation) -> None:
    """Let ``first``, of a class above, do the work of a norm (which may be itself) and of a gate."""
    assert isinstance(first, _Gating)
    vars(first).update(_se_norm=norm, _se_gate=gate)
    first._se_fold()
    for module in {first, norm, gate, gate.fc1}:
        vars(module)["_se_first"] = first
        # After each, as any may be the last to be loaded.
        module.register_load_state_dict_post_hook(_fold_again)  # type: ignore[no-untyped-call]


def _fold_again(module: object, _: object) -> None:
    first = vars(module).get("_se_first")
    if first is not None:
        first._se_fold()


def _check(layer: nn.Module) -> None:
    if torch.compiler.is_compiling():
        return
    if layer.training:
        raise InferenceOnlyError("this copy is for inference, in eval mode: call its eval(), or train the model itself")
    if torch.is_grad_enabled() and not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise InferenceOnlyError(
            "this copy is for inference, without gradients: call it under torch.no_grad() or torch.inference_mode()"
        )
