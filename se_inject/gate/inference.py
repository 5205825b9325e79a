"""Layers of a copy for inference: one of them does the work of a convolution, a norm and a gate, the others pass on.

A batch norm in eval mode is one pass over its input, ``scale * z + shift``. A gate that only has to be multiplied into
``scale`` and ``shift`` costs no pass of its own. The mean that it needs is an affine map of the mean of the norm's
input, and, where that is made by a 1x1 convolution, of the mean of the convolution's input, which has fewer channels;
the map goes into the gate's first layer.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .affine import affine, affine_, positions, scaled_, spread
from .autograd import is_plain_layer
from .compiled import excited, is_compiled_for_inference
from .folding import Folding, ForInference, check, check_mode, goes_together
from .squeeze_excitation import SqueezeExcitation


class PassingGate(ForInference, SqueezeExcitation):
    """A gate whose work a layer before it does."""

    def forward(self, x: Tensor) -> Tensor:
        """Pass on ``x``."""
        check_mode(self)
        return x


class PassingBatchNorm2d(ForInference, nn.BatchNorm2d):
    """A norm whose work the convolution before it does."""

    def forward(self, z: Tensor) -> Tensor:
        """Pass on ``z``."""
        check_mode(self)
        return z


class InPlaceGate(Folding, SqueezeExcitation):
    """A gate after a layer that makes a new tensor, which nobody else uses."""

    def forward(self, x: Tensor) -> Tensor:
        """Gate ``x`` of shape ``(N, C, *)`` in place."""
        check(self)
        if not goes_together(self, x) or not self._se_is_folded():
            return super().forward(x)
        values = self._se_excited(x)
        return scaled_(x, values.mul_(2) if self.init == "identity" else values)


class _Gating(Folding):
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
        check(self)
        if x.dim() != 4 or not self._se_is_folded():
            return self._se_in_two_steps(super().forward(x))
        told_by = None
        if self._se_is_narrow:
            dy, dx = self.stride
            told_by = x if dy == dx == 1 else x[:, :, ::dy, ::dx]
            if is_compiled_for_inference() and is_plain_layer(self._se_gate.fc2):
                return self._se_compiled(super().forward(x), told_by)
        if not goes_together(self, x):
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
        check(self)
        if not goes_together(self, z) or not self._se_is_folded():
            return self._se_in_two_steps(z)
        return self._se_normalized(z, z, affine)


class GatingBatchNorm1d(_GatingNorm, nn.BatchNorm1d):
    """A norm that also does the work of the gate after it."""


class GatingBatchNorm2d(_GatingNorm, nn.BatchNorm2d):
    """A norm that also does the work of the gate after it."""


class GatingBatchNorm3d(_GatingNorm, nn.BatchNorm3d):
    """A norm that also does the work of the gate after it."""
