"""Layers of a copy for inference: one of them does the work of a convolution, a norm and a gate, the others pass on.

A batch norm in eval mode is one pass over its input, ``scale * z + shift``. A gate that only has to be multiplied into
``scale`` and ``shift`` costs no pass of its own. The mean that it needs is an affine map of the mean of the norm's
input, and, where that is made by a 1x1 convolution, of the mean of the convolution's input, which has fewer channels;
the map goes into the gate's first layer.

A large convolution leaves a processor's caches without what a gate needs, its code too, which has to come from memory
again, so that each call and each question to PyTorch costs several times what it does in a loop, up to 12 us: hence few
of them here.
"""

import math
from collections.abc import Callable
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.jit import is_tracing  # type: ignore[attr-defined]
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
        _check_mode(self)
        return x


class PassingBatchNorm2d(ForInference, nn.BatchNorm2d):
    """A norm whose work the convolution before it does."""

    def forward(self, z: Tensor) -> Tensor:
        """Pass on ``z``."""
        _check_mode(self)
        return z


class _Folding(ForInference):
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
        vars(self)["_se_is_on_cpu"] = _is_on_cpu(fc2.weight)
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
        if self._se_is_on_cpu:  # where ``_goes_together`` has asked for the rest
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


class InPlaceGate(_Folding, SqueezeExcitation):
    """A gate after a layer that makes a new tensor, which nobody else uses."""

    def forward(self, x: Tensor) -> Tensor:
        """Gate ``x`` of shape ``(N, C, *)`` in place."""
        _check(self)
        if not _goes_together(self, x) or not self._se_is_folded():
            return super().forward(x)
        values = self._se_excited(x)
        return scaled_(x, values.mul_(2) if self.init == "identity" else values)


class _Gating(_Folding):
    """A layer that does the work of the norm, if there is one, and of the gate after it."""

    _se_norm: _BatchNorm | None
    _se_scale: Tensor  # the norm's, and so the shift
    _se_shift: Tensor

    def _se_now(self) -> tuple[Tensor | None, ...]:
        layers: dict[str, Any] = self._se_gate._modules
        fc1, fc2 = layers["fc1"]._parameters, layers["fc2"]._parameters  # once more, as another call takes longer
        own: dict[str, Tensor | None] = self._parameters  # type: ignore[attr-defined]
        of_gate = fc1.get("weight"), fc1.get("bias"), fc2.get("weight"), fc2.get("bias")
        if self._se_norm is None:
            return own.get("weight"), own.get("bias"), *of_gate
        norm, statistics = self._se_norm._parameters, self._se_norm._buffers
        of_norm = norm.get("weight"), norm.get("bias"), statistics.get("running_mean"), statistics.get("running_var")
        return own.get("weight"), own.get("bias"), *of_norm, *of_gate

    def _se_fold_first(self) -> None:
        gate = self._se_gate
        assert gate.fc1.bias is not None
        fc1 = gate.fc1.weight.flatten(1).double()
        scale, shift = _scale_and_shift(self._se_norm, fc1[0])
        factor = 2 if gate.init == "identity" else 1
        self._se_keep(scale=factor * scale, shift=factor * shift)
        self._se_fold_mean(fc1, gate.fc1.bias, scale, shift)

    def _se_fold_mean(self, fc1: Tensor, bias1: Tensor, scale: Tensor, shift: Tensor) -> None:
        """Keep the gate's first layer for the mean of the norm's input."""
        self._se_keep(fc1=(fc1 * scale).T, bias1=bias1 + fc1 @ shift)

    def _se_normalized(self, z: Tensor, told_by: Tensor, affine: Callable[..., Tensor]) -> Tensor:
        """``z``, normalized and gated, as the mean of another tensor tells."""
        values = self._se_excited(told_by)
        folded: dict[str, Tensor] = self._buffers  # type: ignore[attr-defined]
        return affine(z, values * folded["_se_scale"], values * folded["_se_shift"])

    def _se_in_two_steps(self, z: Tensor) -> Tensor:
        """The norm and the gate themselves."""
        gate, norm = self._se_gate, self._se_norm
        gated: Tensor = SqueezeExcitation.forward(gate, z if norm is None else _BatchNorm.forward(norm, z))
        return gated


def _scale_and_shift(norm: _BatchNorm | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """What a norm in eval mode multiplies each channel by, and adds."""
    if norm is None:
        return torch.ones_like(like), torch.zeros_like(like)
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


class GatingConv2d(_Gating, nn.Conv2d):
    """A convolution that also does the work of the norm, if there is one, and of the gate after it."""

    _se_offset: Tensor | None  # the bias with which nothing is left to add

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of ``x``, normalized and gated."""
        _check(self)
        if x.dim() != 4 or not self._se_is_folded():
            return self._se_in_two_steps(super().forward(x))
        told_by = None
        if self._se_is_narrow:
            dy, dx = self.stride
            told_by = x if dy == dx == 1 else x[:, :, ::dy, ::dx]
            if is_compiled_for_inference() and is_plain_layer(self._se_gate.fc2):
                return self._se_compiled(super().forward(x), told_by)
        if not _goes_together(self, x):
            return self._se_in_two_steps(super().forward(x))
        folded: dict[str, Any] = self._buffers
        offset = folded["_se_offset"]
        z = self._conv_forward(x, self.weight, self.bias if offset is None else offset)
        told_by = z if told_by is None else told_by
        if offset is None and self._se_norm is not None:
            return self._se_normalized(z, told_by, affine_)
        return scaled_(z, self._se_excited(told_by).mul_(folded["_se_scale"]))

    def _se_compiled(self, z: Tensor, told_by: Tensor) -> Tensor:
        values = excited(told_by.mean(positions(told_by)), self._se_fc1.T, self._se_bias1, self._se_gate.fc2)
        scale, shift = (spread(values * factor, z) for factor in (self._se_scale, self._se_shift))
        return (z * scale + shift).to(z.dtype)

    def _se_fold_mean(self, fc1: Tensor, bias1: Tensor, scale: Tensor, shift: Tensor) -> None:
        # Whether the mean of the output is told by fewer channels of the input.
        is_pointwise = self.kernel_size == (1, 1) and self.groups == 1 and self.padding == (0, 0)
        self._se_is_narrow = is_pointwise and self.in_channels <= self.out_channels
        offset = self._se_offset_for(scale, shift)
        self._se_keep(offset=offset)
        if self._se_is_narrow:
            shift = shift if self.bias is None else shift + scale * self.bias
            self._se_keep(fc1=(fc1 * scale @ self.weight.flatten(1).double()).T, bias1=bias1 + fc1 @ shift)
        else:
            super()._se_fold_mean(fc1, bias1, scale, shift if offset is None else torch.zeros_like(shift))

    def _se_offset_for(self, scale: Tensor, shift: Tensor) -> Tensor | None:
        """The bias with which a product with ``scale`` gives the norm's result; none where a scale is next to 0.

        Nor on a GPU, which adds a bias in one more pass.
        """
        if self._se_norm is None or type(scale) is not Tensor or not self._se_is_on_cpu:
            return None
        offset = shift / scale if self.bias is None else shift / scale + self.bias
        is_in_range = (offset.abs() < 2.0**64) & (scale.abs() > 2.0**-64)  # of float32, and its sums
        return offset if is_in_range.all() else None


class _GatingNorm(_Gating, _BatchNorm):
    def forward(self, z: Tensor) -> Tensor:
        """``z`` of shape ``(N, C, *)``, normalized and gated."""
        _check(self)
        if not _goes_together(self, z) or not self._se_is_folded():
            return self._se_in_two_steps(z)
        return self._se_normalized(z, z, affine)


class GatingBatchNorm1d(_GatingNorm, nn.BatchNorm1d):
    """A norm that also does the work of the gate after it."""


class GatingBatchNorm2d(_GatingNorm, nn.BatchNorm2d):
    """A norm that also does the work of the gate after it."""


class GatingBatchNorm3d(_GatingNorm, nn.BatchNorm3d):
    """A norm that also does the work of the gate after it."""


def _goes_together(layer: _Folding, x: Tensor) -> bool:
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


def _is_on_cpu(weight: Tensor) -> bool:
    return weight.is_cpu


def join(first: nn.Module, norm: nn.Module | None, gate: SqueezeExcitation) -> None:
    """Let ``first``, of a class above, do the work of a norm, if there is one, and of a gate; it may be either."""
    assert isinstance(first, _Folding)
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


def _check_mode(layer: nn.Module) -> None:
    if layer.training and not is_compiling():
        raise InferenceOnlyError("this copy is for inference, in eval mode: call its eval(), or train the model itself")


def _check(layer: nn.Module) -> None:
    _check_mode(layer)
    if torch.is_grad_enabled() and not (is_compiling() or is_tracing()):  # type: ignore[no-untyped-call]
        raise InferenceOnlyError(
            "this copy is for inference, without gradients: call it under torch.no_grad() or torch.inference_mode()"
        )
